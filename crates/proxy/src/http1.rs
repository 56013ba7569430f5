//! HTTP/1.0 and 1.1 on the wire, without I/O. Comes in: bytes as they arrive. Goes out: where a head
//! ends, what it says of the connection and the body, the [`Edits`] that make it fit to be passed on,
//! and how many bytes of a [`Body`] may go. The engine (`http`) and the fuzz targets call it.
//!
//! A message is forwarded as it was received; only whole field lines are taken out or put in. What is
//! ambiguous is refused, never mended: two readers who mend differently are how requests are smuggled
//! (RFC 9112, sections 6.3 and 11.2).

mod body;
mod edit;
mod fields;
mod line;
mod request;
mod response;
mod scan;
#[cfg(test)]
mod tests;

pub use body::{Body, CHUNK_LINE_MAX, TRAILERS_MAX};
pub use edit::Edits;
pub use request::{Method, RequestHead, Upgrade};
pub use response::{Asked, ResponseHead};
pub use scan::{FIELDS_MAX, HEAD_MAX, START_LINE_MAX, Scan};

/// Protocol version of a message. Others are refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// Where something stands within the bytes that were parsed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn new(start: usize, end: usize) -> Self {
        // A head is at most HEAD_MAX bytes long, so that neither can be cut short.
        Self {
            start: start as u32,
            end: end as u32,
        }
    }

    /// The span of `part`, which must be a piece of `whole`.
    fn within(whole: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr().addr() - whole.as_ptr().addr();
        Self::new(start, start + part.len())
    }

    /// First byte.
    #[must_use]
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// One past the last byte.
    #[must_use]
    pub fn end(self) -> usize {
        self.end as usize
    }

    /// Whether it covers nothing.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// What it covers of `bytes`, which must be those that were parsed.
    #[must_use]
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start()..self.end()).unwrap_or_default()
    }
}

/// Why a message is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// Not HTTP/1 at all, or a byte where it must not be (NUL, bare CR, space before a colon, folding).
    #[error("not a valid HTTP/1 head")]
    Syntax,
    /// A line that ends without a carriage return.
    #[error("a line ends with a bare line feed")]
    BareLineFeed,
    /// The request line is over [`START_LINE_MAX`].
    #[error("the request line is too long")]
    StartLineTooLong,
    /// The head is over [`HEAD_MAX`].
    #[error("the head is too large")]
    HeadTooLarge,
    /// The head has over [`FIELDS_MAX`] fields.
    #[error("the head has too many fields")]
    TooManyFields,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("the HTTP version is not 1.0 or 1.1")]
    Version,
    /// The request target has none of the four forms, or not the one its method takes.
    #[error("the request target is invalid")]
    Target,
    /// The Host field is missing, repeated or invalid.
    #[error("the Host field is missing, repeated or invalid")]
    Host,
    /// Content-Length is repeated or not a plain decimal number.
    #[error("Content-Length is repeated or invalid")]
    ContentLength,
    /// Transfer-Encoding does not end in one `chunked`, is repeated, or stands in an HTTP/1.0 message.
    #[error("Transfer-Encoding is ambiguous")]
    TransferEncoding,
    /// A transfer coding other than `chunked`.
    #[error("a transfer coding other than chunked")]
    TransferCoding,
    /// Both Content-Length and Transfer-Encoding.
    #[error("both Content-Length and Transfer-Encoding")]
    LengthConflict,
    /// A CONNECT request with a body.
    #[error("a CONNECT request with a body")]
    ConnectBody,
    /// The Connection field names one that must reach the other end.
    #[error("the Connection field names an end-to-end field")]
    ConnectionOption,
    /// A chunk size line that is not one.
    #[error("a chunk size or extension is invalid")]
    ChunkSize,
    /// Chunk data that is not followed by CRLF.
    #[error("a chunk does not end where its size says")]
    ChunkEnd,
    /// A chunk size line over [`CHUNK_LINE_MAX`].
    #[error("a chunk size line is too long")]
    ChunkLineTooLong,
    /// A trailer field that is not one, or one that must not be a trailer.
    #[error("a trailer field is invalid or not allowed")]
    Trailer,
    /// A trailer section over [`TRAILERS_MAX`].
    #[error("the trailer section is too large")]
    TrailersTooLarge,
    /// A status code under 100.
    #[error("the status code is invalid")]
    Status,
    /// A response 101 to a request that asked for no upgrade.
    #[error("protocols were switched without being asked to")]
    UnaskedSwitch,
}

impl Malformed {
    /// The status that answers a request refused so.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::StartLineTooLong => 414,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::ChunkLineTooLong | Self::TrailersTooLarge => 413,
            Self::Version => 505,
            Self::TransferCoding => 501,
            _ => 400,
        }
    }
}
