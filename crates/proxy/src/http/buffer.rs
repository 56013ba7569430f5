//! Buffers that connections borrow from their worker while bytes flow. An idle connection has none.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use crate::http1::HEAD_MAX;

/// Room kept before a head, so that what is put into it needs no copy of what follows.
const HEADROOM: usize = 256;
/// Size of a buffer as it is borrowed: heads, and bodies of ordinary size.
const SMALL_BYTES: usize = 16 * 1024;
/// Size of the buffer that a large body passes through.
pub(super) const LARGE_BYTES: usize = 128 * 1024;
/// The largest head fits, with what is put into it.
const LARGEST_BYTES: usize = HEAD_MAX + 2 * HEADROOM;
/// Less spare room than this, and a read would be too small to be worth its call.
const SPARE_MIN: usize = 4 * 1024;
/// Unused buffers of each size that a worker keeps.
const SMALL_KEPT: usize = 64;
const LARGE_KEPT: usize = 16;

/// Bytes read and not yet consumed: `bytes[start..end]`.
#[derive(Debug)]
pub(super) struct Buffer {
    pub(super) bytes: Vec<u8>,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Buffer {
    fn new(size: usize) -> Self {
        Self {
            bytes: vec![0; size],
            start: HEADROOM,
            end: HEADROOM,
        }
    }

    /// Bytes read and not consumed.
    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Puts bytes behind those there are.
    pub(super) fn append(&mut self, more: &[u8]) {
        if self.bytes.len() < self.end + more.len() {
            self.bytes.resize(self.end + more.len(), 0);
        }
        self.bytes[self.end..self.end + more.len()].copy_from_slice(more);
        self.end += more.len();
    }

    /// Reads once; answers how many bytes came, 0 at the end of the stream. There must be spare room.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
    ) -> Poll<io::Result<usize>> {
        let mut spare = ReadBuf::new(&mut self.bytes[self.end..]);
        ready!(Pin::new(from).poll_read(cx, &mut spare))?;
        let read = spare.filled().len();
        self.end += read;
        Poll::Ready(Ok(read))
    }

    /// Whether a read would be worth its call.
    pub(super) fn has_spare(&self) -> bool {
        self.bytes.len() - self.end >= SPARE_MIN
    }

    /// Makes room for more of a head. What is kept moves; the answer is whether there is room now.
    pub(super) fn make_room(&mut self) -> bool {
        if !self.has_spare() {
            self.keep_from(self.start);
            if !self.has_spare() && self.bytes.len() < LARGEST_BYTES {
                let size = (self.bytes.len() * 2).min(LARGEST_BYTES);
                self.bytes.resize(size, 0);
            }
        }
        self.end < self.bytes.len()
    }

    /// Forgets all before `from`, and moves what is left to the front.
    pub(super) fn keep_from(&mut self, from: usize) {
        self.bytes.copy_within(from..self.end, HEADROOM);
        self.end = HEADROOM + (self.end - from);
        self.start = HEADROOM;
    }

    /// Makes room for `more` bytes before `start`, in the rare case that the headroom is too small.
    pub(super) fn widen(&mut self, more: usize) {
        self.bytes.splice(0..0, std::iter::repeat_n(0, more));
        self.start += more;
        self.end += more;
    }

    fn reset(&mut self) {
        self.start = HEADROOM;
        self.end = HEADROOM;
    }
}

/// One worker's unused buffers.
#[derive(Debug, Default)]
pub(crate) struct Spares {
    small: RefCell<Vec<Buffer>>,
    large: RefCell<Vec<Buffer>>,
}

impl Spares {
    /// An empty buffer for heads.
    pub(super) fn take(&self) -> Buffer {
        let spare = self.small.borrow_mut().pop();
        spare.unwrap_or_else(|| Buffer::new(SMALL_BYTES))
    }

    /// An empty buffer for a large body.
    pub(super) fn take_large(&self) -> Buffer {
        let spare = self.large.borrow_mut().pop();
        spare.unwrap_or_else(|| Buffer::new(LARGE_BYTES))
    }

    /// Gives one back; what it holds is forgotten. One that has grown, or is one too many, is freed.
    pub(super) fn give(&self, mut buffer: Buffer) {
        let (spares, most) = match buffer.bytes.len() {
            SMALL_BYTES => (&self.small, SMALL_KEPT),
            LARGE_BYTES => (&self.large, LARGE_KEPT),
            _ => return,
        };
        let mut spares = spares.borrow_mut();
        if spares.len() < most {
            buffer.reset();
            spares.push(buffer);
        }
    }
}
