//! One exchange: a request is asked of an endpoint, and its answer delivered to the client.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use model::event::Flags;
use model::settings::Policy;
use netsys::sock::{self, Silence};
use registry::{Lease, Target, UnderWay};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::http1::{Body, Malformed, RequestHead, ResponseHead, Scan, Version};
use crate::life::Signal;

use super::buffer::Buffer;
use super::failure::Failure;
use super::flow::{Broke, Flow};
use super::request::Request;
use super::request_id::RequestId;
use super::{Client, Next};

/// Most interim responses to one request.
const INTERIM_MAX: u32 = 32;
/// How often deadlines are looked at.
const SWEEP: Duration = Duration::from_secs(1);

/// One request under way.
pub(super) struct Exchange<'a> {
    pub(super) client: &'a mut Client,
    /// Holds the request, and what the client sent behind it.
    pub(super) buffer: &'a mut Buffer,
    pub(super) request: Request,
    pub(super) upload: Flow,
    pub(super) uploading: Uploading,
    /// The client has ended its stream, and waits for the answer.
    client_ended: bool,
    /// An interim response has been passed on.
    pub(super) interim: u32,
    /// The time for the whole request, where it is limited.
    total: Option<Pin<Box<Sleep>>>,
    /// How long nothing has moved, and how much of the body had by then.
    still: (Duration, u64),
    /// The endpoint of this try has been slow: the kernel asks it again and again whether it is there.
    is_probed: bool,
    /// Counts it against the retry budget for as long as it lasts.
    _under_way: Option<UnderWay>,
}

/// A request that was not begun, and why.
pub(super) type Refused = Box<(Request, Malformed)>;

/// How the request's way to the endpoint goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Uploading {
    Going,
    Done,
    /// The endpoint does not take it any more; it may have answered all the same.
    Broken,
}

/// An endpoint and the head of its answer.
pub(super) struct Answer {
    pub(super) head: ResponseHead,
    pub(super) buffer: Buffer,
    pub(super) stream: TcpStream,
    pub(super) lease: Lease,
}

impl Client {
    /// Begins with one request, whose head stands at the front of `buffer`.
    ///
    /// # Errors
    /// Where what there is of its body is malformed.
    pub(super) fn begin<'a>(
        &'a mut self,
        buffer: &'a mut Buffer,
        mut head: RequestHead,
    ) -> Result<Exchange<'a>, Refused> {
        self.requests += 1;
        self.stays = head.persists;
        self.follow();
        let request_id = self.make_request_id(&mut head);
        let id = request_id.as_ref().map(RequestId::id);
        let request = Request::new(self, buffer.filled(), &head, id);
        let policy = self.policy();
        let keep = (policy.retries > 0).then_some(policy.retry_body_bytes);
        let total = policy.timeout;
        let upload = match Flow::new(buffer, &head.range, head.start_line, &head.edits, head.body, keep) {
            Ok(upload) => upload,
            Err(malformed) => return Err(Box::new((request, malformed))),
        };
        let under_way = self.route.cluster().map(|cluster| {
            let percent = cluster.policy.retry_budget_percent;
            UnderWay::new(&cluster.state, percent)
        });
        Ok(Exchange {
            client: self,
            buffer,
            request,
            upload,
            uploading: Uploading::Going,
            client_ended: false,
            interim: 0,
            total: total.map(|time| Box::pin(tokio::time::sleep(time))),
            still: (Duration::ZERO, 0),
            is_probed: false,
            _under_way: under_way,
        })
    }

    /// Answers a request whose body is malformed from its beginning.
    pub(super) async fn refuse_body(&mut self, refused: Refused) -> Next {
        let (mut request, malformed) = *refused;
        self.stays = false;
        request.flags.insert(Flags::DOWNSTREAM_PROTOCOL);
        let why = format!("{malformed}; the request was not forwarded");
        self.reply(&mut request, malformed.status(), &why).await;
        request.report(self);
        Next::Linger
    }

    /// What the service's policy is; the mesh's where there is none.
    pub(super) fn policy(&self) -> &Policy {
        self.route
            .cluster()
            .map_or(&self.settings.policy, |cluster| &cluster.policy)
    }

    /// Counts a failure of an endpoint.
    pub(super) fn note_failure(&self, target: &Target) {
        if let Some(cluster) = self.route.cluster() {
            self.worker.note_failure(cluster, target);
        }
    }

    /// Gives a request without one an id.
    fn make_request_id(&self, head: &mut RequestHead) -> Option<RequestId> {
        if head.request_id.is_some() || !self.settings.request_id {
            return None;
        }
        let id = RequestId::random(self.worker.random(), self.worker.random());
        head.edits.insert_line(id.line());
        Some(id)
    }
}

