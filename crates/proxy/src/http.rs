//! HTTP/1 on one client connection. Comes in: the connection, what was read of it, and its route. Each
//! request is balanced by itself, forwarded as it was received but for the fields of one hop, tried
//! again where that is safe, and reported. `connection` makes the
//! [`Client`] and calls [`serve`].
//!
//! `exchange` is one request and its answer, `deliver` the answer's way to the client; `tries` chooses endpoints and decides what is safe to try
//! again; `flow` moves one message; `pool` keeps upstream connections; `reply` answers in their stead.
//! Between requests a connection holds no buffer and no timer.

pub(crate) mod buffer;
mod deliver;
mod exchange;
mod failure;
mod flow;
pub(crate) mod pool;
mod reply;
mod request;
mod request_id;
#[cfg(test)]
mod tests;
mod tries;

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use model::Settings;
use model::event::Flags;
use netsys::sock;
use registry::Lease;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::capture::Origin;

use crate::dial::Dialed;
use crate::http1::{Malformed, RequestHead, Scan};
use crate::life::{Life, Signal};
use crate::relay::{How, Relay};
use crate::route::{self, Route};
use crate::worker::Worker;

use buffer::Buffer;
use pool::Side;
use request::Request;

/// How long a client that was answered early may go on sending what it had begun.
const LINGER: Duration = Duration::from_secs(2);
/// Most bytes of that which are read.
const LINGER_BYTES: usize = 1024 * 1024;

/// One client connection. Boxed by who serves it: what a future holds across an await it holds twice.
pub(crate) struct Client {
    worker: Rc<Worker>,
    stream: TcpStream,
    origin: Origin,
    route: Route,
    life: Life,
    settings: Arc<Settings>,
    /// Snapshot that the route and the settings are of.
    version: u64,
    /// Requests so far.
    requests: u64,
    /// When the first byte of the request under way was there.
    began: Instant,
    /// Whether another request may be read after this one.
    stays: bool,
    /// Whether the address that the connection was made to still leads to a service that speaks HTTP.
    is_routed: bool,
    /// What happened before the client was known to speak HTTP.
    early: Option<Box<Early>>,
}

/// What happened before the client was known to speak HTTP.
struct Early {
    /// Read of the client.
    first: Box<[u8]>,
    /// Dialled: for the client's first request.
    dialed: Option<Dialed>,
}

/// What follows when nothing more is to be done for the moment.
enum Next {
    /// The connection is silent, and may speak again.
    Idle,
    /// The client may have sent what was not read: it must see the answer before it sees the end.
    Linger,
    /// The client must not take what it has for a whole answer.
    Reset,
    /// Nothing is left to be said.
    Close,
    /// Bytes both ways from here on.
    Tunnel(Box<Tunnel>),
}

/// A connection that left HTTP.
struct Tunnel {
    upstream: TcpStream,
    lease: Option<Lease>,
    /// Read from the client behind its request.
    first: Box<[u8]>,
    request: Request,
}

/// Serves a client that speaks HTTP/1, to its end.
pub(crate) async fn serve(mut client: Box<Client>) {
    let has_spoken = client.early.as_ref().is_some_and(|early| !early.first.is_empty());
    let mut next = match has_spoken {
        true => Box::pin(client.busy()).await,
        false => Next::Idle,
    };
    loop {
        // Boxed: all that a request needs is there only while there is a request.
        next = match next {
            Next::Idle if client.idle().await => Box::pin(client.busy()).await,
            Next::Idle | Next::Close => return,
            Next::Linger => return Box::pin(client.linger()).await,
            Next::Reset => return drop(sock::reset_on_close(&client.stream)),
            Next::Tunnel(tunnel) => return Box::pin(client.tunnel(*tunnel)).await,
        }
    }
}

/// Why there is no request head.
enum NoHead {
    /// The client closed where no request had begun.
    Closed,
    /// The client went away within a head.
    Cut,
    /// Too slow.
    Late,
    /// The drain's deadline.
    Drained,
    Malformed(Malformed),
}

