//! Drain: one trigger tells every holder of a [`Watch`] to finish by a deadline, then waits for them
//! to let go of it. A worker holds one `Watch` while it has connections; dropping it means "done".

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// A trigger and the first of its watches. Clone the watch once per worker.
#[must_use]
pub fn channel() -> (Trigger, Watch) {
    let (sender, receiver) = watch::channel(None);
    (Trigger(sender), Watch(receiver))
}

/// Starts a drain. Clones are the same trigger: a signal and the admin server may both hold one.
#[derive(Clone, Debug)]
pub struct Trigger(watch::Sender<Option<Told>>);

/// What holders are told.
#[derive(Clone, Copy, Debug)]
struct Told {
    deadline: Instant,
    /// Nobody is expected to come any more.
    is_last_call: bool,
}

/// How a drain ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Every watch was dropped in time.
    Clean,
    /// The deadline passed first.
    DeadlinePassed {
        /// Watches still held.
        holders: usize,
    },
}

impl Trigger {
    /// Tells every holder to finish within a time. A second call can only bring the deadline nearer.
    /// Says whether this call changed anything.
    pub fn start(&self, within: Duration) -> bool {
        self.tell(within, false)
    }

    /// The same, and nobody is expected to come any more: holders need not wait for clients that were not told yet.
    pub fn start_last_call(&self, within: Duration) -> bool {
        self.tell(within, true)
    }

    fn tell(&self, within: Duration, is_last_call: bool) -> bool {
        let deadline = Instant::now() + within;
        self.0.send_if_modified(|state| match state {
            Some(earlier) if earlier.deadline <= deadline && (earlier.is_last_call || !is_last_call) => false,
            _ => {
                let earlier = state.map_or(deadline, |told| told.deadline);
                *state = Some(Told {
                    deadline: deadline.min(earlier),
                    is_last_call: is_last_call || state.is_some_and(|told| told.is_last_call),
                });
                true
            }
        })
    }

    /// Whether a drain has been started.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Resolves once a drain has been started, by whichever clone.
    pub async fn started(&self) {
        wait_for_start(self.0.subscribe()).await;
    }

    /// Starts a drain, if none was, and waits until every watch is dropped or the deadline has passed.
    pub async fn drain(&self, within: Duration) -> Outcome {
        self.start(within);
        let deadline = self.0.borrow().map_or_else(Instant::now, |told| told.deadline);
        match timeout_at(deadline, self.0.closed()).await {
            Ok(()) => Outcome::Clean,
            Err(_) => Outcome::DeadlinePassed {
                holders: self.0.receiver_count(),
            },
        }
    }
}

/// Is told of the drain, and holds it up until dropped.
#[derive(Clone, Debug)]
pub struct Watch(watch::Receiver<Option<Told>>);

impl Watch {
    /// Whether a drain is under way.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.deadline().is_some()
    }

    /// When everything must have ended; none before a drain.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.0.borrow().map(|told| told.deadline)
    }

    /// Whether nobody is expected to come any more.
    #[must_use]
    pub fn is_last_call(&self) -> bool {
        self.0.borrow().is_some_and(|told| told.is_last_call)
    }

    /// Resolves when a drain starts: at once if it has. Never, if the trigger is gone without one.
    pub async fn draining(&self) {
        wait_for_start(self.0.clone()).await;
    }
}

async fn wait_for_start(mut receiver: watch::Receiver<Option<Told>>) {
    if receiver.wait_for(Option::is_some).await.is_err() {
        // The trigger is gone: nobody is left who could start a drain.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ends_clean_when_every_watch_is_dropped() {
        let (trigger, watch) = channel();
        assert!(!watch.is_draining());
        let second = watch.clone();
        let holder = tokio::spawn(async move {
            second.draining().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(second);
        });
        drop(watch);
        assert_eq!(trigger.drain(Duration::from_secs(5)).await, Outcome::Clean);
        holder.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn says_how_many_are_left_at_the_deadline() {
        let (trigger, watch) = channel();
        let second = watch.clone();
        let outcome = trigger.drain(Duration::from_secs(5)).await;
        assert_eq!(outcome, Outcome::DeadlinePassed { holders: 2 });
        assert!(watch.is_draining() && second.deadline().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_start_can_only_shorten() {
        let (trigger, watch) = channel();
        assert!(trigger.start(Duration::from_secs(10)));
        let first = watch.deadline();
        assert!(!trigger.start(Duration::from_secs(20)));
        assert_eq!(watch.deadline(), first);
        assert!(trigger.clone().start(Duration::from_secs(1)));
        assert!(watch.deadline() < first);
        trigger.started().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_last_call_stays_one_and_puts_no_deadline_off() {
        let (trigger, watch) = channel();
        assert!(trigger.start(Duration::from_secs(10)) && !watch.is_last_call());
        let first = watch.deadline();
        assert!(trigger.start_last_call(Duration::from_secs(20)) && watch.is_last_call());
        assert_eq!(watch.deadline(), first);
        assert!(!trigger.start_last_call(Duration::from_secs(20)));
        assert!(trigger.start(Duration::from_secs(1)) && watch.is_last_call());
    }
}
