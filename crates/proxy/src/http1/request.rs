//! Request heads. Comes in: bytes. Goes out: [`RequestHead`], or why the request is refused.

use std::ops::Range;

use super::fields::{Length, Name, Options, members};
use super::line::{Field, Fields, RequestLine};
use super::{Body, Edits, Malformed, Scan, Span, Version};

/// Request method, as far as it matters to a proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each is the method of that name")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    /// Any other; nothing is assumed of it.
    Other,
}

impl Method {
    fn of(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            _ => Self::Other,
        }
    }

    /// Whether doing it twice is as doing it once (RFC 9110 section 9.2.2).
    #[must_use]
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Self::Post | Self::Connect | Self::Other)
    }
}

/// Whether the client offers to leave HTTP on this connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Upgrade {
    /// No.
    No,
    /// By `Upgrade` (WebSocket): a response 101 makes it a tunnel.
    Offered,
    /// By CONNECT: a response 2xx makes it a tunnel.
    Connect,
}

/// The head of a request that may be passed on. Spans are within what was parsed.
#[derive(Debug)]
pub struct RequestHead {
    /// Where it stands; an empty line may precede it.
    pub range: Range<usize>,
    /// The request line with its CRLF.
    pub start_line: Span,
    /// Protocol version the client speaks.
    pub version: Version,
    /// Method.
    pub method: Method,
    /// The method's text.
    pub method_name: Span,
    /// Host asked for, with port where given: from the target where it has one, else from Host.
    pub authority: Span,
    /// Target without scheme and authority. Empty for CONNECT.
    pub path: Span,
    /// Framing of the body that follows.
    pub body: Body,
    /// Whether the client's connection may carry another request.
    pub persists: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Whether it may become a tunnel.
    pub upgrade: Upgrade,
    /// Value of `x-request-id`, where it has one.
    pub request_id: Option<Span>,
    /// What has to change before it is passed on.
    pub edits: Edits,
}

impl RequestHead {
    /// Parses the head that `input` begins with; `None` while it is incomplete. `scan` goes with the
    /// message, and `input` begins at the same byte each time.
    ///
    /// # Errors
    /// Why the request must be refused; [`Malformed::status`] is the answer to it.
    pub fn parse(input: &[u8], scan: &mut Scan) -> Result<Option<Self>, Malformed> {
        let Some(range) = scan.end(input)? else {
            return Ok(None);
        };
        let line = RequestLine::read(&input[range.clone()])?;
        let fields = Fields::new(input, range.start + line.length, range.end);
        let found = Found::in_fields(fields, line.version)?;
        found.into_head(fields, range, &line).map(Some)
    }
}

/// What the fields say.
#[derive(Default)]
struct Found {
    host: Option<Span>,
    host_line: Option<Span>,
    length: Length,
    options: Options,
    te_trailers: bool,
    upgrade_to: Vec<u8>,
    expects_continue: bool,
    request_id: Option<Span>,
    edits: Edits,
}

