//! The opaque relay: bytes both ways, exactly, until both sides have ended. Comes in: two connected
//! streams and what was already read. Goes out: byte counts and how it ended.
//!
//! An idle relay holds no buffer. Bytes pass through the worker's one scratch buffer; what a slow sink
//! does not take is kept aside, and nothing more is read until it is gone. A direction that carries
//! bulk borrows a pipe from the worker and splices, so that its bytes never reach user space.

mod leg;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use netsys::sock;
use tokio::net::TcpStream;

use crate::buffers::Buffers;
use crate::life::{Life, Signal};
use crate::sni::Tap;
use leg::{Broke, Leg};

/// How often the side that has ended its stream is looked at while the other one goes on.
const LOOK: Duration = Duration::from_secs(2);
/// How long a client may go on sending what nobody takes any more, so that it reads the answer before it is
/// told: closing over unread bytes resets, and a reset overtakes the answer.
const LINGER: Duration = Duration::from_secs(2);

/// What a relay carried.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Bytes from the client.
    pub(crate) received: u64,
    /// Bytes to the client.
    pub(crate) sent: u64,
    /// Server name of a TLS hello.
    pub(crate) sni: Option<Box<str>>,
}

/// Why a relay ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    /// Both sides ended their stream.
    Clean,
    /// The client's connection broke.
    ClientBroke,
    /// The endpoint's connection broke.
    UpstreamBroke,
    /// Silent too long.
    Idle,
    /// The drain's deadline passed.
    Cut,
}

/// A relay between a client and an endpoint; a future.
pub(crate) struct Relay {
    buffers: Rc<Buffers>,
    client: TcpStream,
    upstream: TcpStream,
    up: Leg,
    down: Leg,
    tap: Option<Box<Tap>>,
    idle: Duration,
    /// How long nothing has moved, as of the last look.
    still: Duration,
    /// The side that broke, while the other one is still to be told all that it said.
    broke: Option<How>,
}

impl Relay {
    /// `first` are bytes that were read from the client already. `tap` looks at the client's first bytes.
    pub(crate) fn new(
        buffers: Rc<Buffers>,
        client: TcpStream,
        upstream: TcpStream,
        first: Box<[u8]>,
        tap: Option<Box<Tap>>,
        idle: Duration,
    ) -> Self {
        Self {
            buffers,
            client,
            upstream,
            up: Leg::beginning_with(first),
            down: Leg::default(),
            tap,
            idle,
            still: Duration::ZERO,
            broke: None,
        }
    }

    /// Runs until both sides ended, one broke, or `life` says so. Then call [`Self::end`].
    pub(crate) async fn run(&mut self, life: &Life) -> How {
        life.expire_in(self.idle);
        RelayFuture { relay: self, life }.await
    }

    /// Whether one side has ended its stream while the other goes on.
    fn has_one_ended(&self) -> bool {
        self.up.is_done() != self.down.is_done()
    }

    /// Whether the client has the whole answer, and goes on sending what nobody takes.
    fn is_lingering(&self) -> bool {
        self.down.is_done() && self.up.is_dropping()
    }

    /// How long until the next look.
    fn patience(&self) -> Duration {
        match self.has_one_ended() {
            true if self.is_lingering() => LINGER,
            true => LOOK.min(self.idle),
            false => self.idle,
        }
    }

    /// Looks, when the time for it has come, whether this is to go on. Of a side that has ended its stream no
    /// byte is awaited, so that its end would else be noticed by nobody.
    fn look(&mut self) -> Option<How> {
        if self.is_lingering() {
            return self.broke;
        }
        self.still += self.patience();
        if self.still >= self.idle {
            Some(How::Idle)
        } else if self.up.is_done() && sock::is_closed(&self.client) {
            Some(How::ClientBroke)
        } else if self.down.is_done() && sock::is_closed(&self.upstream) {
            Some(How::UpstreamBroke)
        } else {
            None
        }
    }

