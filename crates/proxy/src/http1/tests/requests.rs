//! Requests: what is refused and with which status, and what is passed on instead of what came.

use super::super::{Body, FIELDS_MAX, HEAD_MAX, Method, RequestHead, START_LINE_MAX, Scan, Upgrade, Version};

fn parse(input: &[u8]) -> Result<Option<RequestHead>, u16> {
    RequestHead::parse(input, &mut Scan::default()).map_err(super::super::Malformed::status)
}

/// What is passed on for a request, as text.
fn forwarded(input: &str) -> String {
    let head = parse(input.as_bytes())
        .unwrap_or_else(|status| panic!("refused with {status}: {input:?}"))
        .unwrap_or_else(|| panic!("incomplete: {input:?}"));
    let mut bytes = vec![b'~'; 512];
    bytes.extend_from_slice(input.as_bytes());
    let start = head
        .edits
        .apply(&mut bytes, 512, &head.range, head.start_line)
        .expect("512 bytes are room enough");
    assert_eq!(
        512 + head.range.end - start,
        head.edits.length(&head.range, head.start_line)
    );
    String::from_utf8(bytes[start..].to_vec()).expect("text in, text out")
}

#[test]
fn hostile_requests_are_refused() {
    let get = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    let host = |hosts: &str| format!("GET / HTTP/1.1\r\n{hosts}\r\n");
    let table: Vec<(&str, String, u16)> = vec![
        // Length that two readers may read in two ways.
        (
            "length and chunks",
            post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
            400,
        ),
        (
            "chunks and length",
            post("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"),
            400,
        ),
        (
            "chunks and length 0",
            post("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"),
            400,
        ),
        (
            "two lengths",
            post("Content-Length: 3\r\nContent-Length: 4\r\n"),
            400,
        ),
        (
            "one length twice",
            post("Content-Length: 3\r\nContent-Length: 3\r\n"),
            400,
        ),
        ("lengths in a list", post("Content-Length: 3, 3\r\n"), 400),
        ("signed length", post("Content-Length: +3\r\n"), 400),
        ("negative length", post("Content-Length: -3\r\n"), 400),
        ("hexadecimal length", post("Content-Length: 0x3\r\n"), 400),
        ("length in words", post("Content-Length: three\r\n"), 400),
        ("empty length", post("Content-Length:\r\n"), 400),
        ("length with a space", post("Content-Length: 3 3\r\n"), 400),
        ("length with a tab", post("Content-Length: 3\t3\r\n"), 400),
        ("length with an underscore", post("Content-Length: 1_0\r\n"), 400),
        ("fractional length", post("Content-Length: 3.0\r\n"), 400),
        (
            "length over 64 bits",
            post("Content-Length: 18446744073709551616\r\n"),
            400,
        ),
        (
            "very long length",
            post("Content-Length: 00000000000000000000000003\r\n"),
            400,
        ),
        // Transfer-Encoding and its variants.
        (
            "chunked twice",
            post("Transfer-Encoding: chunked, chunked\r\n"),
            400,
        ),
        (
            "chunked on two lines",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            400,
        ),
        ("xchunked", post("Transfer-Encoding: xchunked\r\n"), 400),
        ("chunkedx", post("Transfer-Encoding: chunkedx\r\n"), 400),
        ("identity", post("Transfer-Encoding: identity\r\n"), 400),
        (
            "chunked, identity",
            post("Transfer-Encoding: chunked, identity\r\n"),
            400,
        ),
        (
            "identity on a second line",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
            400,
        ),
        ("gzip alone", post("Transfer-Encoding: gzip\r\n"), 400),
        ("chunked, gzip", post("Transfer-Encoding: chunked, gzip\r\n"), 400),
        ("gzip, chunked", post("Transfer-Encoding: gzip, chunked\r\n"), 501),
        (
            "identity, chunked",
            post("Transfer-Encoding: identity, chunked\r\n"),
            501,
        ),
        ("quoted chunked", post("Transfer-Encoding: \"chunked\"\r\n"), 400),
        (
            "chunked with a parameter",
            post("Transfer-Encoding: chunked;q=1\r\n"),
            400,
        ),
        ("empty member", post("Transfer-Encoding: ,chunked\r\n"), 400),
        ("empty coding", post("Transfer-Encoding:\r\n"), 400),
        ("vertical tab", post("Transfer-Encoding: \x0bchunked\r\n"), 400),
        ("form feed", post("Transfer-Encoding: chunked\x0c\r\n"), 400),
        (
            "chunks in HTTP/1.0",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            400,
        ),
        // Lines and bytes.
        ("bare line feed", "GET / HTTP/1.1\nHost: a\n\n".into(), 400),
        (
            "bare line feed in the fields",
            "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n".into(),
            400,
        ),
        (
            "bare line feed at the end",
            "GET / HTTP/1.1\r\nHost: a\r\n\n".into(),
            400,
        ),
        ("bare carriage return in a value", get("X: a\rb\r\n"), 400),
        (
            "bare carriage return before a field",
            get("X: a\rContent-Length: 3\r\n"),
            400,
        ),
        ("carriage return twice", get("X: a\r\r\n"), 400),
        ("folded value", get("X: a\r\n b\r\n"), 400),
        ("folded by a tab", get("X: a\r\n\tb\r\n"), 400),
        (
            "folded Transfer-Encoding",
            post("Transfer-Encoding:\r\n chunked\r\n"),
            400,
        ),
        (
            "space before the first field",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n".into(),
            400,
        ),
        ("NUL in a value", get("X: a\0b\r\n"), 400),
        ("NUL in a name", get("X\0Y: a\r\n"), 400),
        ("NUL in the target", line("GET /\0 HTTP/1.1"), 400),
        ("DEL in a value", get("X: a\x7fb\r\n"), 400),
        ("space before the colon", post("Content-Length : 3\r\n"), 400),
        (
            "tab before the colon",
            post("Transfer-Encoding\t: chunked\r\n"),
            400,
        ),
        ("no colon", get("Content-Length 3\r\n"), 400),
        ("no name", get(": 3\r\n"), 400),
        ("name with a slash", get("a/b: 3\r\n"), 400),
        ("name beyond ASCII", get("Contént: 3\r\n"), 400),
        // The request line.
        ("PRI preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505),
        ("HTTP/2.0", line("GET / HTTP/2.0"), 505),
        ("HTTP/1.2", line("GET / HTTP/1.2"), 505),
        ("HTTP/0.9", "GET /\r\n\r\n".into(), 400),
        ("lower-case version", line("GET / http/1.1"), 505),
        ("no target", line("GET  HTTP/1.1"), 400),
        ("two spaces", line("GET  / HTTP/1.1"), 400),
        ("two spaces before the version", line("GET /  HTTP/1.1"), 505),
        ("tabs", line("GET\t/\tHTTP/1.1"), 400),
        ("space in the target", line("GET /a b HTTP/1.1"), 505),
        ("trailing space", line("GET / HTTP/1.1 "), 400),
        ("leading space", line(" GET / HTTP/1.1"), 400),
        ("method with a colon", line("GET: / HTTP/1.1"), 400),
        (
            "two empty lines first",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
            400,
        ),
        (
            "empty line with a bare feed",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
            400,
        ),
        ("a TLS hello", "\x16\x03\x01\x02\0\x01\0\r\n\r\n".into(), 400),
        // Targets.
        ("relative target", line("GET a/b HTTP/1.1"), 400),
        ("asterisk for GET", line("GET * HTTP/1.1"), 400),
        ("fragment", line("GET /a#b HTTP/1.1"), 400),
        ("other scheme", line("GET https://a/ HTTP/1.1"), 400),
        ("file scheme", line("GET file:///etc/passwd HTTP/1.1"), 400),
        ("no authority", line("GET http:///a HTTP/1.1"), 400),
        ("user information", line("GET http://u:p@a/ HTTP/1.1"), 400),
        ("authority form for GET", line("GET a:80 HTTP/1.1"), 400),
        ("CONNECT without a port", line("CONNECT a HTTP/1.1"), 400),
        ("CONNECT in origin form", line("CONNECT / HTTP/1.1"), 400),
        (
            "CONNECT in absolute form",
            line("CONNECT http://a:80/ HTTP/1.1"),
            400,
        ),
        (
            "CONNECT to too high a port",
            line("CONNECT a:65536 HTTP/1.1"),
            400,
        ),
        (
            "CONNECT with a body",
            "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 3\r\n\r\n".into(),
            400,
        ),
        (
            "CONNECT with chunks",
            "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            400,
        ),
        // Host.
        ("no Host", host(""), 400),
        ("two Hosts", host("Host: a\r\nHost: b\r\n"), 400),
        ("one Host twice", host("Host: a\r\nhost: a\r\n"), 400),
        (
            "two Hosts in HTTP/1.0",
            "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n".into(),
            400,
        ),
        ("Hosts in a list", host("Host: a b\r\n"), 400),
        ("Host with a path", host("Host: a/b\r\n"), 400),
        ("Host with a user", host("Host: u@a\r\n"), 400),
        ("Host with a bad port", host("Host: a:b\r\n"), 400),
        ("Host with two ports", host("Host: a:1:2\r\n"), 400),
        ("Host with a long port", host("Host: a:000080\r\n"), 400),
        ("Host with an open bracket", host("Host: [::1\r\n"), 400),
        ("Host with a query", host("Host: a?b\r\n"), 400),
        ("Host beyond ASCII", host("Host: é\r\n"), 400),
        // Connection that would take out what frames or routes.
        ("Connection: Host", get("Connection: host\r\n"), 400),
        (
            "Connection: Content-Length",
            post("Content-Length: 3\r\nConnection: close, Content-Length\r\n"),
            400,
        ),
        // Sizes.
        (
            "long request line",
            format!("GET /{} HTTP/1.1\r\n", "a".repeat(START_LINE_MAX)),
            414,
        ),
        (
            "long request line, unfinished",
            format!("GET /{}", "a".repeat(START_LINE_MAX)),
            414,
        ),
        (
            "large head",
            get(&format!("X: {}\r\n", "a".repeat(HEAD_MAX))),
            431,
        ),
        (
            "large head, unfinished",
            format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(HEAD_MAX)),
            431,
        ),
        ("many fields", get(&"X: a\r\n".repeat(FIELDS_MAX)), 431),
    ];
    for (name, input, status) in table {
        assert_eq!(
            parse(input.as_bytes()).map(|_| ()),
            Err(status),
            "{name}: {input:.200?}"
        );
    }
}