impl Found {
    fn in_fields(fields: Fields<'_>, version: Version) -> Result<Self, Malformed> {
        let mut found = Self::default();
        let input = fields.input;
        for field in fields {
            let Field { name, value, line } = field?;
            match Name::of(name) {
                Name::Host => {
                    if found.host.is_some() || !is_host(value) {
                        return Err(Malformed::Host);
                    }
                    found.host = Some(Span::within(input, value));
                    found.host_line = Some(line);
                }
                Name::ContentLength => found.length.content_length(value)?,
                Name::TransferEncoding => found.length.transfer_encoding(value, version)?,
                Name::Connection => {
                    found.options.read(input, value)?;
                    found.edits.remove(line);
                }
                Name::KeepAlive | Name::ProxyConnection | Name::Http2Settings => found.edits.remove(line),
                Name::Te => {
                    found.te_trailers |=
                        members(value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
                    found.edits.remove(line);
                }
                Name::Upgrade => {
                    add_protocols(&mut found.upgrade_to, value);
                    found.edits.remove(line);
                }
                Name::Expect => {
                    found.expects_continue = value.eq_ignore_ascii_case(b"100-continue");
                    // HTTP/1.0 has no interim responses (RFC 9110 section 10.1.1).
                    if version == Version::Http10 {
                        found.expects_continue = false;
                        found.edits.remove(line);
                    }
                }
                Name::RequestId if !value.is_empty() => {
                    found.request_id.get_or_insert(Span::within(input, value));
                }
                Name::RequestId => found.edits.remove(line),
                Name::Other => {}
            }
        }
        Ok(found)
    }

    fn into_head(
        mut self,
        fields: Fields<'_>,
        range: Range<usize>,
        line: &RequestLine<'_>,
    ) -> Result<RequestHead, Malformed> {
        let input = fields.input;
        let version = line.version;
        let method = Method::of(line.method);
        if self.host.is_none() && version == Version::Http11 {
            return Err(Malformed::Host);
        }
        let target = Target::read(input, method, line.target)?;
        if method == Method::Connect && !matches!(self.length, Length::Unsaid | Length::Exactly(0)) {
            return Err(Malformed::ConnectBody);
        }
        self.options.remove_named(fields, &mut self.edits);
        let start_line = Span::new(range.start, range.start + line.length);
        let upgrade = self.upgrade(method, version);
        self.hop_fields(upgrade, version);
        if let Target::Absolute { authority, path } = target {
            self.use_origin_form(input, start_line, method, authority, path);
        }
        let request_id = self.request_id.filter(|id| !self.edits.takes_out(*id));
        Ok(RequestHead {
            start_line,
            version,
            method,
            method_name: Span::within(input, line.method),
            authority: target.authority().or(self.host).unwrap_or_default(),
            path: target.path(),
            body: self.length.of_request(),
            persists: self.options.persists(version),
            expects_continue: self.expects_continue,
            upgrade,
            request_id,
            edits: self.edits,
            range,
        })
    }

    fn upgrade(&self, method: Method, version: Version) -> Upgrade {
        if method == Method::Connect {
            Upgrade::Connect
        } else if self.options.upgrade && version == Version::Http11 && !self.upgrade_to.is_empty() {
            Upgrade::Offered
        } else {
            Upgrade::No
        }
    }

    /// Puts in the fields that speak of the next hop.
    fn hop_fields(&mut self, upgrade: Upgrade, version: Version) {
        let te = self.te_trailers && version == Version::Http11;
        if te {
            self.edits.insert("TE", b"trailers");
        }
        if upgrade == Upgrade::Offered {
            self.edits.insert("Upgrade", &self.upgrade_to);
        }
        let connection: &[u8] = match (upgrade == Upgrade::Offered, te, version) {
            (true, true, _) => b"Upgrade, TE",
            (true, false, _) => b"Upgrade",
            (false, true, _) => b"TE",
            (false, false, Version::Http10) => b"keep-alive",
            (false, false, Version::Http11) => return,
        };
        self.edits.insert("Connection", connection);
    }

    /// An absolute target overrules Host, and a server is asked in origin form (RFC 9112 section 3.2.2).
    fn use_origin_form(&mut self, input: &[u8], line: Span, method: Method, authority: Span, path: Span) {
        let text = line.of(input);
        let method_end = memchr::memchr(b' ', text).unwrap_or_default() + 1;
        let mut new = text[..method_end].to_vec();
        match path.of(input) {
            [] if method == Method::Options => new.push(b'*'),
            rest => {
                if rest.first() != Some(&b'/') {
                    new.push(b'/');
                }
                new.extend_from_slice(rest);
            }
        }
        new.extend_from_slice(&text[path.end() - line.start()..]);
        self.edits.replace_start_line(new);
        let host = authority.of(input);
        if self.host.map(|span| span.of(input)) != Some(host) {
            if let Some(line) = self.host_line {
                self.edits.remove(line);
            }
            self.edits.insert("Host", host);
        }
    }
}

/// The protocols of an Upgrade field but for HTTP/2: what is behind us would answer in a protocol that
/// the next request on the connection is not read in.
fn add_protocols(to: &mut Vec<u8>, value: &[u8]) {
    for protocol in members(value) {
        let is_http2 = protocol.eq_ignore_ascii_case(b"h2c") || protocol.eq_ignore_ascii_case(b"h2");
        if !is_http2 {
            if !to.is_empty() {
                to.extend_from_slice(b", ");
            }
            to.extend_from_slice(protocol);
        }
    }
}

/// Request target by form (RFC 9112 section 3.2).
#[derive(Clone, Copy)]
enum Target {
    Origin(Span),
    Absolute { authority: Span, path: Span },
    Authority(Span),
    Asterisk(Span),
}

impl Target {
    fn read(input: &[u8], method: Method, bytes: &[u8]) -> Result<Self, Malformed> {
        let span = Span::within(input, bytes);
        // A fragment never goes on the wire; some readers cut it off, some do not.
        if bytes.contains(&b'#') {
            return Err(Malformed::Target);
        }
        if method == Method::Connect {
            let has_port = std::str::from_utf8(bytes)
                .ok()
                .and_then(|target| target.rsplit_once(':'))
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
            return if has_port && is_host(bytes) {
                Ok(Self::Authority(span))
            } else {
                Err(Malformed::Target)
            };
        }
        match bytes {
            [b'/', ..] => Ok(Self::Origin(span)),
            b"*" if method == Method::Options => Ok(Self::Asterisk(span)),
            _ => {
                let scheme = bytes.get(..7).ok_or(Malformed::Target)?;
                if !scheme.eq_ignore_ascii_case(b"http://") {
                    return Err(Malformed::Target);
                }
                let rest = &bytes[7..];
                let length = rest
                    .iter()
                    .position(|byte| matches!(byte, b'/' | b'?'))
                    .unwrap_or(rest.len());
                let (authority, path) = rest.split_at(length);
                if authority.is_empty() || !is_host(authority) {
                    return Err(Malformed::Target);
                }
                Ok(Self::Absolute {
                    authority: Span::within(input, authority),
                    path: Span::within(input, path),
                })
            }
        }
    }

    fn authority(self) -> Option<Span> {
        match self {
            Self::Absolute { authority, .. } | Self::Authority(authority) => Some(authority),
            Self::Origin(_) | Self::Asterisk(_) => None,
        }
    }

    fn path(self) -> Span {
        match self {
            Self::Origin(path) | Self::Asterisk(path) | Self::Absolute { path, .. } => path,
            Self::Authority(_) => Span::default(),
        }
    }
}

/// `uri-host [ ":" port ]`, or nothing (RFC 9110 section 7.2; characters of RFC 3986 section 3.2.2).
fn is_host(value: &[u8]) -> bool {
    let (host, port) = match value {
        [b'[', ..] => {
            let Some(end) = value.iter().position(|&byte| byte == b']') else {
                return false;
            };
            let literal = &value[1..end];
            let is_literal = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.' | b'%');
            if literal.is_empty() || !literal.iter().all(is_literal) {
                return false;
            }
            (&b""[..], &value[end + 1..])
        }
        _ => value.split_at(value.iter().position(|&byte| byte == b':').unwrap_or(value.len())),
    };
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(byte);
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    host.iter().all(is_name) && is_port
}
