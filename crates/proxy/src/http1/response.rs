//! Response heads. Comes in: bytes. Goes out: [`ResponseHead`], or why the response is refused.

use std::ops::Range;

use smallvec::SmallVec;

use super::fields::{Length, Name, Options, members};
use super::line::{Fields, StatusLine};
use super::{Body, Edits, Malformed, Method, Scan, Span, Upgrade, Version};

/// What was asked, as far as it decides how the answer is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Method of the request.
    pub method: Method,
    /// Version of the request as it was sent.
    pub version: Version,
    /// Whether it may become a tunnel.
    pub upgrade: Upgrade,
}

/// The head of a response that may be passed on. Spans are within what was parsed.
#[derive(Debug)]
pub struct ResponseHead {
    /// Where it stands.
    pub range: Range<usize>,
    /// The status line with its CRLF.
    pub start_line: Span,
    /// Protocol version the endpoint speaks.
    pub version: Version,
    /// Status code.
    pub status: u16,
    /// Framing of the body that follows.
    pub body: Body,
    /// Whether the endpoint's connection may carry another request, if the body has an end of its own.
    pub persists: bool,
    /// Whether the connection is a tunnel from here on.
    pub tunnel: bool,
    /// What has to change before it is passed on. What the client is told of its own connection is for
    /// the engine to add.
    pub edits: Edits,
}

impl ResponseHead {
    /// Parses the head that `input` begins with; `None` while it is incomplete. `scan` goes with the
    /// message, and `input` begins at the same byte each time.
    ///
    /// # Errors
    /// Why the response must be refused; the answer to the client is 502.
    pub fn parse(input: &[u8], scan: &mut Scan, asked: Asked) -> Result<Option<Self>, Malformed> {
        // The leniency towards an empty line is for requests only.
        if input.starts_with(b"\r") {
            return Err(Malformed::Syntax);
        }
        let Some(range) = scan.end(input)? else {
            return Ok(None);
        };
        let line = StatusLine::read(&input[range.clone()])?;
        if line.status < 100 {
            return Err(Malformed::Status);
        }
        let fields = Fields::new(input, range.start + line.length, range.end);
        Found::in_fields(fields, line.version, line.status)?
            .into_head(fields, range, &line, asked)
            .map(Some)
    }

    /// Whether another response to the same request follows (1xx but for 101).
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.status < 200 && !self.tunnel
    }
}

/// What the fields say.
#[derive(Default)]
struct Found {
    length: Length,
    options: Options,
    edits: Edits,
    offers_http2: bool,
    /// The lines that frame the body.
    framing: SmallVec<[Span; 1]>,
}

impl Found {
    fn in_fields(fields: Fields<'_>, version: Version, status: u16) -> Result<Self, Malformed> {
        let mut found = Self::default();
        for field in fields {
            let field = field?;
            match Name::of(field.name) {
                Name::ContentLength => {
                    found.length.content_length(field.value)?;
                    found.framing.push(field.line);
                }
                Name::TransferEncoding => {
                    found.length.transfer_encoding(field.value, version)?;
                    found.framing.push(field.line);
                }
                Name::Connection => {
                    found.options.read(fields.input, field.value)?;
                    found.edits.remove(field.line);
                }
                Name::KeepAlive | Name::ProxyConnection => found.edits.remove(field.line),
                // It belongs to 101 and 426; elsewhere it advertises what is stripped from requests.
                Name::Upgrade if status == 101 || status == 426 => {
                    found.offers_http2 |=
                        members(field.value).any(|protocol| protocol.eq_ignore_ascii_case(b"h2c"));
                }
                Name::Upgrade => found.edits.remove(field.line),
                _ => {}
            }
        }
        Ok(found)
    }

    fn into_head(
        mut self,
        fields: Fields<'_>,
        range: Range<usize>,
        line: &StatusLine,
        asked: Asked,
    ) -> Result<ResponseHead, Malformed> {
        let StatusLine {
            version,
            status,
            length,
        } = *line;
        let switched = status == 101;
        if switched && (asked.upgrade != Upgrade::Offered || self.offers_http2) {
            return Err(Malformed::UnaskedSwitch);
        }
        let connected = asked.upgrade == Upgrade::Connect && (200..300).contains(&status);
        let has_no_body = asked.method == Method::Head || status < 200 || status == 204 || status == 304;
        let body = if has_no_body || connected {
            Body::Done
        } else {
            self.length.of_response()
        };
        // They must not be there, and a reader who heeds them waits for a body that never comes (RFC 9112
        // section 6.1, RFC 9110 sections 8.6 and 9.3.6).
        if status < 200 || status == 204 || connected {
            self.framing.iter().for_each(|line| self.edits.remove(*line));
        }
        // A client of HTTP/1.0 cannot read chunks, and was not promised any.
        if asked.version == Version::Http10 && self.length == Length::Chunked {
            return Err(Malformed::TransferEncoding);
        }
        self.options.remove_named(fields, &mut self.edits);
        if switched || status == 426 {
            self.edits.insert("Connection", b"Upgrade");
        }
        // What answers HTTP/1.0 stays open only where it says so, whatever version it says.
        let persists = match asked.version {
            Version::Http11 => self.options.persists(version),
            Version::Http10 => self.options.persists(Version::Http10),
        };
        Ok(ResponseHead {
            start_line: Span::new(range.start, range.start + length),
            version,
            status,
            body,
            persists: persists && body != Body::UntilClose && !switched && !connected,
            tunnel: switched || connected,
            edits: self.edits,
            range,
        })
    }
}
