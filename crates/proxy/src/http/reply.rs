//! Answers of the proxy's own, where no endpoint gave one.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, ready};

use model::event::Flags;
use tokio::io::AsyncWrite;

use crate::http1::{Method, Version};
use crate::life::Signal;

use super::Client;
use super::request::Request;

impl Client {
    /// Answers with a status and one line of text. Whether the connection stays is `self.stays`.
    pub(super) async fn reply(&mut self, request: &mut Request, status: u16, why: &str) {
        let body = format!("weir: {why} [{}]\n", names(request.flags));
        let connection = match (self.stays, request.asked.version) {
            (false, _) => "connection: close\r\n",
            (true, Version::Http10) => "connection: keep-alive\r\n",
            (true, Version::Http11) => "",
        };
        let mut answer = format!(
            "HTTP/1.1 {status} {}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n{connection}\r\n",
            reason(status),
            body.len(),
        );
        if request.asked.method != Method::Head {
            // Writing to a string cannot fail.
            let _ = answer.write_str(&body);
            request.sent = body.len() as u64;
        }
        request.answered(self, status);
        if self.write_all(answer.as_bytes()).await.is_err() {
            self.stays = false;
        }
    }

    /// Writes to the client; fails where it is gone or does not read in time.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let mut at = 0;
        poll_fn(|cx| {
            while let Poll::Ready(signal) = self.life.poll_signal(cx) {
                if matches!(signal, Signal::Expired | Signal::Cut) {
                    return Poll::Ready(Err(()));
                }
            }
            while at < bytes.len() {
                match ready!(Pin::new(&mut self.stream).poll_write(cx, &bytes[at..])) {
                    Ok(written) if written > 0 => at += written,
                    _ => return Poll::Ready(Err(())),
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }
}

/// Of what went wrong, as `weir explain` takes them.
fn names(flags: Flags) -> String {
    let names: Vec<_> = flags.codes().map(|code| format!("WEIR-{code}")).collect();
    names.join(", ")
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}
