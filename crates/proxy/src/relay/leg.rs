//! One direction of a relay: reads its source, writes its sink, keeps what a slow sink does not take, and
//! splices through a borrowed pipe while it carries bulk.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use netsys::pipe::Pipe;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::buffers::Buffers;
use crate::sni::Tap;

/// Reads in a row that fill the scratch buffer before a direction counts as bulk.
const BULK_AFTER: u8 = 2;
/// A splice that moves less than this was not worth its system calls.
const BULK_BYTES: usize = 16 * 1024;
/// Such splices in a row until a direction no longer counts as bulk.
const BULK_FADES: u8 = BULK_AFTER + 4;
/// Turns a direction takes before it lets other connections run.
const TURNS: u32 = 32;

/// One direction.
#[derive(Default)]
pub(super) struct Leg {
    /// Read, not yet written.
    kept: Option<Kept>,
    /// Bytes read so far.
    pub(super) bytes: u64,
    /// Full reads in a row.
    full: u8,
    state: State,
}

enum Kept {
    Bytes { buffer: Box<[u8]>, from: usize },
    Pipe(Pipe),
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
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
pub(super) enum Broke {
    Source,
    Sink,
}

impl Leg {
    /// A direction of which these bytes were read already.
    pub(super) fn beginning_with(first: Box<[u8]>) -> Self {
        Self {
            bytes: first.len() as u64,
            kept: (!first.is_empty()).then_some(Kept::Bytes {
                buffer: first,
                from: 0,
            }),
            ..Self::default()
        }
    }

    /// Whether the sink has been told of the end.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the sink is still to be told of the end.
    pub(super) fn is_to_be_told(&self) -> bool {
        self.state == State::Written
    }

    /// Whether the source goes on and nobody takes what it says.
    pub(super) fn is_dropping(&self) -> bool {
        self.state == State::Dropping
    }

    /// Passes on the source's end, once.
    pub(super) fn tell_end(&mut self, sink: &TcpStream) {
        if self.state == State::Written {
            // A sink that is gone already has nothing left to be told.
            let _ = SockRef::from(sink).shutdown(std::net::Shutdown::Write);
            self.state = State::Done;
        }
    }

    /// Whether nothing more is to come of it.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, State::Written | State::Done)
    }

    /// The sink broke.
    pub(super) fn give_up(&mut self, buffers: &Buffers) {
        self.release(buffers);
        self.state = match self.state {
            State::Open | State::Dropping => State::Dropping,
            State::Ending | State::Written | State::Done => State::Done,
        };
    }

    pub(super) fn release(&mut self, buffers: &Buffers) {
        if let Some(Kept::Pipe(pipe)) = self.kept.take() {
            buffers.give_pipe(pipe);
        }
    }

    pub(super) fn poll(
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
