//! Responses: what is refused, how the body is framed, and what the client is given.

use super::super::{Asked, Body, Malformed, Method, ResponseHead, Scan, Upgrade, Version};

const GET: Asked = Asked {
    method: Method::Get,
    version: Version::Http11,
    upgrade: Upgrade::No,
};
const HEAD: Asked = Asked {
    method: Method::Head,
    ..GET
};
const OLD: Asked = Asked {
    version: Version::Http10,
    ..GET
};
const UPGRADE: Asked = Asked {
    upgrade: Upgrade::Offered,
    ..GET
};
const CONNECT: Asked = Asked {
    method: Method::Connect,
    upgrade: Upgrade::Connect,
    ..GET
};

fn parse(input: &str, asked: Asked) -> Result<Option<ResponseHead>, Malformed> {
    ResponseHead::parse(input.as_bytes(), &mut Scan::default(), asked)
}

#[test]
fn malformed_responses_are_refused() {
    let ok = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
    let long = "a".repeat(70_000);
    let table = [
        (
            "length and chunks",
            ok("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
            GET,
        ),
        (
            "chunks and length",
            ok("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"),
            GET,
        ),
        (
            "the same of HEAD",
            ok("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"),
            HEAD,
        ),
        (
            "two lengths",
            ok("Content-Length: 3\r\nContent-Length: 4\r\n"),
            GET,
        ),
        (
            "one length twice",
            ok("Content-Length: 3\r\nContent-Length: 3\r\n"),
            GET,
        ),
        ("lengths in a list", ok("Content-Length: 3,3\r\n"), GET),
        ("negative length", ok("Content-Length: -1\r\n"), GET),
        (
            "chunked twice",
            ok("Transfer-Encoding: chunked, chunked\r\n"),
            GET,
        ),
        ("another coding", ok("Transfer-Encoding: gzip, chunked\r\n"), GET),
        ("identity", ok("Transfer-Encoding: identity\r\n"), GET),
        (
            "chunks from HTTP/1.0",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            GET,
        ),
        ("chunks for HTTP/1.0", ok("Transfer-Encoding: chunked\r\n"), OLD),
        (
            "bare line feeds",
            "HTTP/1.1 200 OK\nContent-Length: 0\n\n".into(),
            GET,
        ),
        (
            "one bare line feed",
            "HTTP/1.1 200 OK\r\nX: a\nY: b\r\n\r\n".into(),
            GET,
        ),
        ("bare carriage return", ok("X: a\rb\r\n"), GET),
        ("folded value", ok("X: a\r\n b\r\n"), GET),
        ("NUL", ok("X: a\0\r\n"), GET),
        ("space before the colon", ok("Content-Length : 3\r\n"), GET),
        ("space in a name", ok("Content Length: 3\r\n"), GET),
        ("empty line first", "\r\nHTTP/1.1 200 OK\r\n\r\n".into(), GET),
        ("HTTP/2", "HTTP/2 200\r\n\r\n".into(), GET),
        ("HTTP/1.2", "HTTP/1.2 200 OK\r\n\r\n".into(), GET),
        ("ICY", "ICY 200 OK\r\n\r\n".into(), GET),
        ("status of two digits", "HTTP/1.1 20 OK\r\n\r\n".into(), GET),
        ("status under 100", "HTTP/1.1 099 OK\r\n\r\n".into(), GET),
        ("status of four digits", "HTTP/1.1 2000 OK\r\n\r\n".into(), GET),
        (
            "control character in the reason",
            "HTTP/1.1 200 O\x01K\r\n\r\n".into(),
            GET,
        ),
        ("not HTTP", "hello there\r\n\r\n".into(), GET),
        (
            "unasked switch",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n".into(),
            GET,
        ),
        (
            "switch to HTTP/2",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n".into(),
            UPGRADE,
        ),
        (
            "switch for CONNECT",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n".into(),
            CONNECT,
        ),
        (
            "Connection: Content-Length",
            ok("Content-Length: 3\r\nConnection: content-length\r\n"),
            GET,
        ),
        ("large head", ok(&format!("X: {long}\r\n")), GET),
        (
            "large head, unfinished",
            format!("HTTP/1.1 200 OK\r\nX: {long}"),
            GET,
        ),
        ("long status line", format!("HTTP/1.1 200 {long}"), GET),
        ("many fields", ok(&"X: a\r\n".repeat(200)), GET),
    ];
    for (name, input, asked) in table {
        assert!(parse(&input, asked).is_err(), "{name}: {input:.200?}");
    }
}

#[test]
fn framing_and_persistence() {
    let chunked = Body::chunked();
    // status line and fields, asked, body, persists, tunnel
    let table = [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
            GET,
            Body::Length(5),
            true,
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
            GET,
            Body::Done,
            true,
            false,
        ),
        (
            "HTTP/1.1 200\r\nContent-Length: 5\r\n",
            GET,
            Body::Length(5),
            true,
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n",
            GET,
            chunked,
            true,
            false,
        ),
        ("HTTP/1.1 200 OK\r\n", GET, Body::UntilClose, false, false),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n",
            GET,
            Body::Length(5),
            false,
            false,
        ),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n",
            GET,
            Body::Length(5),
            false,
            false,
        ),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n",
            GET,
            Body::Length(5),
            true,
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
            OLD,
            Body::Length(5),
            false,
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n",
            OLD,
            Body::Length(5),
            true,
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
            HEAD,
            Body::Done,
            true,
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n",
            HEAD,
            Body::Done,
            true,
            false,
        ),
        ("HTTP/1.1 200 OK\r\n", HEAD, Body::Done, true, false),
        (
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n",
            GET,
            Body::Done,
            true,
            false,
        ),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n",
            GET,
            Body::Done,
            true,
            false,
        ),
        ("HTTP/1.1 100 Continue\r\n", GET, Body::Done, true, false),
        (
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n",
            GET,
            Body::Done,
            true,
            false,
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n",
            UPGRADE,
            Body::Done,
            false,
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
            UPGRADE,
            Body::Length(5),
            true,
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n",
            CONNECT,
            Body::Done,
            false,
            true,
        ),
        (
            "HTTP/1.1 407 No\r\nContent-Length: 5\r\n",
            CONNECT,
            Body::Length(5),
            true,
            false,
        ),
        (
            "HTTP/1.1 599 Odd\r\nContent-Length: 5\r\n",
            GET,
            Body::Length(5),
            true,
            false,
        ),
    ];
    for (lines, asked, body, persists, tunnel) in table {
        let head = parse(&format!("{lines}\r\n"), asked)
            .unwrap_or_else(|error| panic!("{error}: {lines:?}"))
            .expect("complete");
        assert_eq!(
            (head.body, head.persists, head.tunnel),
            (body, persists, tunnel),
            "{lines:?}"
        );
    }
}

#[test]
fn hop_fields_are_taken_out() {
    let table = [
        (
            "HTTP/1.1 204 No Content\r\nServer: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            GET,
            "HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 Connected\r\nContent-Length: 5\r\nServer: x\r\n\r\n",
            CONNECT,
            "HTTP/1.1 200 Connected\r\nServer: x\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nServer: x\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 0\r\n\r\n",
            GET,
            "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: upgrade, x-hop\r\nUpgrade: h2,h2c\r\nX-Hop: 1\r\nContent-Length: 0\r\n\r\n",
            GET,
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nconnection: upgrade\r\n\r\n",
            UPGRADE,
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        ),
        (
            "HTTP/1.1 426 Upgrade Required\r\nUpgrade: x\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n",
            GET,
            "HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\n",
        ),
    ];
    for (input, asked, expected) in table {
        let head = parse(input, asked).expect("valid").expect("complete");
        let mut bytes = vec![0; 64];
        bytes.extend_from_slice(input.as_bytes());
        let start = head
            .edits
            .apply(&mut bytes, 64, &head.range, head.start_line)
            .expect("room");
        assert_eq!(String::from_utf8_lossy(&bytes[start..]), expected);
    }
}
