//! A tap: what happens is told to whoever listens at the time. Comes in: values, from any thread. Goes out: a
//! channel for each listener. While nobody listens it costs one look at an atomic, and nothing is built.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

/// Listeners at most: whoever forgot to go must not slow the rest down.
const MOST_LISTENERS: usize = 4;

/// Clones are the same tap. Its listeners' channels end when the last clone is gone.
#[derive(Debug)]
pub struct Tap<T>(Arc<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    /// How many there are, read without the lock.
    count: AtomicUsize,
    listeners: Mutex<Vec<Listener<T>>>,
}

#[derive(Debug)]
struct Listener<T> {
    sender: mpsc::Sender<T>,
    lost: Lost,
}

/// Counts what a listener was too slow for.
#[derive(Clone, Debug, Default)]
pub struct Lost(Arc<AtomicU64>);

impl Lost {
    /// How many since it was last asked.
    #[must_use]
    pub fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

impl<T> Clone for Tap<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Tap<T> {
    fn default() -> Self {
        Self(Arc::new(Inner {
            count: AtomicUsize::new(0),
            listeners: Mutex::default(),
        }))
    }
}

impl<T: Clone> Tap<T> {
    /// Listens from now on, with room for so many that are not yet received. None where enough listen already.
    #[must_use]
    pub fn listen(&self, room: usize) -> Option<(mpsc::Receiver<T>, Lost)> {
        let mut listeners = self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| !listener.sender.is_closed());
        if listeners.len() >= MOST_LISTENERS {
            return None;
        }
        let (sender, receiver) = mpsc::channel(room);
        let lost = Lost::default();
        listeners.push(Listener {
            sender,
            lost: lost.clone(),
        });
        self.0.count.store(listeners.len(), Ordering::Relaxed);
        Some((receiver, lost))
    }

    /// Whether anybody listens, or did a moment ago.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.0.count.load(Ordering::Relaxed) > 0
    }

    /// Tells what happened. A listener that is behind misses it: nobody waits for one.
    pub fn tell(&self, what: impl FnOnce() -> T) {
        if !self.is_heard() {
            return;
        }
        let what = what();
        let mut listeners = self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| match listener.sender.try_send(what.clone()) {
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                listener.lost.0.fetch_add(1, Ordering::Relaxed);
                true
            }
            Ok(()) => true,
        });
        self.0.count.store(listeners.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_hears_is_not_made() {
        let tap = Tap::default();
        tap.tell(|| -> u32 { panic!("nobody listens") });
        let (mut first, lost) = tap.listen(2).unwrap();
        let (second, _) = tap.listen(2).unwrap();
        tap.tell(|| 1);
        drop(second);
        tap.tell(|| 2);
        tap.tell(|| 3);
        assert_eq!((first.try_recv(), first.try_recv()), (Ok(1), Ok(2)));
        assert_eq!(
            (first.try_recv().is_err(), lost.take(), lost.take()),
            (true, 1, 0)
        );
        drop(first);
        tap.tell(|| 4);
        assert!(!tap.is_heard());
    }

    #[test]
    fn there_is_an_end_to_listeners_and_of_a_tap() {
        let tap = Tap::<u32>::default();
        let mut all: Vec<_> = (0..MOST_LISTENERS).map(|_| tap.listen(1).unwrap().0).collect();
        assert!(tap.listen(1).is_none());
        all.pop();
        assert!(tap.listen(1).is_some(), "who has gone takes no place");
        drop(tap);
        assert_eq!(all[0].try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
    }
}
