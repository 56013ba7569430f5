//! The opaque relay: bytes both ways, exactly, until both sides have ended. Comes in: two connected
//! streams and what was already read. Goes out: byte counts and how it ended.
//!
//! An idle relay holds no buffer. Bytes pass through the worker's one scratch buffer; what a slow sink
//! does not take is kept aside, and nothing more is read until it is gone. A direction that carries
//! bulk borrows a pipe from the worker and splices, so that its bytes never reach user space.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use netsys::pipe::Pipe;
use netsys::sock;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::life::{Life, Signal};
use crate::sni::Tap;
use crate::worker::Buffers;

/// Reads in a row that fill the scratch buffer before a direction counts as bulk.
const BULK_AFTER: u8 = 2;
/// A splice that moves less than this was not worth its system calls.
const BULK_BYTES: usize = 16 * 1024;
/// Such splices in a row until a direction no longer counts as bulk.
const BULK_FADES: u8 = BULK_AFTER + 4;
/// Turns a direction takes before it lets other connections run.
const TURNS: u32 = 32;
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

/// One direction.
struct Leg {
    /// Read, not yet written.
    kept: Option<Kept>,
    /// Bytes read so far.
    bytes: u64,
    /// Full reads in a row.
    full: u8,
    state: State,
}

enum Kept {
    Bytes { buffer: Box<[u8]>, from: usize },
    Pipe(Pipe),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The source ended; what is kept is still to be written.
    Ending,
    /// The sink takes nothing any more; what the source still says is read and dropped.
    Dropping,
    /// Everything is written; the sink has not been told of the end.
    Written,
    /// The sink has been told.
    Done,
}

/// Which side an error came from.
enum Broke {
    Source,
    Sink,
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
        let mut up = Leg::new();
        if !first.is_empty() {
            up.bytes = first.len() as u64;
            up.kept = Some(Kept::Bytes {
                buffer: first,
                from: 0,
            });
        }
        Self {
            buffers,
            client,
            upstream,
            up,
            down: Leg::new(),
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
        (self.up.state == State::Done) != (self.down.state == State::Done)
    }

