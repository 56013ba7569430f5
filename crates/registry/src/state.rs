//! What endpoints and clusters have lived through. [`crate::Table`] carries these over from snapshot to
//! snapshot, so that a reload forgets neither ejections nor budgets; workers share them by atomics.
//!
//! Every `now` is milliseconds on one monotonic clock of the caller's. The atomics are independent counters
//! that guard no other memory, so relaxed ordering is enough throughout.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use model::settings::{RETRY_BUDGET_MIN, RETRY_BURST};

use crate::affinity::Affinity;

/// An endpoint whose ejection has ended is tried at most so often, in milliseconds, until it does well.
const TRIAL_EVERY: u64 = 1_000;

/// Whether any endpoint of one table is ejected or on trial: only then a pick has to look for them.
#[derive(Debug, Default)]
pub(crate) struct Ejections {
    /// When the last one ends.
    until: AtomicU64,
    /// Endpoints on trial.
    on_trial: AtomicU32,
}

impl Ejections {
    fn extend(&self, until: u64) {
        self.until.fetch_max(until, Relaxed);
    }

    fn are_over(&self, now: u64) -> bool {
        self.until.load(Relaxed) <= now && self.on_trial.load(Relaxed) == 0
    }
}

/// Life of one endpoint, kept for as long as its workload, address and generation stay. Clusters that
/// share an endpoint share its life.
#[derive(Debug, Default)]
pub struct EndpointState {
    in_flight: AtomicU32,
    failures: AtomicU32,
    ejections: AtomicU32,
    ejected_until: AtomicU64,
    /// From when on it may be tried once more; `NO_TRIAL` for one that was never ejected, or did well since.
    next_trial: AtomicU64,
    of_table: Arc<Ejections>,
}

const NO_TRIAL: u64 = 0;

impl EndpointState {
    pub(crate) fn new(of_table: Arc<Ejections>) -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            next_trial: AtomicU64::new(NO_TRIAL),
            of_table,
        }
    }

    /// Requests or connections under way.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// One more is under way; [`crate::Lease`] pairs this with [`Self::end`].
    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// One fewer is under way.
    pub(crate) fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// It accepted a connection or answered: the row of failures is broken, and the trial passed.
    pub fn succeeded(&self) {
        // A load first: the common case must not take the cache line from the other workers.
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
        if self.next_trial.load(Relaxed) != NO_TRIAL {
            self.end_trial();
        }
    }

    /// It failed once more; says whether `after` in a row are reached. One is enough on trial.
    pub(crate) fn fail(&self, after: u32) -> bool {
        let is_on_trial = self.next_trial.load(Relaxed) != NO_TRIAL;
        self.failures.fetch_add(1, Relaxed).saturating_add(1) >= after || is_on_trial
    }

    /// It was chosen at `now`; if it is on trial, others wait for what comes of this.
    pub(crate) fn chosen(&self, now: u64) {
        let next = self.next_trial.load(Relaxed);
        if next != NO_TRIAL && next <= now {
            let later = now.saturating_add(TRIAL_EVERY);
            // Where it fails, the trial ended meanwhile, or another worker tries it too.
            let _ = self.next_trial.compare_exchange(next, later, Relaxed, Relaxed);
        }
    }

    /// Whether it is ejected at `now`, or being tried.
    pub(crate) fn is_avoided(&self, now: u64) -> bool {
        self.is_ejected(now) || self.next_trial.load(Relaxed) > now
    }

    fn end_trial(&self) {
        if self.next_trial.swap(NO_TRIAL, Relaxed) != NO_TRIAL {
            self.of_table.on_trial.fetch_sub(1, Relaxed);
        }
    }

    /// Ejects it for `base`, and as much longer each further time up to `longest`; having kept well for
    /// `longest` it starts over.
    pub(crate) fn eject(&self, now: u64, base: Duration, longest: Duration) {
        let well_for = now.saturating_sub(self.ejected_until.load(Relaxed));
        if well_for > millis(longest) {
            self.ejections.store(0, Relaxed);
        }
        let times = self.ejections.fetch_add(1, Relaxed).saturating_add(1);
        let until = now.saturating_add(millis(base.saturating_mul(times).min(longest)));
        self.ejected_until.store(until, Relaxed);
        self.failures.store(0, Relaxed);
        self.of_table.extend(until);
        // Counted before it is to be seen, so that it cannot be counted off first.
        self.of_table.on_trial.fetch_add(1, Relaxed);
        if self.next_trial.swap(until, Relaxed) != NO_TRIAL {
            self.of_table.on_trial.fetch_sub(1, Relaxed);
        }
    }

    /// Whether it is ejected at `now`.
    #[must_use]
    pub fn is_ejected(&self, now: u64) -> bool {
        self.ejected_until.load(Relaxed) > now
    }

    /// Milliseconds until its ejection ends; `None` where it is not ejected.
    #[must_use]
    pub fn ejected_for(&self, now: u64) -> Option<u64> {
        self.ejected_until
            .load(Relaxed)
            .checked_sub(now)
            .filter(|&rest| rest > 0)
    }

    /// How often it was ejected since it last kept well for long.
    #[must_use]
    pub fn ejections(&self) -> u32 {
        self.ejections.load(Relaxed)
    }
}

