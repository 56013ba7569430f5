//! One message on its way: the head as edited, then the body as it comes. Bytes are checked before they
//! are written, written before more are read, and never more than one buffer of them is held.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use crate::http1::{Body, Edits, Malformed, Span};

use super::buffer::{Buffer, LARGE_BYTES, Spares};

/// A body longer than this passes through a large buffer.
pub(super) const LARGE_BODY: u64 = 32 * 1024;

/// Why a message did not get through.
#[derive(Debug)]
pub(super) enum Broke {
    /// Reading failed.
    Source,
    /// The stream ended before the message did.
    Short,
    /// The body is not what its framing says.
    Malformed(Malformed),
    /// Writing failed.
    Sink,
}

/// Where a message stands in its buffer: `first..next` is written, `next..checked` may be, and from
/// there to the buffer's end is what is not checked yet or belongs to the next message.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) body: Body,
    first: usize,
    next: usize,
    checked: usize,
    /// Bytes of the head, as it is sent.
    head: usize,
    /// Bytes of the message that have left the buffer.
    gone: u64,
    /// Most bytes of body that are kept for sending again; none once that is given up.
    keep: Option<usize>,
}

impl Flow {
    /// A message whose head stands at `head` within the filled part of `buffer`. The head is edited
    /// in place, and what there is of the body is checked.
    ///
    /// # Errors
    /// Where what there is of the body is malformed.
    pub(super) fn new(
        buffer: &mut Buffer,
        head: &Range<usize>,
        start_line: Span,
        edits: &Edits,
        body: Body,
        keep: Option<usize>,
    ) -> Result<Self, Malformed> {
        let mut first = edits.apply(&mut buffer.bytes, buffer.start, head, start_line);
        if first.is_none() {
            buffer.widen(edits.length(head, start_line));
            first = edits.apply(&mut buffer.bytes, buffer.start, head, start_line);
        }
        let body_start = buffer.start + head.end;
        let first = first.unwrap_or(body_start);
        let mut flow = Self {
            body,
            first,
            next: first,
            checked: body_start,
            head: body_start - first,
            gone: 0,
            keep,
        };
        flow.check(buffer)?;
        Ok(flow)
    }

    /// Whether the buffer holds nothing behind the message. Asked when it is done.
    pub(super) fn ends_buffer(&self, buffer: &Buffer) -> bool {
        self.checked == buffer.end
    }

    /// Bytes of the body written so far, chunk framing included.
    pub(super) fn body_bytes(&self) -> u64 {
        (self.gone + (self.next - self.first) as u64).saturating_sub(self.head as u64)
    }

    /// Whether a byte of it has been written.
    pub(super) fn has_begun(&self) -> bool {
        self.gone > 0 || self.next > self.first
    }

    /// Whether it could be sent once more from its first byte.
    pub(super) fn is_kept(&self) -> bool {
        self.gone == 0
    }

    /// Starts over, for another endpoint. Only if [`Self::is_kept`].
    pub(super) fn rewind(&mut self) {
        self.next = self.first;
    }

    /// Leaves in the buffer only what follows the message. Asked when it is done.
    pub(super) fn release(&self, buffer: &mut Buffer) {
        buffer.start = self.checked;
        if buffer.is_empty() {
            buffer.keep_from(buffer.end);
        }
    }

    /// Moves the message on from `source` to `sink` until it is done.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Buffer,
        spares: &Spares,
        source: &mut TcpStream,
        sink: &mut TcpStream,
    ) -> Poll<Result<(), Broke>> {
        loop {
            ready!(self.poll_write(cx, buffer, sink)).map_err(|_| Broke::Sink)?;
            if self.body.is_done() {
                return Poll::Ready(Ok(()));
            }
            self.make_room(buffer, spares);
            match ready!(buffer.poll_fill(cx, source)) {
                Err(_) => return Poll::Ready(Err(Broke::Source)),
                Ok(0) if self.body == Body::UntilClose => self.body = Body::Done,
                Ok(0) => return Poll::Ready(Err(Broke::Short)),
                Ok(_) => self.check(buffer).map_err(Broke::Malformed)?,
            }
        }
    }

    /// Writes what may be written.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &Buffer,
        sink: &mut TcpStream,
    ) -> Poll<io::Result<()>> {
        while self.next < self.checked {
            let written =
                ready!(Pin::new(&mut *sink).poll_write(cx, &buffer.bytes[self.next..self.checked]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.next += written;
        }
        Poll::Ready(Ok(()))
    }

    fn check(&mut self, buffer: &Buffer) -> Result<(), Malformed> {
        self.checked += self.body.advance(&buffer.bytes[self.checked..buffer.end])?;
        Ok(())
    }

    /// Makes room for more of the body. All that may be written is written by now.
    fn make_room(&mut self, buffer: &mut Buffer, spares: &Spares) {
        if let Some(most) = self.keep {
            if buffer.has_spare() {
                return;
            }
            if self.checked - self.first - self.head < most {
                let size = buffer.bytes.len() * 2;
                buffer.bytes.resize(size, 0);
                return;
            }
            self.keep = None;
        }
        let is_large = self.body.unread().is_none_or(|left| left > LARGE_BODY);
        if is_large && buffer.bytes.len() < LARGE_BYTES {
            let mut large = spares.take_large();
            large.append(&buffer.bytes[self.checked..buffer.end]);
            spares.give(std::mem::replace(buffer, large));
        } else {
            buffer.keep_from(self.checked);
        }
        self.gone += (self.next - self.first) as u64;
        self.first = buffer.start;
        self.next = buffer.start;
        self.checked = buffer.start;
    }
}
