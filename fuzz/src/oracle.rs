//! hyper over memory: the other reader. No runtime; everything is always ready.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;

use crate::Message;

/// How often a connection is polled before it is given up: far more than any input needs.
const POLLS: usize = 10_000;

/// What hyper made of some bytes.
#[derive(Debug)]
pub struct Reading {
    /// Messages it read to their end, in order.
    pub messages: Vec<Message>,
    /// Whether it refused the rest.
    pub refused: bool,
}

/// hyper's reading of `input` as a server.
pub fn read_requests(input: &[u8]) -> Reading {
    let messages = Rc::new(RefCell::new(Vec::new()));
    let kept = Rc::clone(&messages);
    let failed = Rc::new(Cell::new(false));
    let saw_failure = Rc::clone(&failed);
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (kept, failed) = (Rc::clone(&kept), Rc::clone(&saw_failure));
        async move {
            let (parts, body) = request.into_parts();
            match body.collect().await {
                Ok(body) => kept.borrow_mut().push(Message {
                    kind: parts.method.as_str().as_bytes().escape_ascii().to_string(),
                    path: parts
                        .uri
                        .path_and_query()
                        .map_or("/", |path| path.as_str())
                        .as_bytes()
                        .escape_ascii()
                        .to_string(),
                    body: body.to_bytes().to_vec(),
                }),
                Err(_) => failed.set(true),
            }
            Ok::<_, std::convert::Infallible>(hyper::Response::new(Empty::<Bytes>::new()))
        }
    });
    let (memory, answered) = Memory::holding(input.to_vec());
    let connection = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .pipeline_flush(true)
        .max_headers(proxy::http1::FIELDS_MAX + 8)
        .header_read_timeout(None)
        .serve_connection(memory, service);
    let ended = poll_out(pin!(connection));
    // It refuses a head by an answer of its own, and says so only there.
    let refusal = [&b"HTTP/1.1 400"[..], b"HTTP/1.1 431", b"HTTP/1.1 414"];
    let answered = answered.borrow();
    let refused_head = refusal
        .iter()
        .any(|line| answered.windows(line.len()).any(|window| window == *line));
    Reading {
        refused: failed.get() || !matches!(ended, Some(Ok(()))) || refused_head,
        messages: messages.take(),
    }
}

/// hyper's reading of `input` as a client that asked GET, or HEAD.
pub fn read_response(input: &[u8], is_head: bool) -> Reading {
    let (memory, written) = Memory::holding(input.to_vec());
    // A response that comes before the request is an error of its own kind.
    let memory = Memory {
        wait_for_write: true,
        written,
        ..memory
    };
    let handshake = hyper::client::conn::http1::Builder::new()
        .max_headers(proxy::http1::FIELDS_MAX + 8)
        .handshake::<_, Empty<Bytes>>(memory);
    let Some(Ok((mut sender, connection))) = poll_out(pin!(handshake)) else {
        return Reading {
            messages: Vec::new(),
            refused: true,
        };
    };
    let request = hyper::Request::builder()
        .method(if is_head { "HEAD" } else { "GET" })
        .uri("/")
        .header("host", "a")
        .body(Empty::new())
        .expect("a valid request");
    let message = async {
        let response = sender.send_request(request).await.ok()?;
        let kind = response.status().as_u16().to_string();
        let body = response.into_body().collect().await.ok()?.to_bytes().to_vec();
        Some(Message {
            kind,
            path: String::new(),
            body,
        })
    };
    let (mut message, mut connection) = (pin!(message), pin!(connection));
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..POLLS {
        // The connection's own end is told to `message`; neither may be polled again when it is ready.
        let ended = connection.as_mut().poll(&mut context).is_ready();
        let answer = match message.as_mut().poll(&mut context) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending if ended => Some(poll_out(message.as_mut()).flatten()),
            Poll::Pending => None,
        };
        if let Some(answer) = answer {
            return Reading {
                refused: answer.is_none(),
                messages: answer.into_iter().collect(),
            };
        }
    }
    Reading {
        messages: Vec::new(),
        refused: true,
    }
}

fn poll_out<T>(mut future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..POLLS {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return Some(value);
        }
    }
    None
}

/// A connection that holds all its input and keeps all its output.
struct Memory {
    input: Vec<u8>,
    at: usize,
    written: Rc<RefCell<Vec<u8>>>,
    wait_for_write: bool,
}

impl Memory {
    fn holding(input: Vec<u8>) -> (Self, Rc<RefCell<Vec<u8>>>) {
        let written = Rc::<RefCell<Vec<u8>>>::default();
        let memory = Self {
            input,
            at: 0,
            written: Rc::clone(&written),
            wait_for_write: false,
        };
        (memory, written)
    }
}

impl Read for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut to: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.wait_for_write && self.written.borrow().is_empty() {
            return Poll::Pending;
        }
        let length = to.remaining().min(self.input.len() - self.at);
        to.put_slice(&self.input[self.at..self.at + length]);
        self.at += length;
        Poll::Ready(Ok(()))
    }
}

impl Write for Memory {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.written.borrow_mut().extend_from_slice(from);
        Poll::Ready(Ok(from.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
