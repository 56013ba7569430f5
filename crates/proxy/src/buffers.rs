//! Buffers that a worker's connections borrow while bytes flow: one scratch buffer, and pipes for bulk.

use std::cell::{RefCell, RefMut};

use netsys::pipe::Pipe;

/// Size of the scratch buffer that all of a worker's connections read into.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Size asked for each pipe.
const PIPE_BYTES: usize = 1024 * 1024;
/// Pipes kept for the next connection that carries bulk.
const PIPES_KEPT: usize = 16;

/// Buffers that connections borrow while bytes flow.
pub(crate) struct Buffers {
    scratch: RefCell<Box<[u8]>>,
    pipes: RefCell<Vec<Pipe>>,
}

impl Buffers {
    pub(crate) fn new() -> Self {
        Self {
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into()),
            pipes: RefCell::default(),
        }
    }

    /// The one scratch buffer; given back before anything is awaited.
    pub(crate) fn scratch(&self) -> RefMut<'_, Box<[u8]>> {
        self.scratch.borrow_mut()
    }

    /// An empty pipe; none where descriptors run out.
    pub(crate) fn take_pipe(&self) -> Option<Pipe> {
        let kept = self.pipes.borrow_mut().pop();
        kept.or_else(|| Pipe::new(PIPE_BYTES).ok())
    }

    /// Gives a pipe back; one that still holds bytes, or one too many, is closed.
    pub(crate) fn give_pipe(&self, pipe: Pipe) {
        let mut pipes = self.pipes.borrow_mut();
        if pipe.held() == 0 && pipes.len() < PIPES_KEPT {
            pipes.push(pipe);
        }
    }
}
