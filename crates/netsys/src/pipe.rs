//! Pipes to move bytes between sockets without copying them through user space.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// A pipe used as a kernel-side buffer, and how many bytes it holds now.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
    capacity: usize,
}

impl Pipe {
    /// A new pipe that holds about `capacity` bytes; the kernel's default size where more is not allowed
    /// (an unprivileged user has 64 MiB in all, `fs.pipe-user-pages-soft`).
    ///
    /// # Errors
    /// Out of descriptors or memory.
    pub fn new(capacity: usize) -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let capacity = fcntl_setpipe_size(&write, capacity).unwrap_or(64 * 1024);
        Ok(Self {
            read,
            write,
            held: 0,
            capacity,
        })
    }

    /// Bytes taken in and not yet given out.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Moves what `source` has ready into the pipe. `Ok(0)` is the source's end.
    ///
    /// # Errors
    /// `WouldBlock` where the source has nothing, or the pipe is full; the source's own errors.
    pub fn fill(&mut self, source: &impl AsFd) -> io::Result<usize> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let moved = splice(source, None, &self.write, None, self.capacity, flags)?;
        self.held += moved;
        Ok(moved)
    }

    /// Moves what the pipe holds to `sink`.
    ///
    /// # Errors
    /// `WouldBlock` where the sink takes nothing now; the sink's own errors.
    pub fn empty(&mut self, sink: &impl AsFd) -> io::Result<usize> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let moved = splice(&self.read, None, sink, None, self.held, flags)?;
        self.held -= moved;
        Ok(moved)
    }
}
