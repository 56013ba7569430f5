//! From a request to its answer: the table of routes, and what a request must be to change state.

use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use hyper::{Method, Response, StatusCode};
use tokio::sync::mpsc;

use super::Reach;

/// Bytes of a request body.
const MOST_BODY_BYTES: usize = 64 << 10;

/// A request whose route was found.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Names and values after the question mark, decoded, in order.
    pub query: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    status: StatusCode,
    content_type: &'static str,
    body: Body,
}

/// What is answered: all of it, or pieces as they come.
#[derive(Debug)]
pub(super) enum Body {
    Whole(Full<Bytes>),
    GoingOn(mpsc::Receiver<Bytes>),
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(cx),
            Self::GoingOn(pieces) => pieces
                .poll_recv(cx)
                .map(|piece| piece.map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::GoingOn(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::GoingOn(_) => SizeHint::default(),
        }
    }
}

/// What one server answers, by method and path. `GET /` and `GET /help` list it.
pub struct Routes {
    name: &'static str,
    loopback_names_only: bool,
    routes: Vec<Route>,
}

struct Route {
    method: Method,
    path: &'static str,
    help: &'static str,
    answer: Box<dyn Fn(&Request) -> Reply>,
}

impl Request {
    /// The first value of this name in the query.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&str> {
        let mut pairs = self.query.iter();
        pairs.find_map(|(key, value)| (key == name).then_some(value.as_str()))
    }
}

impl Reply {
    /// Plain text; a line feed is added where it ends without one.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        let mut text = text.into();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        Self::new("text/plain; charset=utf-8", text)
    }

    /// JSON that is already text.
    #[must_use]
    pub fn json(json: impl Into<Bytes>) -> Self {
        Self::new("application/json", json)
    }

    /// A body of another type.
    #[must_use]
    pub fn new(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type,
            body: Body::Whole(Full::new(body.into())),
        }
    }

    /// A body whose pieces come until the sender goes. It has no time limit: who makes it sends something now and
    /// then, and ends when that fails, as the reader has gone.
    #[must_use]
    pub fn going_on(content_type: &'static str, pieces: mpsc::Receiver<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type,
            body: Body::GoingOn(pieces),
        }
    }

    /// 400: the request says something that cannot be done; the text says what can.
    #[must_use]
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self::text(text).with(StatusCode::BAD_REQUEST)
    }

    /// 503: not now.
    #[must_use]
    pub fn unavailable(text: impl Into<String>) -> Self {
        Self::text(text).with(StatusCode::SERVICE_UNAVAILABLE)
    }

    fn with(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

impl Routes {
    /// A server's routes, none yet. The name is for the log and the index.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            loopback_names_only: false,
            routes: Vec::new(),
        }
    }

    /// Every request, not only one that changes state, must name this machine by a loopback name. A web
    /// page whose name was made to resolve to 127.0.0.1 (DNS rebinding) then reads nothing either.
    #[must_use]
    pub fn loopback_names_only(mut self) -> Self {
        self.loopback_names_only = true;
        self
    }

    /// A path that shows something.
    #[must_use]
    pub fn get(
        self,
        path: &'static str,
        help: &'static str,
        answer: impl Fn(&Request) -> Reply + 'static,
    ) -> Self {
        self.add(Method::GET, path, help, answer)
    }

    /// A path that changes something: see [`Self::answer`] for what such a request must be.
    #[must_use]
    pub fn post(
        self,
        path: &'static str,
        help: &'static str,
        answer: impl Fn(&Request) -> Reply + 'static,
    ) -> Self {
        self.add(Method::POST, path, help, answer)
    }

    fn add(
        mut self,
        method: Method,
        path: &'static str,
        help: &'static str,
        answer: impl Fn(&Request) -> Reply + 'static,
    ) -> Self {
        self.routes.push(Route {
            method,
            path,
            help,
            answer: Box::new(answer),
        });
        self
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Answers one request. One that changes state must be a POST, must not come from a web page (no
    /// `Origin`), and over TCP must name this machine by a loopback name, which a foreign page's cannot.
    pub(super) async fn answer(&self, request: hyper::Request<Incoming>, reach: Reach) -> Response<Body> {
        let (head, body) = request.into_parts();
        let reply = match self.find(&head, reach) {
            Ok(route) => match Limited::new(body, MOST_BODY_BYTES).collect().await {
                Ok(body) => (route.answer)(&Request {
                    query: parse_query(head.uri.query().unwrap_or_default()),
                    body: body.to_bytes(),
                }),
                Err(_) => Reply::text(format!(
                    "the body is longer than {MOST_BODY_BYTES} bytes, or was cut off"
                ))
                .with(StatusCode::PAYLOAD_TOO_LARGE),
            },
            Err(refusal) => refusal,
        };
        let mut response = Response::new(reply.body);
        *response.status_mut() = reply.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        if reply.status == StatusCode::METHOD_NOT_ALLOWED
            && let Ok(allowed) = HeaderValue::from_str(&self.methods(head.uri.path()))
        {
            headers.insert(ALLOW, allowed);
        }
        response
    }

    fn find(&self, head: &hyper::http::request::Parts, reach: Reach) -> Result<&Route, Reply> {
        let changes_state = head.method != Method::GET && head.method != Method::HEAD;
        if (changes_state || self.loopback_names_only) && reach == Reach::Tcp && !names_loopback(head) {
            return Err(refused("the Host must be localhost, 127.0.0.1 or [::1]"));
        }
        if (changes_state || self.loopback_names_only) && head.headers.contains_key(ORIGIN) {
            return Err(refused("requests of web pages (with an Origin) are not served"));
        }
        let path = head.uri.path();
        let method = if head.method == Method::HEAD {
            &Method::GET
        } else {
            &head.method
        };
        let at_path = |route: &&Route| route.path == path;
        if let Some(route) = self
            .routes
            .iter()
            .filter(at_path)
            .find(|route| route.method == method)
        {
            return Ok(route);
        }
        if self.routes.iter().any(|route| route.path == path) {
            let allowed = self.methods(path);
            return Err(Reply::text(format!("{path} takes {allowed}")).with(StatusCode::METHOD_NOT_ALLOWED));
        }
        if method == Method::GET && (path == "/" || path == "/help") {
            return Err(Reply::text(self.index()));
        }
        Err(Reply::text(format!("there is no {path} here.\n\n{}", self.index())).with(StatusCode::NOT_FOUND))
    }

    fn methods(&self, path: &str) -> String {
        let at_path = self.routes.iter().filter(|route| route.path == path);
        at_path
            .map(|route| route.method.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn index(&self) -> String {
        let mut index = format!("weir {}\n\n", self.name);
        let width = self
            .routes
            .iter()
            .map(|route| route.path.len())
            .max()
            .unwrap_or(0);
        for Route {
            method, path, help, ..
        } in &self.routes
        {
            // Writing to a string cannot fail.
            let _ = writeln!(index, "{:<4} {path:<width$}  {help}", method.as_str());
        }
        index
    }
}

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.index())
    }
}