impl Drop for EndpointState {
    fn drop(&mut self) {
        self.end_trial();
    }
}

/// One retry, as the burst is counted.
const WHOLE_RETRY: u32 = 100;

/// Life of one cluster, kept for as long as its service port stays.
#[derive(Debug, Default)]
pub struct ClusterState {
    /// Round robin: key of the endpoint that was last chosen, or `NO_TURN`, for IPv4 and IPv6 clients.
    turns: [AtomicU64; 2],
    /// Most clusters have none.
    affinity: OnceLock<Box<Affinity>>,
    requests: AtomicU32,
    retries: AtomicU32,
    /// How much of the burst of retries is used up, in hundredths of a retry.
    burst_used: AtomicU32,
    of_table: Arc<Ejections>,
}

impl ClusterState {
    /// Round robin has not begun. Should an endpoint have this key, its successor's turn is anyone's.
    pub(crate) const NO_TURN: u64 = 0;

    pub(crate) fn new(of_table: Arc<Ejections>) -> Self {
        Self {
            of_table,
            ..Self::default()
        }
    }

    pub(crate) fn turn(&self, v6: bool) -> &AtomicU64 {
        &self.turns[usize::from(v6)]
    }

    /// Whether some endpoint may be ejected or on trial at `now`.
    pub(crate) fn may_have_ejected(&self, now: u64) -> bool {
        !self.of_table.are_over(now)
    }

    /// A number that stays while a client comes at least once in `timeout`.
    pub(crate) fn affinity_draw(
        &self,
        client: IpAddr,
        now: u64,
        timeout: Duration,
        random: &mut dyn FnMut() -> u64,
    ) -> u64 {
        let affinity = self.affinity.get_or_init(Box::default);
        affinity.draw(client, now, millis(timeout), random)
    }

    /// Requests under way.
    #[must_use]
    pub fn requests(&self) -> u32 {
        self.requests.load(Relaxed)
    }

    /// Retries under way.
    #[must_use]
    pub fn retries(&self) -> u32 {
        self.retries.load(Relaxed)
    }

    /// Whole retries left of the burst that is allowed beyond the budget's share.
    #[must_use]
    pub fn retry_burst_left(&self) -> u32 {
        RETRY_BURST - self.burst_used.load(Relaxed).div_ceil(WHOLE_RETRY)
    }

    /// A request is under way, and earns `percent` of a retry; [`crate::UnderWay`] pairs this with
    /// [`Self::end_request`].
    pub(crate) fn begin_request(&self, percent: u32) {
        self.requests.fetch_add(1, Relaxed);
        // A load first: in the common case no retry was needed for long, and nothing is to be written.
        if self.burst_used.load(Relaxed) != 0 {
            let earn = |used: u32| Some(used.saturating_sub(percent));
            // It never answers `None`.
            let _ = self.burst_used.fetch_update(Relaxed, Relaxed, earn);
        }
    }

    /// A request ended.
    pub(crate) fn end_request(&self) {
        self.requests.fetch_sub(1, Relaxed);
    }

    /// Whether the budget allows one more retry now; if so it is taken: a share of what is under way, and
    /// beyond that what is left of the burst. [`crate::Retry`] pairs this with [`Self::end_retry`].
    pub(crate) fn begin_retry(&self, percent: u32) -> bool {
        let under_way = u64::from(self.requests.load(Relaxed));
        let share = under_way * u64::from(percent) / 100;
        let allowed = u32::try_from(share).unwrap_or(u32::MAX).max(RETRY_BUDGET_MIN);
        let within = self
            .retries
            .fetch_update(Relaxed, Relaxed, |now| (now < allowed).then_some(now + 1));
        if within.is_ok() {
            return true;
        }
        let spend = |used: u32| {
            let more = used + WHOLE_RETRY;
            (more <= RETRY_BURST * WHOLE_RETRY).then_some(more)
        };
        let is_allowed = percent > 0 && self.burst_used.fetch_update(Relaxed, Relaxed, spend).is_ok();
        if is_allowed {
            self.retries.fetch_add(1, Relaxed);
        }
        is_allowed
    }

    /// A retry ended.
    pub(crate) fn end_retry(&self) {
        self.retries.fetch_sub(1, Relaxed);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ejections_grow_up_to_the_longest_and_start_over_after_keeping_well() {
        let state = EndpointState::default();
        let (base, longest) = (Duration::from_secs(10), Duration::from_secs(25));
        let mut now = 1_000;
        for expected in [10_000, 20_000, 25_000, 25_000] {
            state.eject(now, base, longest);
            assert!(state.is_ejected(now + expected - 1));
            assert!(!state.is_ejected(now + expected));
            now += expected;
        }
        state.eject(now + 25_001, base, longest);
        assert!(!state.is_ejected(now + 25_001 + 10_000));
        assert_eq!(state.ejections(), 1);
    }
}