impl Exchange<'_> {
    /// Asks, delivers and reports.
    pub(super) async fn run(&mut self) -> Next {
        let next = match self.ask().await {
            Ok(answer) => self.deliver(answer).await,
            // Boxed, as all is that is rare: what a future may hold, every request pays for.
            Err(failure) => Box::pin(self.fail(failure)).await,
        };
        // A tunnel is reported when it ends.
        if !matches!(next, Next::Tunnel(_)) {
            self.request.report(self.client);
        }
        next
    }

    /// Ready when the whole exchange must end, whatever the endpoint does.
    pub(super) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        while let Poll::Ready(signal) = self.client.life.poll_signal(cx) {
            match signal {
                Signal::Expired => return Poll::Ready(Failure::Idle),
                Signal::Cut => return Poll::Ready(Failure::Drained),
                Signal::Draining | Signal::Settled => {}
            }
        }
        match &mut self.total {
            None => Poll::Pending,
            Some(total) => total.as_mut().poll(cx).map(|()| Failure::Late),
        }
    }

    /// Moves the request on towards the endpoint; when it is there, looks whether the client is.
    ///
    /// # Errors
    /// Where the client is gone or its body is malformed.
    pub(super) fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut TcpStream,
    ) -> Result<(), Failure> {
        if self.uploading == Uploading::Going {
            let spares = &self.client.worker.spares;
            match self
                .upload
                .poll(cx, self.buffer, spares, &mut self.client.stream, upstream)
            {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) => self.uploading = Uploading::Done,
                Poll::Ready(Err(Broke::Sink)) => self.uploading = Uploading::Broken,
                Poll::Ready(Err(Broke::Source | Broke::Short)) => return Err(Failure::ClientGone),
                Poll::Ready(Err(Broke::Malformed(malformed))) => {
                    return Err(Failure::ClientMalformed(malformed));
                }
            }
        }
        // What comes now is the next request; a client that only ended its stream still wants the answer.
        while self.uploading == Uploading::Done && !self.client_ended && self.buffer.has_spare() {
            match self.buffer.poll_fill(cx, &mut self.client.stream) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => self.client_ended = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Err(Failure::ClientGone),
            }
        }
        Ok(())
    }

    /// Sends the request on `stream` and reads the answer's head into `answer`, passing on the interim
    /// ones.
    pub(super) async fn converse(
        &mut self,
        stream: &mut TcpStream,
        answer: &mut Buffer,
    ) -> Result<ResponseHead, Failure> {
        let limit = self.client.policy().per_try_timeout;
        self.client.life.expire_in(self.client.policy().connect_timeout);
        self.is_probed = false;
        let mut limit = limit.map(|time| Box::pin(tokio::time::sleep(time)));
        loop {
            let mut scan = Scan::default();
            let head = poll_fn(|cx| {
                if let Poll::Ready(head) = self.poll_head(cx, stream, answer, &mut scan) {
                    return Poll::Ready(head);
                }
                match &mut limit {
                    None => Poll::Pending,
                    Some(limit) => limit.as_mut().poll(cx).map(|()| Err(Failure::TryLate)),
                }
            })
            .await?;
            self.request.first_byte_came();
            if !head.is_interim() {
                return Ok(head);
            }
            Box::pin(self.pass_interim(answer, &head)).await?;
        }
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut TcpStream,
        answer: &mut Buffer,
        scan: &mut Scan,
    ) -> Poll<Result<ResponseHead, Failure>> {
        while let Poll::Ready(failure) = self.poll_ended(cx) {
            match failure {
                Failure::Idle => self.look_at(stream)?,
                failure => return Poll::Ready(Err(failure)),
            }
        }
        self.poll_upload(cx, stream)?;
        loop {
            if !answer.is_empty() {
                match ResponseHead::parse(answer.filled(), scan, self.request.asked) {
                    Ok(Some(head)) => return Poll::Ready(Ok(head)),
                    Ok(None) => {}
                    Err(malformed) => return Poll::Ready(Err(Failure::Malformed(malformed))),
                }
            }
            if !answer.make_room() {
                return Poll::Ready(Err(Failure::Malformed(Malformed::HeadTooLarge)));
            }
            let lost = match ready!(answer.poll_fill(cx, stream)) {
                Ok(0) => "it closed the connection before answering".into(),
                Ok(_) => continue,
                Err(error) => error.to_string(),
            };
            return Poll::Ready(Err(if answer.is_empty() {
                Failure::Lost(lost.into())
            } else {
                Failure::Partial
            }));
        }
    }

    /// Looks whether an endpoint that has not answered for as long as a connection may take is there at
    /// all. Else a request to one that vanished would wait for the kernel's retransmissions to end, which
    /// is a quarter of an hour, or, if it had come there already, for the keepalive of idle connections.
    fn look_at(&mut self, stream: &TcpStream) -> Result<(), Failure> {
        let limit = self.client.policy().connect_timeout;
        let pause = (limit / 2).max(SWEEP);
        match sock::silence(stream) {
            Ok(Silence::Unacknowledged(time)) if time >= limit => return Err(Failure::Vanished),
            // Of one that is there, an answer to a probe came at most a pause and a moment ago.
            Ok(Silence::Acknowledged(time)) if self.is_probed && time >= limit.max(SWEEP) + pause => {
                return Err(Failure::Silent);
            }
            Ok(Silence::Acknowledged(_)) if !self.is_probed => {
                // Best effort: a connection that is gone already says so by itself.
                let _ = sock::probe_every(stream, pause);
                self.is_probed = true;
            }
            _ => {}
        }
        let (time, moved) = self.still;
        self.still = match self.upload.body_bytes() {
            now if now == moved => (time + pause, moved),
            now => (Duration::ZERO, now),
        };
        if self.still.0 >= self.client.settings.http_idle_timeout {
            return Err(Failure::Idle);
        }
        self.client.life.expire_in(pause);
        Ok(())
    }

    async fn pass_interim(&mut self, answer: &mut Buffer, head: &ResponseHead) -> Result<(), Failure> {
        self.interim += 1;
        if self.interim > INTERIM_MAX {
            return Err(Failure::Malformed(Malformed::Status));
        }
        let mut flow = Flow::new(
            answer,
            &head.range,
            head.start_line,
            &head.edits,
            Body::Done,
            None,
        )
        .map_err(Failure::Malformed)?;
        // HTTP/1.0 has none of these.
        if self.request.asked.version == Version::Http11 {
            let result = poll_fn(|cx| {
                if let Poll::Ready(failure) = self.poll_ended(cx) {
                    return Poll::Ready(Err(failure));
                }
                flow.poll_write(cx, answer, &mut self.client.stream)
                    .map_err(|_| Failure::ClientGone)
            });
            result.await?;
        }
        flow.release(answer);
        Ok(())
    }

    /// Waits for `future`, which has a time of its own, unless the exchange ends first.
    pub(super) async fn unless_ended<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Failure> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            while let Poll::Ready(failure) = self.poll_ended(cx) {
                // The deadline is that of what was waited for before.
                if !matches!(failure, Failure::Idle) {
                    return Poll::Ready(Err(failure));
                }
            }
            future.as_mut().poll(cx).map(Ok)
        })
        .await
    }
}
