//! The lives of a worker's connections: how many there are, when each is to be cut, and the one sweep a
//! second that cuts them. A connection that is idle costs no timer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::sync::Notify;

/// What a connection is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Signal {
    /// It has lived for more than a moment. Said once.
    Settled,
    /// Its own deadline passed: it should end.
    Expired,
    /// The proxy drains: end when nothing is under way.
    Draining,
    /// The drain's deadline passed: end now.
    Cut,
}

/// Sweeps after which a connection has lived for more than a moment: one whole interval at least.
const SETTLED_AFTER: u8 = 2;
/// Never expires.
const NEVER: u32 = u32::MAX;

#[derive(Debug)]
struct Entry {
    /// On the scale of [`Lives::seconds`].
    deadline: Cell<u32>,
    signal: Cell<Option<Signal>>,
    /// Sweeps that it has seen, up to [`SETTLED_AFTER`].
    age: Cell<u8>,
    waker: RefCell<Option<Waker>>,
}

impl Entry {
    fn send(&self, signal: Signal) {
        // The later ones are the stronger ones.
        if self.signal.get().is_none_or(|waiting| waiting < signal) {
            self.signal.set(Some(signal));
        }
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

/// All connections of one worker.
#[derive(Debug)]
pub(crate) struct Lives {
    entries: RefCell<Slab<Rc<Entry>>>,
    started: Instant,
    /// Seconds since the start, as of the last sweep: reading it costs no look at the clock.
    seconds: Cell<u32>,
    draining: Cell<bool>,
    /// Connections that wait for their next request.
    waiting: Cell<usize>,
    /// Connections so far.
    connections: Cell<u64>,
    /// How often a connection or a request began.
    begun: Cell<u64>,
    /// Notified when a connection ends.
    pub(crate) ended: Notify,
}

impl Lives {
    pub(crate) fn new() -> Self {
        Self {
            entries: RefCell::default(),
            started: Instant::now(),
            seconds: Cell::new(0),
            draining: Cell::new(false),
            waiting: Cell::new(0),
            connections: Cell::new(0),
            begun: Cell::new(0),
            ended: Notify::new(),
        }
    }

    /// Connections now.
    pub(crate) fn count(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Connections that do something now, which waiting for another request is not.
    pub(crate) fn busy(&self) -> usize {
        self.count().saturating_sub(self.waiting.get())
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.get()
    }

    /// Grows whenever a connection or a request begins.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// A connection begins.
    pub(crate) fn begin(self: &Rc<Self>) -> Life {
        self.begun.set(self.begun.get() + 1);
        self.connections.set(self.connections.get() + 1);
        let entry = Rc::new(Entry {
            deadline: Cell::new(NEVER),
            signal: Cell::new(self.draining.get().then_some(Signal::Draining)),
            age: Cell::new(0),
            waker: RefCell::default(),
        });
        let key = self.entries.borrow_mut().insert(Rc::clone(&entry));
        Life {
            lives: Rc::clone(self),
            entry,
            key,
        }
    }

    /// Tells every connection whose deadline passed, and those that have settled. Called once a second.
    pub(crate) fn sweep(&self) {
        let now = u32::try_from(self.started.elapsed().as_secs()).unwrap_or(NEVER - 1);
        self.seconds.set(now);
        for (_, entry) in self.entries.borrow().iter() {
            if entry.deadline.get() <= now {
                entry.send(Signal::Expired);
            }
            let age = entry.age.get();
            if age < SETTLED_AFTER {
                entry.age.set(age + 1);
                if age + 1 == SETTLED_AFTER {
                    entry.send(Signal::Settled);
                }
            }
        }
    }

    /// Tells every connection that the proxy drains; those that begin later are told at once.
    pub(crate) fn drain(&self) {
        self.draining.set(true);
        self.tell(Signal::Draining);
    }

    /// Tells every connection to end now.
    pub(crate) fn cut(&self) {
        self.tell(Signal::Cut);
    }

    fn tell(&self, signal: Signal) {
        for (_, entry) in self.entries.borrow().iter() {
            entry.send(signal);
        }
    }
}

/// One connection's place among the [`Lives`]; leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Life {
    lives: Rc<Lives>,
    entry: Rc<Entry>,
    key: usize,
}

impl Life {
    /// Expires in about `time` (whole seconds, never early) unless moved before.
    pub(crate) fn expire_in(&self, time: Duration) {
        // What was said of the deadline before is not true any more.
        if self.entry.signal.get() == Some(Signal::Expired) {
            self.entry.signal.set(None);
        }
        let seconds = u32::try_from(time.as_secs()).unwrap_or(NEVER);
        self.entry
            .deadline
            .set(self.lives.seconds.get().saturating_add(seconds).saturating_add(1));
    }

    /// While this lives the connection waits for its next request.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.lives.waiting.set(self.lives.waiting.get() + 1);
        Waiting(&self.lives)
    }

    /// Whether the proxy drains.
    pub(crate) fn is_draining(&self) -> bool {
        self.lives.draining.get()
    }

    /// Ready when the connection is told something; a signal is given once.
    pub(crate) fn poll_signal(&self, cx: &mut Context<'_>) -> Poll<Signal> {
        if let Some(signal) = self.entry.signal.take() {
            return Poll::Ready(signal);
        }
        let mut waker = self.entry.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// A connection that waits for its next request.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a Lives);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
        self.0.begun.set(self.0.begun.get() + 1);
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.lives.entries.borrow_mut().remove(self.key);
        // All who wait: one of the listeners may have nobody to accept.
        self.lives.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn all_who_wait_for_a_place_look_again_when_one_is_free() {
        let lives = Rc::new(Lives::new());
        let life = lives.begin();
        let (one, other) = (lives.ended.notified(), lives.ended.notified());
        tokio::pin!(one, other);
        for waiting in [one.as_mut(), other.as_mut()] {
            assert!(!waiting.enable());
        }
        drop(life);
        tokio::join!(one, other);
    }

    #[tokio::test]
    async fn a_deadline_that_was_moved_has_not_passed() {
        let lives = Rc::new(Lives::new());
        let life = lives.begin();
        life.entry.deadline.set(0);
        lives.sweep();
        life.expire_in(Duration::from_secs(3600));
        lives.cut();
        let told = poll_fn(|cx| life.poll_signal(cx)).await;
        assert_eq!(told, Signal::Cut);
        let nothing = poll_fn(|cx| Poll::Ready(life.poll_signal(cx).is_pending())).await;
        assert!(nothing);

        life.entry.deadline.set(0);
        lives.sweep();
        life.expire_in(Duration::from_secs(3600));
        let nothing = poll_fn(|cx| Poll::Ready(life.poll_signal(cx).is_pending())).await;
        assert!(nothing, "a deadline of before");
    }
}