    /// Closes both sides. A connection that did not end cleanly is reset on the other side, so that nobody
    /// takes a broken stream for a whole one.
    pub(crate) fn end(mut self, how: How) -> Ended {
        match how {
            How::Clean => {}
            How::ClientBroke => reset(&self.upstream),
            // One that ended its stream, and then took no more, has said all it had to say.
            How::UpstreamBroke if self.is_lingering() => {}
            How::UpstreamBroke => reset(&self.client),
            How::Idle | How::Cut => {
                reset(&self.client);
                reset(&self.upstream);
            }
        }
        self.up.release(&self.buffers);
        self.down.release(&self.buffers);
        let sni = self.tap.and_then(|tap| tap.into_name());
        Ended {
            received: self.up.bytes,
            sent: self.down.bytes,
            sni,
        }
    }

    /// Moves what the client says; says whether that was all. An error ends the relay.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Result<bool, How> {
        let tap = self.tap.as_deref_mut();
        let polled = self
            .up
            .poll(cx, &mut self.client, &mut self.upstream, &self.buffers, tap);
        match polled {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(Broke::Source)) => Err(self.broke.unwrap_or(How::ClientBroke)),
            // What the endpoint said before it broke is still passed on, down to its end.
            Poll::Ready(Err(Broke::Sink)) => {
                self.broke.get_or_insert(How::UpstreamBroke);
                self.up.give_up(&self.buffers);
                cx.waker().wake_by_ref();
                Ok(false)
            }
        }
    }

    /// Moves what the endpoint says; says whether that was all. An error ends the relay.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Result<bool, How> {
        let polled = self
            .down
            .poll(cx, &mut self.upstream, &mut self.client, &self.buffers, None);
        let ended = match polled {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(Broke::Source)) => return Err(self.broke.unwrap_or(How::UpstreamBroke)),
            Poll::Ready(Err(Broke::Sink)) => {
                let how = *self.broke.get_or_insert(How::ClientBroke);
                self.down.give_up(&self.buffers);
                if self.up.has_ended() {
                    return Err(how);
                }
                cx.waker().wake_by_ref();
                false
            }
        };
        // A stream that ends after its side broke was reset; the write that failed has taken the error away.
        match self.broke {
            Some(how) if self.down.is_to_be_told() => Err(how),
            _ => Ok(ended),
        }
    }

    /// Moves bytes both ways until neither side has more to say; none while either may.
    fn poll_both(&mut self, cx: &mut Context<'_>, life: &Life) -> Option<How> {
        let before = self.up.bytes + self.down.bytes;
        let ended = self.poll_up(cx).and_then(|up| Ok((up, self.poll_down(cx)?)));
        match ended {
            Err(how) => return Some(how),
            // Closing tells both sides; everything from both has been read.
            Ok((true, true)) => return Some(self.broke.unwrap_or(How::Clean)),
            Ok(_) => {}
        }
        let had_ended = self.has_one_ended();
        self.up.tell_end(&self.upstream);
        self.down.tell_end(&self.client);
        if self.up.bytes + self.down.bytes != before {
            self.still = Duration::ZERO;
            life.expire_in(self.patience());
        } else if self.has_one_ended() && !had_ended {
            life.expire_in(self.patience());
        }
        None
    }

    /// Does what `signal` asks for; says how the relay ends where that is what it asks.
    fn heed(&mut self, signal: Signal, life: &Life) -> Option<How> {
        match signal {
            Signal::Cut => return Some(How::Cut),
            Signal::Expired => {
                if let Some(how) = self.look() {
                    return Some(how);
                }
                life.expire_in(self.patience());
            }
            Signal::Settled => {
                // Best effort: a connection that is gone already has nothing to be watched.
                let _ = sock::keep_watch(&self.upstream);
            }
            Signal::Draining => {}
        }
        None
    }
}

/// A reset is best effort: where the option fails the connection is gone already.
fn reset(stream: &TcpStream) {
    let _ = sock::reset_on_close(stream);
}

struct RelayFuture<'a> {
    relay: &'a mut Relay,
    life: &'a Life,
}

impl Future for RelayFuture<'_> {
    type Output = How;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<How> {
        let Self { relay, life } = self.get_mut();
        if let Poll::Ready(signal) = life.poll_signal(cx) {
            if let Some(how) = relay.heed(signal, life) {
                return Poll::Ready(how);
            }
            // There may be another one.
            cx.waker().wake_by_ref();
        }
        relay.poll_both(cx, life).map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests;