#[test]
fn what_may_pass_is_passed_on_with_its_hop_fields_changed() {
    let table = [
        // Untouched.
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "GET /a?b=%20&c=[d]|\u{e9} HTTP/1.1\r\nhOST:\t a:80 \r\nX:\r\n\r\n",
            "GET /a?b=%20&c=[d]|\u{e9} HTTP/1.1\r\nhOST:\t a:80 \r\nX:\r\n\r\n",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 3\r\n\r\nabc",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nTrailer: x\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nTrailer: x\r\n\r\n0\r\n\r\n",
        ),
        (
            "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
            "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
        ),
        // One empty line before it is skipped.
        (
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        // Fields of one hop, and those that Connection names.
        (
            "GET / HTTP/1.1\r\nConnection: keep-alive\r\nHost: a\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nX-Hop: 1\r\nHost: a\r\nConnection: x-hop ,, close\r\nX-Hop: 2\r\nY: 3\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nY: 3\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: x-request-id\r\nX-Request-Id: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id:\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTE: gzip;q=0.5, trailers\r\nConnection: TE\r\n\r\n",
            "GET / HTTP/1.1\r\nTE: trailers\r\nConnection: TE\r\nHost: a\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTE: gzip\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        // Upgrades: WebSocket stays, HTTP/2 goes.
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
            "GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nHost: a\r\nSec-WebSocket-Version: 13\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nHTTP2-Settings: AAMA\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: H2C, websocket\r\n\r\n",
            "GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nHost: a\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        ),
        // HTTP/1.0.
        (
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        ),
        (
            "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n",
        ),
        // The target's authority overrules Host; a server is asked in origin form.
        (
            "GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /b HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "GET http://a/b HTTP/1.1\r\nX: y\r\nHost: evil\r\n\r\n",
            "GET /b HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n",
        ),
        (
            "GET HTTP://a:80?q HTTP/1.1\r\nHost:\r\n\r\n",
            "GET /?q HTTP/1.1\r\nHost: a:80\r\n\r\n",
        ),
        (
            "GET http://a HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\nHost: a\r\n\r\n",
        ),
        (
            "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
            "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        ),
    ];
    for (input, expected) in table {
        assert_eq!(forwarded(input), expected, "{input:?}");
    }
}

#[test]
fn what_a_head_says() {
    let input = b"HEAD http://B:81/p?q HTTP/1.1\r\nHost: a\r\nX-Request-ID: 7 \r\nConnection: close\r\n\r\n";
    let head = parse(input).expect("valid").expect("complete");
    assert_eq!(head.method, Method::Head);
    assert_eq!(head.method_name.of(input), b"HEAD");
    assert_eq!(head.authority.of(input), b"B:81");
    assert_eq!(head.path.of(input), b"/p?q");
    assert_eq!(head.request_id.map(|id| id.of(input)), Some(&b"7"[..]));
    assert_eq!(head.version, Version::Http11);
    assert!(!head.persists);
    assert_eq!(head.body, Body::Done);
    assert_eq!(head.upgrade, Upgrade::No);

    let input = b"POST / HTTP/1.0\r\nConnection: Keep-Alive\r\nContent-Length: 12\r\n\r\n";
    let head = parse(input).expect("valid").expect("complete");
    assert!(head.persists);
    assert!(head.authority.is_empty());
    assert_eq!(head.body, Body::Length(12));

    for (input, upgrade) in [
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            Upgrade::Offered,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
            Upgrade::No,
        ),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", Upgrade::Connect),
    ] {
        let head = parse(input.as_bytes()).expect("valid").expect("complete");
        assert_eq!(head.upgrade, upgrade, "{input:?}");
    }
}

#[test]
fn a_head_that_comes_byte_by_byte_is_read_as_one_that_comes_whole() {
    let inputs: [&[u8]; 3] = [
        b"\r\nPOST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\nb: c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\rX\r\n\r\n",
    ];
    for input in inputs {
        let whole = parse(input).map(|head| format!("{head:?}"));
        let mut scan = Scan::default();
        let piecewise = (1..=input.len())
            .map(|length| RequestHead::parse(&input[..length], &mut scan))
            .find(|result| !matches!(result, Ok(None)))
            .expect("the whole is complete");
        assert_eq!(
            piecewise
                .map(|head| format!("{head:?}"))
                .map_err(super::super::Malformed::status),
            whole
        );
    }
}
