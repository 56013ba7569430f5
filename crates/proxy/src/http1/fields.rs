//! The fields that say how a message is framed and what concerns one hop only; the same in both
//! directions. Called by `request` and `response`.

use smallvec::SmallVec;

use super::line::Fields;
use super::{Body, Edits, Malformed, Span, Version};

/// The fields the codec acts upon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Name {
    Connection,
    ContentLength,
    Expect,
    Host,
    Http2Settings,
    KeepAlive,
    ProxyConnection,
    Te,
    TransferEncoding,
    Upgrade,
    RequestId,
    Other,
}

impl Name {
    pub(super) fn of(name: &[u8]) -> Self {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            2 if is("te") => Self::Te,
            4 if is("host") => Self::Host,
            6 if is("expect") => Self::Expect,
            7 if is("upgrade") => Self::Upgrade,
            10 if is("connection") => Self::Connection,
            10 if is("keep-alive") => Self::KeepAlive,
            12 if is("x-request-id") => Self::RequestId,
            14 if is("content-length") => Self::ContentLength,
            14 if is("http2-settings") => Self::Http2Settings,
            16 if is("proxy-connection") => Self::ProxyConnection,
            17 if is("transfer-encoding") => Self::TransferEncoding,
            _ => Self::Other,
        }
    }
}

/// The members of a comma-separated list, without the empty ones.
pub(super) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// What a head says of its body's length.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Length {
    #[default]
    Unsaid,
    Exactly(u64),
    Chunked,
}

impl Length {
    /// Takes in a Content-Length field. A second one is refused even where it says the same: what is
    /// behind us may take either.
    pub(super) fn content_length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        match self {
            Self::Unsaid => {}
            Self::Exactly(_) => return Err(Malformed::ContentLength),
            Self::Chunked => return Err(Malformed::LengthConflict),
        }
        // 18 digits cannot overflow; nothing in the world is longer.
        if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
            return Err(Malformed::ContentLength);
        }
        let length = value
            .iter()
            .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        *self = Self::Exactly(length);
        Ok(())
    }

    /// Takes in a Transfer-Encoding field: `chunked` alone, once, in HTTP/1.1, without Content-Length.
    pub(super) fn transfer_encoding(&mut self, value: &[u8], version: Version) -> Result<(), Malformed> {
        if version == Version::Http10 || *self == Self::Chunked {
            return Err(Malformed::TransferEncoding);
        }
        if *self != Self::Unsaid {
            return Err(Malformed::LengthConflict);
        }
        if value.eq_ignore_ascii_case(b"chunked") {
            *self = Self::Chunked;
            return Ok(());
        }
        let is_chunked = |member: &&[u8]| member.eq_ignore_ascii_case(b"chunked");
        let ends_in_chunked = members(value).last().is_some_and(|last| is_chunked(&last));
        if ends_in_chunked && members(value).filter(is_chunked).count() == 1 && members(value).count() > 1 {
            Err(Malformed::TransferCoding)
        } else {
            Err(Malformed::TransferEncoding)
        }
    }

    /// The body of a request (RFC 9112 section 6.3: unsaid is none).
    pub(super) fn of_request(self) -> Body {
        match self {
            Self::Unsaid => Body::Done,
            Self::Exactly(length) => Body::exactly(length),
            Self::Chunked => Body::chunked(),
        }
    }

    /// The body of a response (unsaid is until the connection closes).
    pub(super) fn of_response(self) -> Body {
        match self {
            Self::Unsaid => Body::UntilClose,
            said => said.of_request(),
        }
    }
}

/// What the Connection field says.
#[derive(Default, Debug)]
pub(super) struct Options {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    pub(super) te: bool,
    /// Fields named that are to be taken out.
    named: SmallVec<[Span; 2]>,
}

impl Options {
    /// Takes in one Connection field.
    ///
    /// # Errors
    /// Naming Host or Content-Length: whoever took them out would read another message than we do.
    pub(super) fn read(&mut self, input: &[u8], value: &[u8]) -> Result<(), Malformed> {
        for option in members(value) {
            let is = |known: &str| option.eq_ignore_ascii_case(known.as_bytes());
            match option.len() {
                5 if is("close") => self.close = true,
                10 if is("keep-alive") => self.keep_alive = true,
                7 if is("upgrade") => self.upgrade = true,
                2 if is("te") => self.te = true,
                4 if is("host") => return Err(Malformed::ConnectionOption),
                14 if is("content-length") => return Err(Malformed::ConnectionOption),
                // Handled as a field of this hop anyway.
                17 if is("transfer-encoding") => {}
                _ => self.named.push(Span::within(input, option)),
            }
        }
        Ok(())
    }

    /// Takes the named fields out. `fields` were read before.
    pub(super) fn remove_named(&self, fields: Fields<'_>, edits: &mut Edits) {
        if self.named.is_empty() {
            return;
        }
        for field in fields.flatten() {
            let is_named = |name: &Span| name.of(fields.input).eq_ignore_ascii_case(field.name);
            if self.named.iter().any(is_named) {
                edits.remove(field.line);
            }
        }
    }

    /// Whether the connection outlives the message.
    pub(super) fn persists(&self, version: Version) -> bool {
        match version {
            Version::Http11 => !self.close,
            Version::Http10 => self.keep_alive && !self.close,
        }
    }
}