fn refused(why: &str) -> Reply {
    Reply::text(format!("refused: {why}")).with(StatusCode::FORBIDDEN)
}

/// Whether the request's one Host is a loopback name, with any port.
fn names_loopback(head: &hyper::http::request::Parts) -> bool {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    // An absolute target overrides Host; nobody needs one here.
    let Ok(host) = host.to_str() else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    head.uri.authority().is_none()
        && (name.eq_ignore_ascii_case("localhost") || name == "127.0.0.1" || name == "[::1]")
}

fn parse_query(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let split = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    };
    pairs.map(split).collect()
}

/// Undoes percent encoding and `+` for a space; what is not an encoding stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let encoded = after.split_at_checked(2).filter(|_| byte == b'%');
        let decoded = encoded.and_then(|(hex, after)| Some((hex_byte(hex)?, after)));
        let (byte, after) = decoded.unwrap_or((if byte == b'+' { b' ' } else { byte }, after));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex_byte(hex: &[u8]) -> Option<u8> {
    hex.iter().try_fold(0, |value: u8, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        u8::try_from(u32::from(value) * 16 + digit).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded_and_odd_ones_survive() {
        let table: &[(&str, &[(&str, &str)])] = &[
            ("", &[]),
            ("level=info,proxy=debug", &[("level", "info,proxy=debug")]),
            ("a=%2Fx+y&b", &[("a", "/x y"), ("b", "")]),
            ("a=%&b=%4&c=%zz&&", &[("a", "%"), ("b", "%4"), ("c", "%zz")]),
            ("%C3%A4=1", &[("ä", "1")]),
        ];
        for (query, pairs) in table {
            let got = parse_query(query);
            let got: Vec<_> = got
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            assert_eq!(&got, pairs, "{query}");
        }
    }
}
