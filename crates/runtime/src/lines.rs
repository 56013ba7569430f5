//! Writes lines (the access log) without ever making a worker wait. Each worker appends to a buffer
//! of its own; one thread takes what is there and writes it. What does not fit is dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use crate::metrics::Counter;

/// Bytes that may wait in one worker's buffer before further lines are dropped.
pub const MOST_WAITING_BYTES: usize = 1 << 20;
/// Bytes in a buffer that wake the writer before its time.
const WAKE_BYTES: usize = 64 << 10;
/// How long the writer gathers after the first line: one write then carries many lines.
const GATHER: Duration = Duration::from_millis(20);

/// Where lines go. Clones are the same place.
#[derive(Clone, Debug)]
pub struct Lines(Arc<Shared>);

/// One worker's end. Lines of one buffer stay in order; those of several are interleaved.
#[derive(Debug)]
pub struct Buffer {
    shared: Arc<Shared>,
    waiting: Arc<Mutex<Vec<u8>>>,
}

/// The writer's thread.
#[derive(Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    ended: mpsc::Receiver<()>,
}

#[derive(Debug)]
struct Shared {
    buffers: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    /// There are lines that the writer has not been told of otherwise.
    pending: AtomicBool,
    stopping: AtomicBool,
    writer: Mutex<Option<thread::Thread>>,
    dropped: Counter,
}

/// Standard output, as a place for [`start`].
///
/// # Errors
/// Where standard output is closed.
pub fn stdout() -> io::Result<File> {
    // Not `io::stdout`: its own buffer and lock would only stand in the way.
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

/// A file, appended to and made where missing, as a place for [`start`].
///
/// # Errors
/// Where it cannot be opened.
pub fn file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Starts the writer. `dropped` counts the lines that were lost, to a full buffer or a failed write.
///
/// # Errors
/// Where the thread cannot be made.
pub fn start(to: impl Write + Send + 'static, dropped: Counter) -> io::Result<(Lines, Handle)> {
    let shared = Arc::new(Shared {
        buffers: Mutex::default(),
        pending: AtomicBool::new(false),
        stopping: AtomicBool::new(false),
        writer: Mutex::default(),
        dropped,
    });
    let (end, ended) = mpsc::channel::<()>();
    let thread = thread::Builder::new().name("lines".to_owned()).spawn({
        let shared = Arc::clone(&shared);
        move || {
            let _end = end;
            write_until_stopped(&shared, to);
        }
    })?;
    *lock(&shared.writer) = Some(thread.thread().clone());
    Ok((Lines(Arc::clone(&shared)), Handle { shared, ended }))
}

impl Lines {
    /// A buffer for one worker.
    #[must_use]
    pub fn buffer(&self) -> Buffer {
        let waiting = Arc::default();
        lock(&self.0.buffers).push(Arc::clone(&waiting));
        Buffer {
            shared: Arc::clone(&self.0),
            waiting,
        }
    }
}

impl Buffer {
    /// Adds what `write` appends: whole lines, each with its line feed. The lock is shared only with
    /// the writer, which holds it for as long as it takes to swap two vectors.
    pub fn push(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut waiting = lock(&self.waiting);
        let before = waiting.len();
        if before >= MOST_WAITING_BYTES {
            self.shared.dropped.inc();
            return;
        }
        write(&mut waiting);
        let after = waiting.len();
        drop(waiting);
        let first = !self.shared.pending.swap(true, Ordering::AcqRel);
        if first || before < WAKE_BYTES && after >= WAKE_BYTES {
            self.shared.wake();
        }
    }
}

impl Handle {
    /// Writes out what is waiting and ends the thread; call it when the workers have ended. Says
    /// whether that was done in time: a reader of standard output that has stalled could hold it up.
    #[must_use]
    pub fn finish(self, within: Duration) -> bool {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.wake();
        // Nothing is ever sent: the channel closes when the thread ends.
        self.ended.recv_timeout(within) == Err(mpsc::RecvTimeoutError::Disconnected)
    }
}

impl Shared {
    fn wake(&self) {
        if let Some(thread) = lock(&self.writer).as_ref() {
            thread.unpark();
        }
    }
}

fn write_until_stopped(shared: &Shared, mut to: impl Write) {
    let mut spare = Vec::new();
    let mut failing = false;
    loop {
        while !shared.pending.load(Ordering::Acquire) && !shared.stopping.load(Ordering::Acquire) {
            thread::park();
        }
        let last_round = shared.stopping.load(Ordering::Acquire);
        if !last_round {
            thread::park_timeout(GATHER);
        }
        // Before the buffers are taken, so that a line pushed meanwhile is either taken or tells again.
        shared.pending.store(false, Ordering::Release);
        for buffer in take_buffers(shared) {
            std::mem::swap(&mut *lock(&buffer), &mut spare);
            match to.write_all(&spare) {
                Ok(()) => failing = false,
                Err(error) => {
                    let lines = spare.iter().filter(|byte| **byte == b'\n').count();
                    shared.dropped.inc_by(lines as u64);
                    if !failing {
                        tracing::warn!(see = "WEIR-ACCESS-LOG", %error, "the access log cannot be written; lines are lost until it can");
                    }
                    failing = true;
                }
            }
            spare.clear();
            spare.shrink_to(WAKE_BYTES);
        }
        if last_round {
            return;
        }
    }
}

/// All buffers; those that are empty and whose worker has gone are forgotten.
fn take_buffers(shared: &Shared) -> Vec<Arc<Mutex<Vec<u8>>>> {
    let mut buffers = lock(&shared.buffers);
    buffers.retain(|buffer| Arc::strong_count(buffer) > 1 || !lock(buffer).is_empty());
    buffers.clone()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn every_line_of_every_worker_arrives_whole_and_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let dropped = Counter::default();
        let (lines, handle) = start(file(&path).unwrap(), dropped.clone()).unwrap();
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                let buffer = lines.buffer();
                thread::spawn(move || {
                    for number in 0..2000 {
                        buffer.push(|out| writeln!(out, "{worker} {number}").unwrap());
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        assert!(handle.finish(LONG));
        let text = fs::read_to_string(&path).unwrap();
        for worker in 0..3 {
            let of_worker = text
                .lines()
                .filter_map(|line| line.strip_prefix(&format!("{worker} ")));
            assert!(of_worker.map(|number| number.parse::<u32>().unwrap()).eq(0..2000));
        }
        assert_eq!(dropped.total(), 0);
    }

    #[test]
    fn idle_lines_are_written_without_being_asked_for() {
        let (mut read, write) = io::pipe().unwrap();
        let (lines, _handle) = start(write, Counter::default()).unwrap();
        lines.buffer().push(|out| out.extend(b"one\n"));
        let mut got = [0; 4];
        io::Read::read_exact(&mut read, &mut got).unwrap();
        assert_eq!(&got, b"one\n");
    }

    #[test]
    fn a_stalled_reader_costs_lines_and_not_the_worker() {
        // Nobody reads the pipe.
        let (read, write) = io::pipe().unwrap();
        let dropped = Counter::default();
        let (lines, handle) = start(write, dropped.clone()).unwrap();
        let buffer = lines.buffer();
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        for _ in 0..5000 {
            buffer.push(|out| out.extend(&line));
        }
        assert!(dropped.total() >= 2000, "{}", dropped.total());
        assert!(!handle.finish(Duration::from_millis(1)));
        drop(read);
    }
}
