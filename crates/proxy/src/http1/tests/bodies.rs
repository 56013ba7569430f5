//! Bodies: what passes, what is refused, and that it does not matter how the bytes are cut up.

use super::super::{Body, CHUNK_LINE_MAX, Malformed, TRAILERS_MAX};

/// Feeds `input` whole; answers what passed and the state after it.
fn feed(input: &[u8]) -> Result<(usize, Body), Malformed> {
    let mut body = Body::chunked();
    let passed = body.advance(input)?;
    Ok((passed, body))
}

#[test]
fn whole_chunked_bodies_pass_and_stop_at_their_end() {
    let table: [&[u8]; 10] = [
        b"0\r\n\r\n",
        b"3\r\nabc\r\n0\r\n\r\n",
        b"003\r\nabc\r\n000\r\n\r\n",
        b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
        b"3;a\r\nabc\r\n0;b=c\r\n\r\n",
        b"3 ; a = \"b;c\" ;d\r\nabc\r\n0\r\n\r\n",
        b"3\t;a\r\nabc\r\n0\r\n\r\n",
        b"2\r\n\r\n\r\n0\r\n\r\n",
        b"0\r\nX-Sum: 1\r\ny:\r\n\r\n",
        b"0\r\nServer-Timing: a;b=\"\xc3\xa9\"\r\n\r\n",
    ];
    for input in table {
        let mut longer = input.to_vec();
        longer.extend_from_slice(b"GET / HTTP/1.1\r\n");
        assert_eq!(
            feed(&longer),
            Ok((input.len(), Body::Done)),
            "{:?}",
            input.escape_ascii()
        );
    }
}

#[test]
fn hostile_chunks_are_refused() {
    use Malformed::{ChunkEnd, ChunkLineTooLong, ChunkSize, Trailer, TrailersTooLarge};
    let long_line = format!("3;{}\r\nabc\r\n", "a".repeat(CHUNK_LINE_MAX));
    let long_trailers = format!("0\r\n{}\r\n", "X: y\r\n".repeat(TRAILERS_MAX / 6 + 1));
    let endless_trailer = format!("0\r\nX: {}", "y".repeat(TRAILERS_MAX));
    let table: Vec<(&str, &[u8], Malformed)> = vec![
        ("no size", b"\r\nabc\r\n", ChunkSize),
        ("sign", b"+3\r\nabc\r\n", ChunkSize),
        ("minus", b"-3\r\nabc\r\n", ChunkSize),
        ("prefix", b"0x3\r\nabc\r\n", ChunkSize),
        ("letter", b"g\r\nabc\r\n", ChunkSize),
        ("underscore", b"1_0\r\nabc\r\n", ChunkSize),
        ("leading space", b" 3\r\nabc\r\n", ChunkSize),
        ("trailing space", b"3 \r\nabc\r\n", ChunkSize),
        ("comma", b"3,3\r\nabc\r\n", ChunkSize),
        ("over 60 bits", b"1000000000000000\r\nabc\r\n", ChunkSize),
        ("wraps to 3", b"10000000000000003\r\nabc\r\n", ChunkSize),
        ("bare line feed", b"3\nabc\r\n", ChunkSize),
        ("carriage return alone", b"3\rabc\r\n", ChunkSize),
        ("carriage return twice", b"3\r\r\nabc\r\n", ChunkSize),
        ("NUL in the extension", b"3;a\0\r\nabc\r\n", ChunkSize),
        ("line feed in the extension", b"3;a\nabc\r\n", ChunkSize),
        (
            "carriage return in the extension",
            b"3;a\rb\r\nabc\r\n",
            ChunkSize,
        ),
        ("empty extension", b"3;\r\nabc\r\n", ChunkSize),
        ("extension without a semicolon", b"3 a\r\nabc\r\n", ChunkSize),
        ("long extension", long_line.as_bytes(), ChunkLineTooLong),
        ("data too long", b"3\r\nabcd\r\n", ChunkEnd),
        ("data ends in a bare line feed", b"3\r\nabc\n0\r\n\r\n", ChunkEnd),
        ("data ends in a carriage return", b"3\r\nabc\r0\r\n\r\n", ChunkEnd),
        ("data too short", b"4\r\nabc\r\n0\r\n\r\n", ChunkEnd),
        (
            "Content-Length trailer",
            b"0\r\nContent-Length: 3\r\n\r\n",
            Trailer,
        ),
        (
            "Transfer-Encoding trailer",
            b"0\r\ntransfer-encoding: chunked\r\n\r\n",
            Trailer,
        ),
        ("Host trailer", b"0\r\nHost: b\r\n\r\n", Trailer),
        (
            "Connection trailer",
            b"0\r\nX: y\r\nConnection: close\r\n\r\n",
            Trailer,
        ),
        ("Upgrade trailer", b"0\r\nUpgrade: h2c\r\n\r\n", Trailer),
        ("Trailer trailer", b"0\r\nTrailer: x\r\n\r\n", Trailer),
        ("Authorization trailer", b"0\r\nAuthorization: x\r\n\r\n", Trailer),
        ("folded trailer", b"0\r\nX: y\r\n z\r\n\r\n", Trailer),
        ("trailer without a colon", b"0\r\nGET / HTTP/1.1\r\n\r\n", Trailer),
        (
            "trailer with a space before its colon",
            b"0\r\nX : y\r\n\r\n",
            Trailer,
        ),
        ("trailer with a NUL", b"0\r\nX: \0\r\n\r\n", Trailer),
        ("trailer with a bare line feed", b"0\r\nX: y\n\r\n", Trailer),
        ("end with a bare line feed", b"0\r\n\n", Trailer),
        ("long trailers", long_trailers.as_bytes(), TrailersTooLarge),
        ("endless trailer", endless_trailer.as_bytes(), TrailersTooLarge),
    ];
    for (name, input, expected) in table {
        assert_eq!(feed(input), Err(expected), "{name}");
    }
}

#[test]
fn nothing_unchecked_passes_and_cutting_up_changes_nothing() {
    let input = b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nX-A: b\r\nX-C: d\r\n\r\n";
    for cut in 0..=input.len() {
        let mut body = Body::chunked();
        let first = body.advance(&input[..cut]).expect("valid so far");
        assert!(first <= cut);
        assert_eq!(body.is_done(), cut == input.len());
        let second = body.advance(&input[first..]).expect("valid");
        assert_eq!(first + second, input.len(), "cut at {cut}");
        assert!(body.is_done());
    }
    // An incomplete size line, chunk end or trailer is held back.
    for (input, passed) in [
        (&b"5;x"[..], 0),
        (b"5\r", 0),
        (b"1\r\na\r", 4),
        (b"0\r\nX: y", 3),
        (b"0\r\n\r", 3),
    ] {
        assert_eq!(feed(input).map(|(passed, _)| passed), Ok(passed), "{input:?}");
    }
}

#[test]
fn lengths_count_down() {
    let mut body = Body::exactly(5);
    assert_eq!(body.advance(b"abc"), Ok(3));
    assert_eq!(body.unread(), Some(2));
    assert_eq!(body.advance(b"defg"), Ok(2));
    assert!(body.is_done());
    assert_eq!(body.advance(b"g"), Ok(0));
    assert!(Body::exactly(0).is_done());
    let mut body = Body::UntilClose;
    assert_eq!(body.advance(b"abc"), Ok(3));
    assert!(!body.is_done());
}