    /// Whether the client has the whole answer, and goes on sending what nobody takes.
    fn is_lingering(&self) -> bool {
        self.down.state == State::Done && self.up.state == State::Dropping
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
        } else if self.up.state == State::Done && sock::is_closed(&self.client) {
            Some(How::ClientBroke)
        } else if self.down.state == State::Done && sock::is_closed(&self.upstream) {
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
        let this = self.get_mut();
        if let Poll::Ready(signal) = this.life.poll_signal(cx) {
            match signal {
                Signal::Expired => {
                    if let Some(how) = this.relay.look() {
                        return Poll::Ready(how);
                    }
                    this.life.expire_in(this.relay.patience());
                    cx.waker().wake_by_ref();
                }
                Signal::Cut => return Poll::Ready(How::Cut),
                Signal::Settled => {
                    // Best effort: a connection that is gone already has nothing to be watched.
                    let _ = sock::keep_watch(&this.relay.upstream);
                    cx.waker().wake_by_ref();
                }
                Signal::Draining => cx.waker().wake_by_ref(),
            }
        }
        let relay = &mut *this.relay;
        let before = relay.up.bytes + relay.down.bytes;
        let buffers = &relay.buffers;
        let up = relay.up.poll(
            cx,
            &mut relay.client,
            &mut relay.upstream,
            buffers,
            relay.tap.as_deref_mut(),
        );
        // Where a sink breaks, what came from it before is still passed on, down to its end.
        let up = match up {
            Poll::Ready(Err(Broke::Source)) => return Poll::Ready(relay.broke.unwrap_or(How::ClientBroke)),
            Poll::Ready(Err(Broke::Sink)) => {
                relay.broke.get_or_insert(How::UpstreamBroke);
                relay.up.give_up(buffers);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(Ok(())) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        };
        let down = relay
            .down
            .poll(cx, &mut relay.upstream, &mut relay.client, buffers, None);
        let down = match down {
            Poll::Ready(Err(Broke::Source)) => return Poll::Ready(relay.broke.unwrap_or(How::UpstreamBroke)),
            Poll::Ready(Err(Broke::Sink)) => {
                let how = *relay.broke.get_or_insert(How::ClientBroke);
                relay.down.give_up(buffers);
                if relay.up.has_ended() {
                    return Poll::Ready(how);
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(Ok(())) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        };
        // A stream that ends after its side broke was reset; the write that failed has taken the error away.
        if let (Some(how), true) = (relay.broke, relay.down.state == State::Written) {
            return Poll::Ready(how);
        }
        if up.is_ready() && down.is_ready() {
            // Closing tells both sides; everything from both has been read.
            return Poll::Ready(relay.broke.unwrap_or(How::Clean));
        }
        let had_ended = relay.has_one_ended();
        relay.up.tell_end(&relay.upstream);
        relay.down.tell_end(&relay.client);
        if relay.up.bytes + relay.down.bytes != before {
            relay.still = Duration::ZERO;
            this.life.expire_in(relay.patience());
        } else if relay.has_one_ended() && !had_ended {
            this.life.expire_in(relay.patience());
        }
        Poll::Pending
    }
}

impl Leg {
    fn new() -> Self {
        Self {
            kept: None,
            bytes: 0,
            full: 0,
            state: State::Open,
        }
    }

    /// Passes on the source's end, once.
    fn tell_end(&mut self, sink: &TcpStream) {
        if self.state == State::Written {
            // A sink that is gone already has nothing left to be told.
            let _ = SockRef::from(sink).shutdown(std::net::Shutdown::Write);
            self.state = State::Done;
        }
    }

    /// Whether nothing more is to come of it.
    fn has_ended(&self) -> bool {
        matches!(self.state, State::Written | State::Done)
    }

    /// The sink broke.
    fn give_up(&mut self, buffers: &Buffers) {
        self.release(buffers);
        self.state = match self.state {
            State::Open | State::Dropping => State::Dropping,
            State::Ending | State::Written | State::Done => State::Done,
        };
    }

    fn release(&mut self, buffers: &Buffers) {
        if let Some(Kept::Pipe(pipe)) = self.kept.take() {
            buffers.give_pipe(pipe);
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut TcpStream,
        sink: &mut TcpStream,
        buffers: &Buffers,
        mut tap: Option<&mut Tap>,
    ) -> Poll<Result<(), Broke>> {
        for _ in 0..TURNS {
            if self.kept.is_some() {
                ready!(self.poll_write_kept(cx, sink, buffers)).map_err(|_| Broke::Sink)?;
            }
            match self.state {
                State::Written | State::Done => return Poll::Ready(Ok(())),
                State::Ending => {
                    self.state = State::Written;
                    return Poll::Ready(Ok(()));
                }
                State::Dropping => {
                    let mut scratch = buffers.scratch();
                    let mut buffer = ReadBuf::new(&mut scratch);
                    ready!(Pin::new(&mut *source).poll_read(cx, &mut buffer)).map_err(|_| Broke::Source)?;
                    if buffer.filled().is_empty() {
                        self.state = State::Done;
                    }
                    continue;
                }
                State::Open => {}
            }
            if self.full >= BULK_AFTER && tap.as_ref().is_none_or(|tap| tap.is_done()) {
                ready!(self.poll_fill_pipe(cx, source, buffers)).map_err(|_| Broke::Source)?;
            } else {
                ready!(self.poll_copy(cx, source, sink, buffers, tap.as_deref_mut()))?;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads into the scratch buffer and writes at once; keeps what was not taken.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut TcpStream,
        sink: &mut TcpStream,
        buffers: &Buffers,
        tap: Option<&mut Tap>,
    ) -> Poll<Result<(), Broke>> {
        let mut scratch = buffers.scratch();
        let mut buffer = ReadBuf::new(&mut scratch);
        ready!(Pin::new(source).poll_read(cx, &mut buffer)).map_err(|_| Broke::Source)?;
        let whole = buffer.remaining() == 0;
        let read = buffer.filled();
        if read.is_empty() {
            self.state = State::Ending;
            return Poll::Ready(Ok(()));
        }
        self.bytes += read.len() as u64;
        self.full = if whole { self.full.saturating_add(1) } else { 0 };
        if let Some(tap) = tap {
            tap.see(read);
        }
        let written = match Pin::new(sink).poll_write(cx, read) {
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Broke::Sink)),
            Poll::Pending => 0,
        };
        if written < read.len() {
            self.kept = Some(Kept::Bytes {
                buffer: read[written..].into(),
                from: 0,
            });
        }
        Poll::Ready(Ok(()))
    }

    /// Splices what the source has into a borrowed pipe.
    fn poll_fill_pipe(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        buffers: &Buffers,
    ) -> Poll<io::Result<()>> {
        ready!(source.poll_read_ready(cx))?;
        let Some(mut pipe) = buffers.take_pipe() else {
            self.full = 0;
            return Poll::Ready(Ok(()));
        };
        match source.try_io(Interest::READABLE, || pipe.fill(source)) {
            Ok(0) => {
                buffers.give_pipe(pipe);
                self.state = State::Ending;
            }
            Ok(moved) => {
                self.bytes += moved as u64;
                let is_bulk = moved >= BULK_BYTES;
                self.full = if is_bulk { BULK_FADES } else { self.full - 1 };
                self.kept = Some(Kept::Pipe(pipe));
            }
            Err(error) => {
                buffers.give_pipe(pipe);
                if error.kind() != io::ErrorKind::WouldBlock {
                    return Poll::Ready(Err(error));
                }
                // Registers for the next bytes: readiness was cleared, so this is pending unless more came.
                ready!(source.poll_read_ready(cx))?;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_kept(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut TcpStream,
        buffers: &Buffers,
    ) -> Poll<io::Result<()>> {
        while let Some(kept) = self.kept.as_mut() {
            let is_empty = match kept {
                Kept::Bytes { buffer, from } => {
                    *from += ready!(Pin::new(&mut *sink).poll_write(cx, &buffer[*from..]))?;
                    *from == buffer.len()
                }
                Kept::Pipe(pipe) => {
                    ready!(sink.poll_write_ready(cx))?;
                    match sink.try_io(Interest::WRITABLE, || pipe.empty(sink)) {
                        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                            return Poll::Ready(Err(error));
                        }
                        _ => pipe.held() == 0,
                    }
                }
            };
            if is_empty && let Some(Kept::Pipe(pipe)) = self.kept.take() {
                buffers.give_pipe(pipe);
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