impl Client {
    /// A captured connection whose client speaks HTTP/1. `first` was read already; `dialed` was dialled
    /// already.
    pub(crate) fn new(
        worker: &Rc<Worker>,
        stream: TcpStream,
        first: Box<[u8]>,
        origin: Origin,
        route: Route,
        life: Life,
        dialed: Option<Dialed>,
    ) -> Box<Self> {
        let snapshot = worker.snapshot();
        Box::new(Self {
            settings: Arc::clone(&snapshot.settings),
            version: snapshot.version,
            worker: Rc::clone(worker),
            stream,
            origin,
            route,
            life,
            requests: 0,
            began: Instant::now(),
            stays: true,
            is_routed: true,
            early: (!first.is_empty() || dialed.is_some()).then(|| Box::new(Early { first, dialed })),
        })
    }

    /// Waits until the client speaks; `false` where the connection is to end. A drain alone does not end
    /// it: the client may be about to speak, and would lose its request. It is told to close by the answer
    /// to that, or else closed at the drain's end, which it does not put off.
    async fn idle(&self) -> bool {
        let _waiting = (self.requests > 0).then(|| self.life.wait());
        self.life.expire_in(self.settings.http_idle_timeout);
        poll_fn(|cx| {
            while let Poll::Ready(signal) = self.life.poll_signal(cx) {
                match signal {
                    Signal::Settled | Signal::Draining => {}
                    Signal::Expired | Signal::Cut => return Poll::Ready(false),
                }
            }
            self.stream.poll_read_ready(cx).map(|ready| ready.is_ok())
        })
        .await
    }

    /// Serves requests until the connection is silent or ends.
    async fn busy(&mut self) -> Next {
        let worker = Rc::clone(&self.worker);
        let mut buffer = worker.spares.take();
        if let Some(early) = &mut self.early {
            buffer.append(&std::mem::take(&mut early.first));
        }
        let next = loop {
            let next = match self.read_head(&mut buffer).await {
                Ok(head) => match self.begin(&mut buffer, head) {
                    Ok(mut exchange) => exchange.run().await,
                    Err(refused) => Box::pin(self.refuse_body(refused)).await,
                },
                Err(no_head) => Box::pin(self.refuse(&mut buffer, no_head)).await,
            };
            if !matches!(next, Next::Idle) || buffer.is_empty() {
                break next;
            }
        };
        worker.spares.give(buffer);
        next
    }

    /// Comes when the client has begun to speak.
    async fn read_head(&mut self, buffer: &mut Buffer) -> Result<RequestHead, NoHead> {
        self.began = Instant::now();
        self.life.expire_in(self.settings.header_timeout);
        let mut scan = Scan::default();
        poll_fn(|cx| {
            loop {
                if !buffer.is_empty() {
                    match RequestHead::parse(buffer.filled(), &mut scan) {
                        Ok(Some(head)) => return Poll::Ready(Ok(head)),
                        Ok(None) => {}
                        Err(malformed) => return Poll::Ready(Err(NoHead::Malformed(malformed))),
                    }
                }
                if !buffer.make_room() {
                    return Poll::Ready(Err(NoHead::Malformed(Malformed::HeadTooLarge)));
                }
                match ready!(self.poll_more(cx, buffer)) {
                    Ok(0) if buffer.is_empty() => return Poll::Ready(Err(NoHead::Closed)),
                    Ok(0) => return Poll::Ready(Err(NoHead::Cut)),
                    Ok(_) => {}
                    Err(no_head) => return Poll::Ready(Err(no_head)),
                }
            }
        })
        .await
    }

    fn poll_more(&mut self, cx: &mut Context<'_>, buffer: &mut Buffer) -> Poll<Result<usize, NoHead>> {
        while let Poll::Ready(signal) = self.life.poll_signal(cx) {
            match signal {
                Signal::Expired => return Poll::Ready(Err(NoHead::Late)),
                Signal::Cut => return Poll::Ready(Err(NoHead::Drained)),
                Signal::Draining | Signal::Settled => {}
            }
        }
        match ready!(buffer.poll_fill(cx, &mut self.stream)) {
            Ok(read) => Poll::Ready(Ok(read)),
            Err(_) if buffer.is_empty() => Poll::Ready(Err(NoHead::Closed)),
            Err(_) => Poll::Ready(Err(NoHead::Cut)),
        }
    }

