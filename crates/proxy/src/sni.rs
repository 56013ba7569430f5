//! The server name of a TLS hello, read from a client's first bytes as they pass. Nothing waits for it
//! and nothing is decided by it.

/// Longest hello that is looked at; longer ones pass without their name being noted.
const LONGEST: usize = 16 * 1024;

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// Watches the client's first bytes until they are a whole hello, or none.
#[derive(Debug, Default)]
pub(crate) struct Tap {
    seen: Vec<u8>,
    done: bool,
    name: Option<Box<str>>,
}

impl Tap {
    /// Looks at the next bytes.
    pub(crate) fn see(&mut self, bytes: &[u8]) {
        if self.done {
            return;
        }
        self.seen
            .extend_from_slice(&bytes[..bytes.len().min(LONGEST - self.seen.len())]);
        match server_name(&self.seen) {
            Hello::Partial if self.seen.len() < LONGEST => {}
            Hello::Partial | Hello::None => self.finish(None),
            Hello::Name(name) => self.finish(Some(name)),
        }
    }

    fn finish(&mut self, name: Option<Box<str>>) {
        self.done = true;
        self.name = name;
        self.seen = Vec::new();
    }

    /// Whether there is nothing more to look for.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// The name, once found.
    pub(crate) fn into_name(self) -> Option<Box<str>> {
        self.name
    }
}

/// What a client's first bytes say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hello {
    /// The start of a hello; more bytes are needed.
    Partial,
    /// No hello, or one without a usable name.
    None,
    /// Its server name.
    Name(Box<str>),
}

/// Reads the server name out of a TLS client hello (RFC 8446 section 4.1.2, RFC 6066 section 3),
/// which may be spread over several records.
pub(crate) fn server_name(bytes: &[u8]) -> Hello {
    let (message, whole) = match handshake(bytes) {
        Some(found) => found,
        None => return Hello::None,
    };
    match parse_hello(&message) {
        Ok(Some(name)) => Hello::Name(name),
        Ok(None) => Hello::None,
        Err(Short) if whole => Hello::None,
        Err(Short) => Hello::Partial,
    }
}

/// The handshake bytes of the records so far, and whether the whole message is there.
fn handshake(mut bytes: &[u8]) -> Option<(Vec<u8>, bool)> {
    let mut message = Vec::new();
    loop {
        match *bytes {
            [] => break,
            [kind, ..] if kind != HANDSHAKE_RECORD => return None,
            [_, major, ..] if major != 3 => return None,
            [_, _, _, high, low, ref rest @ ..] => {
                let length = usize::from(u16::from_be_bytes([high, low]));
                if length == 0 {
                    return None;
                }
                message.extend_from_slice(&rest[..length.min(rest.len())]);
                if rest.len() < length {
                    break;
                }
                bytes = &rest[length..];
            }
            _ => break,
        }
        let length = match *message.as_slice() {
            [kind, ..] if kind != CLIENT_HELLO => return None,
            [_, a, b, c, ..] => 4 + u32::from_be_bytes([0, a, b, c]) as usize,
            _ => continue,
        };
        if message.len() >= length {
            message.truncate(length);
            return Some((message, true));
        }
    }
    Some((message, false))
}

/// There are fewer bytes than a length field says.
struct Short;

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Short> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(Short)?;
        self.0 = rest;
        Ok(head)
    }

    fn number(&mut self, bytes: usize) -> Result<usize, Short> {
        Ok(self
            .take(bytes)?
            .iter()
            .fold(0, |sum, &byte| sum << 8 | usize::from(byte)))
    }

    /// A vector whose length stands before it in `bytes` bytes.
    fn vector(&mut self, bytes: usize) -> Result<&'a [u8], Short> {
        let length = self.number(bytes)?;
        self.take(length)
    }
}

fn parse_hello(message: &[u8]) -> Result<Option<Box<str>>, Short> {
    let mut hello = Reader(message);
    let _type_and_length = hello.take(4)?;
    let _version_and_random = hello.take(2 + 32)?;
    let _session = hello.vector(1)?;
    let _ciphers = hello.vector(2)?;
    let _compressions = hello.vector(1)?;
    let mut extensions = Reader({
        let length = hello.number(2)?;
        // The name may stand in what is there of them.
        &hello.0[..length.min(hello.0.len())]
    });
    loop {
        let kind = extensions.number(2)?;
        let body = extensions.vector(2)?;
        if kind == usize::from(SERVER_NAME) {
            return Ok(first_host_name(body));
        }
    }
}

fn first_host_name(body: &[u8]) -> Option<Box<str>> {
    let mut names = Reader(Reader(body).vector(2).ok()?);
    while let Ok(kind) = names.number(1) {
        let name = names.vector(2).ok()?;
        if kind == usize::from(HOST_NAME) {
            let is_plain = |byte: &u8| byte.is_ascii_graphic();
            let text = std::str::from_utf8(name)
                .ok()
                .filter(|_| !name.is_empty() && name.iter().all(is_plain))?;
            return Some(text.into());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        let mut message = vec![CLIENT_HELLO, 0];
        message.extend((body.len() as u16).to_be_bytes());
        message.extend(body);
        message
    }

    fn record(fragment: &[u8]) -> Vec<u8> {
        let mut record = vec![HANDSHAKE_RECORD, 3, 1];
        record.extend((fragment.len() as u16).to_be_bytes());
        record.extend(fragment);
        record
    }

    fn name_extension(name: &[u8]) -> Vec<u8> {
        let length = name.len() as u16;
        let mut extension = vec![0, 10, 0, 1, 9, 0, 0];
        extension.extend((length + 5).to_be_bytes());
        extension.extend((length + 3).to_be_bytes());
        extension.push(HOST_NAME);
        extension.extend(length.to_be_bytes());
        extension.extend(name);
        extension
    }

    #[test]
    fn finds_the_name_in_one_record_in_many_and_byte_by_byte() {
        let message = hello(&name_extension(b"nginx.example"));
        let one = record(&message);
        assert_eq!(server_name(&one), Hello::Name("nginx.example".into()));
        let many: Vec<u8> = message.chunks(3).flat_map(record).collect();
        assert_eq!(server_name(&many), Hello::Name("nginx.example".into()));
        let mut tap = Tap::default();
        for byte in &one {
            tap.see(&[*byte]);
        }
        assert!(tap.is_done());
        assert_eq!(tap.into_name().as_deref(), Some("nginx.example"));
    }

    #[test]
    fn whatever_is_cut_is_partial_and_whatever_is_else_is_none() {
        let whole = record(&hello(&name_extension(b"a")));
        for length in 0..whole.len() {
            assert_eq!(
                server_name(&whole[..length]),
                Hello::Partial,
                "first {length} bytes"
            );
        }
        let hostile: [&[u8]; 9] = [
            b"GET / HTTP/1.1\r\n\r\n",
            &record(&hello(&[0, 10, 0, 0])),
            &record(&hello(&[0, 0, 0, 9, 0, 7, 0, 0, 99, b'a', b'b', b'c', b'd'])),
            &record(&hello(&name_extension(b""))),
            &record(&hello(&name_extension(b"a b"))),
            &record(&hello(&name_extension(&[0xff, 0xfe]))),
            &[22, 3, 1, 0, 0],
            &[22, 9, 9, 0, 1],
            &record(&[2, 0, 0, 1, 0]),
        ];
        for bytes in hostile {
            assert_eq!(server_name(bytes), Hello::None, "{bytes:?}");
        }
    }
}
