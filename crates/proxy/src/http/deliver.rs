//! The answer's way to the client: passed on, cut off, turned into a tunnel, or given in the place of an
//! endpoint.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use model::event::Flags;
use netsys::sock;
use registry::{Lease, Target};
use tokio::net::TcpStream;

use crate::http1::{Body, Edits, Span, Version};

use super::buffer::Buffer;
use super::exchange::{Answer, Exchange, Uploading};
use super::failure::Failure;
use super::flow::{Broke, Flow, LARGE_BODY};
use super::pool::Kept;
use super::request::Request;
use super::{Next, Tunnel};

impl Exchange<'_> {
    /// Passes the answer on to the client.
    pub(super) async fn deliver(&mut self, answer: Answer) -> Next {
        let Answer {
            mut head,
            mut buffer,
            mut stream,
            lease,
        } = answer;
        self.tell_of_the_connection(&mut head.edits, head.body, head.tunnel);
        if head.version == Version::Http10 && self.request.asked.version == Version::Http11 {
            raise_version(&mut buffer, head.start_line);
        }
        let mut download = match Flow::new(
            &mut buffer,
            &head.range,
            head.start_line,
            &head.edits,
            head.body,
            None,
        ) {
            Ok(download) => download,
            Err(malformed) => return Box::pin(self.fail(Failure::Malformed(malformed))).await,
        };
        self.request.answered(self.client, head.status);
        self.client.life.expire_in(self.client.settings.http_idle_timeout);
        let result = poll_fn(|cx| self.poll_download(cx, &mut download, &mut buffer, &mut stream)).await;
        self.request.sent = download.body_bytes();
        self.request.received = self.upload.body_bytes();
        if let Err(broken) = result {
            return self.cut(&broken, &stream, lease.target());
        }
        let worker = Rc::clone(&self.client.worker);
        if head.tunnel {
            return Box::pin(self.leave_http(&download, buffer, stream, lease)).await;
        }
        // Bytes behind the answer belong to no request: what else this connection says is not believed.
        let is_reusable = head.persists && self.uploading == Uploading::Done && download.ends_buffer(&buffer);
        let bulk = self.request.sent > LARGE_BODY;
        if is_reusable {
            let kept = Kept { stream, bulk };
            worker.pool.give(self.client.side(), lease.target(), kept);
        }
        worker.spares.give(buffer);
        self.after_answer()
    }

    /// What follows an answer that was given whole.
    fn after_answer(&mut self) -> Next {
        if !self.upload.body.is_done() {
            return Next::Linger;
        }
        self.upload.release(self.buffer);
        if self.client.stays {
            Next::Idle
        } else if self.buffer.is_empty() && !self.client.has_more() {
            Next::Close
        } else {
            Next::Linger
        }
    }

    /// Adds what the client is told of its own connection, which is decided here.
    fn tell_of_the_connection(&mut self, edits: &mut Edits, body: Body, is_tunnel: bool) {
        let client = &mut self.client;
        client.stays &= body != Body::UntilClose
            && self.uploading == Uploading::Done
            && !is_tunnel
            && !client.life.is_draining();
        match (client.stays, self.request.asked.version) {
            _ if is_tunnel => {}
            (false, _) => edits.insert("connection", b"close"),
            (true, Version::Http10) => edits.insert("connection", b"keep-alive"),
            (true, Version::Http11) => {}
        }
    }

    fn poll_download(
        &mut self,
        cx: &mut Context<'_>,
        download: &mut Flow,
        buffer: &mut Buffer,
        stream: &mut TcpStream,
    ) -> Poll<Result<(), Cut>> {
        if let Poll::Ready(failure) = self.poll_ended(cx) {
            return Poll::Ready(Err(Cut::Ended(failure)));
        }
        self.poll_upload(cx, stream).map_err(Cut::Ended)?;
        let before = download.body_bytes();
        let client = &mut *self.client;
        let result = download.poll(cx, buffer, &client.worker.spares, stream, &mut client.stream);
        if download.body_bytes() != before {
            client.life.expire_in(client.settings.http_idle_timeout);
        }
        result.map_err(Cut::Broke)
    }

    /// The answer broke off, and the client must not take what it has for the whole.
    fn cut(&mut self, cut: &Cut, upstream: &TcpStream, target: &Target) -> Next {
        let _ = sock::reset_on_close(upstream);
        let flags = match cut {
            Cut::Broke(Broke::Source | Broke::Short) => {
                self.client.note_failure(target);
                &[Flags::UPSTREAM_CLOSED, Flags::CUT][..]
            }
            Cut::Broke(Broke::Malformed(_)) => &[Flags::UPSTREAM_PROTOCOL, Flags::CUT],
            Cut::Broke(Broke::Sink) | Cut::Ended(Failure::ClientGone) => &[Flags::DOWNSTREAM_CLOSED],
            Cut::Ended(Failure::Late) => &[Flags::UPSTREAM_TIMEOUT, Flags::CUT],
            Cut::Ended(Failure::ClientMalformed(_)) => &[Flags::DOWNSTREAM_PROTOCOL, Flags::CUT],
            Cut::Ended(Failure::Drained) => &[Flags::DRAINED, Flags::CUT],
            Cut::Ended(_) => &[Flags::IDLE_TIMEOUT, Flags::CUT],
        };
        flags.iter().for_each(|flag| self.request.flags.insert(*flag));
        Next::Reset
    }

    /// The connection is a tunnel from here on.
    async fn leave_http(
        &mut self,
        download: &Flow,
        mut buffer: Buffer,
        stream: TcpStream,
        lease: Lease,
    ) -> Next {
        download.release(&mut buffer);
        if self.client.write_all(buffer.filled()).await.is_err() {
            self.request.flags.insert(Flags::DOWNSTREAM_CLOSED);
            return Next::Reset;
        }
        self.request.sent += buffer.filled().len() as u64;
        self.client.worker.spares.give(buffer);
        self.upload.release(self.buffer);
        let first = self.buffer.filled().into();
        self.buffer.keep_from(self.buffer.end);
        Next::Tunnel(Box::new(Tunnel {
            upstream: stream,
            lease: Some(lease),
            first,
            request: std::mem::replace(&mut self.request, Request::unread(self.client.began)),
        }))
    }

    /// Answers in the place of an endpoint.
    pub(super) async fn fail(&mut self, failure: Failure) -> Next {
        let (mut status, flag) = failure.told_by();
        if matches!(failure, Failure::Idle) && !self.upload.body.is_done() {
            status = 408;
        }
        self.request.flags.insert(flag);
        self.request.received = self.upload.body_bytes();
        if status == 0 {
            return Next::Reset;
        }
        let is_read = self.upload.body.is_done();
        self.client.stays &= is_read && !self.client.life.is_draining();
        self.client
            .reply(&mut self.request, status, &failure.to_string())
            .await;
        self.after_answer()
    }
}

/// Why an answer broke off.
enum Cut {
    Broke(Broke),
    Ended(Failure),
}

/// Makes `HTTP/1.0` of the status line `HTTP/1.1`: the version is ours, not the endpoint's (RFC 9110
/// section 2.5).
fn raise_version(buffer: &mut Buffer, start_line: Span) {
    const DIGIT: usize = "HTTP/1.".len();
    buffer.bytes[buffer.start + start_line.start() + DIGIT] = b'1';
}