    /// Whether the client has sent more than was read, as far as the reactor knows: then this costs a system
    /// call.
    fn has_more(&self) -> bool {
        matches!(self.stream.try_read(&mut [0]), Ok(read) if read > 0)
    }

    /// Answers what is no request.
    async fn refuse(&mut self, buffer: &mut Buffer, no_head: NoHead) -> Next {
        let (status, flag, why) = match no_head {
            NoHead::Closed => return Next::Close,
            NoHead::Cut => (0, Flags::DOWNSTREAM_CLOSED, String::new()),
            NoHead::Drained => (0, Flags::DRAINED, String::new()),
            NoHead::Late if buffer.is_empty() => return Next::Close,
            NoHead::Late => (
                408,
                Flags::DOWNSTREAM_TIMEOUT,
                "the request head took too long".to_owned(),
            ),
            NoHead::Malformed(malformed) => (
                malformed.status(),
                Flags::DOWNSTREAM_PROTOCOL,
                format!("{malformed}; the request was not forwarded"),
            ),
        };
        let mut request = Request::unread(self.began);
        request.flags.insert(flag);
        if status > 0 {
            self.stays = false;
            self.reply(&mut request, status, &why).await;
        }
        request.report(self);
        match status {
            0 => Next::Close,
            _ => Next::Linger,
        }
    }

    /// Ends the connection so that the client reads the answer before it is told that its own bytes went
    /// nowhere: closing over unread bytes resets, and a reset overtakes the answer.
    async fn linger(&mut self) {
        if SockRef::from(&self.stream)
            .shutdown(std::net::Shutdown::Write)
            .is_err()
        {
            return;
        }
        self.life.expire_in(LINGER);
        let mut buffer = self.worker.spares.take();
        let mut left = LINGER_BYTES;
        while left > 0 {
            buffer.keep_from(buffer.end);
            match poll_fn(|cx| self.poll_more(cx, &mut buffer)).await {
                Ok(read) if read > 0 => left = left.saturating_sub(read),
                _ => break,
            }
        }
        self.worker.spares.give(buffer);
    }

    /// Bytes both ways until both sides have ended.
    async fn tunnel(self: Box<Self>, tunnel: Tunnel) {
        let Self {
            worker,
            stream,
            life,
            settings,
            origin,
            route,
            ..
        } = *self;
        let Tunnel {
            upstream,
            lease,
            first,
            mut request,
        } = tunnel;
        let mut relay = Relay::new(
            Rc::clone(&worker.buffers),
            stream,
            upstream,
            first,
            None,
            settings.tcp_idle_timeout,
        );
        let how = relay.run(&life).await;
        drop(lease);
        request.flags.insert(match how {
            How::Clean => Flags::default(),
            How::ClientBroke => Flags::DOWNSTREAM_CLOSED,
            How::UpstreamBroke => Flags::UPSTREAM_CLOSED,
            How::Idle => Flags::IDLE_TIMEOUT,
            How::Cut => Flags::DRAINED,
        });
        let ended = relay.end(how);
        request.received += ended.received;
        request.sent += ended.sent;
        request.report_of(&worker, &origin, &route, &settings);
    }

    /// Takes over what changed in the registry since the last request.
    fn follow(&mut self) {
        let version = self.version;
        let newer = self.worker.with_snapshot(|snapshot| {
            (snapshot.version != version).then(|| (snapshot.version, Arc::clone(&snapshot.settings)))
        });
        let Some((version, settings)) = newer else { return };
        self.version = version;
        self.settings = settings;
        if self.route.follow(&self.worker.snapshot(), &self.origin) {
            return;
        }
        // The address is another service's now, or nobody's. The application may have meant the one before,
        // so that it is to connect anew; but the request goes where the address leads, or nowhere.
        self.stays = false;
        match route::route_http(&self.worker, &self.origin) {
            Some(route) => self.route = route,
            None => self.is_routed = false,
        }
    }

    /// Whose upstream connections it may use.
    fn side(&self) -> Side {
        let direction = self.origin.direction;
        let keeps_source = self.worker.sockets.keeps_source(direction);
        Side {
            direction,
            source: keeps_source.then(|| self.origin.source.ip()),
        }
    }
}
