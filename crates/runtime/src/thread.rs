//! Threads that each run one single-threaded tokio runtime: the control thread, discovery, workers.
//! Comes in: a name and a factory of the thread's future, which need not be `Send`. Goes out: a
//! [`Handle`] that is joined on drain.

use std::any::Any;
use std::future::Future;
use std::{io, thread};

use tokio::sync::oneshot;

/// Why a thread has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The thread or its runtime could not be made.
    #[error("thread {name} did not start; look at the limits on processes and open files (ulimit -u, -n)")]
    Start {
        /// The thread.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The thread panicked: a bug. The panic itself is on standard error.
    #[error("thread {name} panicked: {message}; please report this")]
    Panicked {
        /// The thread.
        name: String,
        /// What it said.
        message: String,
    },
}

/// A running thread and its result to come.
#[derive(Debug)]
pub struct Handle<T> {
    name: String,
    thread: thread::JoinHandle<T>,
    /// Closes when the thread ends, whichever way.
    ended: oneshot::Receiver<()>,
}

/// Runs the future that `make` returns on a thread of its own, with a runtime and a task set of its
/// own: `tokio::task::spawn_local` works inside. The runtime ends with the future; tasks that it left
/// behind are dropped.
///
/// # Errors
/// Where the thread or the runtime cannot be made.
pub fn spawn<T, F>(name: &str, make: impl FnOnce() -> F + Send + 'static) -> Result<Handle<T>, Error>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let start_error = |source| Error::Start {
        name: name.to_owned(),
        source,
    };
    // Built here, so that its failure is the caller's to hear, and moved into the thread.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(start_error)?;
    let (end, ended) = oneshot::channel();
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let _end: oneshot::Sender<()> = end;
            let tasks = tokio::task::LocalSet::new();
            tasks.block_on(&runtime, async { make().await })
        })
        .map_err(start_error)?;
    Ok(Handle {
        name: name.to_owned(),
        thread,
        ended,
    })
}

impl<T> Handle<T> {
    /// Resolves when the thread has ended or is about to; the result is then taken by [`Self::join`].
    pub async fn ended(&mut self) {
        // A closed channel is the signal; nothing is ever sent.
        let _ = (&mut self.ended).await;
    }

    /// Blocks until the thread has ended and takes its result.
    ///
    /// # Errors
    /// Where the thread panicked.
    pub fn join(self) -> Result<T, Error> {
        let name = self.name;
        self.thread.join().map_err(|panic| Error::Panicked {
            name,
            message: panic_message(panic.as_ref()).to_owned(),
        })
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[tokio::test]
    async fn runs_local_tasks_and_gives_the_result() {
        let mut handle = spawn("test", || async {
            let number = Rc::new(41);
            let task = tokio::task::spawn_local({
                let number = Rc::clone(&number);
                async move { *number + 1 }
            });
            task.await.unwrap()
        })
        .unwrap();
        handle.ended().await;
        assert_eq!(handle.join().unwrap(), 42);
    }

    #[test]
    fn a_panic_names_the_thread() {
        let handle = spawn("worker 3", || async { panic!("lost its marbles") }).unwrap();
        let error = Handle::<()>::join(handle).unwrap_err();
        assert_eq!(
            error.to_string(),
            "thread worker 3 panicked: lost its marbles; please report this"
        );
    }
}
