//! What is under way, counted for as long as it lives: each count has one owner, and ends with it however
//! that ends, so none can leak.

use std::sync::Arc;

use crate::cluster::Target;
use crate::state::ClusterState;

/// One request or connection under way at an endpoint.
#[derive(Debug)]
pub struct Lease(Arc<Target>);

impl Lease {
    /// Begins.
    #[must_use]
    pub fn new(target: Arc<Target>) -> Self {
        target.state.begin();
        Self(target)
    }

    /// The endpoint.
    #[must_use]
    pub fn target(&self) -> &Arc<Target> {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.state.end();
    }
}

/// One request under way in a cluster, its retries included.
#[derive(Debug)]
pub struct UnderWay(Arc<ClusterState>);

impl UnderWay {
    /// Begins; it earns the cluster `percent` of a retry.
    #[must_use]
    pub fn new(state: &Arc<ClusterState>, percent: u32) -> Self {
        state.begin_request(percent);
        Self(Arc::clone(state))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.end_request();
    }
}

/// One retry under way, counted against the budget.
#[derive(Debug)]
pub struct Retry(Arc<ClusterState>);

impl Retry {
    /// Begins, if the budget allows one more now.
    #[must_use]
    pub fn new(state: &Arc<ClusterState>, percent: u32) -> Option<Self> {
        state.begin_retry(percent).then(|| Self(Arc::clone(state)))
    }
}

impl Drop for Retry {
    fn drop(&mut self) {
        self.0.end_retry();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::settings::{RETRY_BUDGET_MIN, RETRY_BURST};

    const BURST: usize = RETRY_BURST as usize;
    const ALWAYS: usize = RETRY_BUDGET_MIN as usize;

    /// As many retries at once as there may be.
    fn all(state: &Arc<ClusterState>, percent: u32) -> Vec<Retry> {
        std::iter::from_fn(|| Retry::new(state, percent)).collect()
    }

    #[test]
    fn the_budget_is_a_share_of_requests_and_never_less_than_the_minimum() {
        let state = Arc::new(ClusterState::default());
        assert_eq!(all(&state, 0).len(), ALWAYS, "no burst where nothing refills it");
        drop(all(&state, 20));
        // The burst is used up; what is left is the share of what is under way.
        assert_eq!(all(&state, 20).len(), ALWAYS);
        let requests: Vec<UnderWay> = (0..50).map(|_| UnderWay::new(&state, 0)).collect();
        assert_eq!(all(&state, 20).len(), 10);
        assert_eq!((state.requests(), state.retries()), (50, 0));
        drop(requests);
        assert_eq!((state.requests(), all(&state, 20).len()), (0, ALWAYS));
    }

    #[test]
    fn the_death_of_an_endpoint_may_be_a_burst_and_requests_earn_the_next_one() {
        let state = Arc::new(ClusterState::default());
        assert_eq!(all(&state, 20).len(), ALWAYS + BURST);
        for _ in 0..10 {
            drop(UnderWay::new(&state, 20));
        }
        assert_eq!(all(&state, 20).len(), ALWAYS + 2);
        for _ in 0..BURST * 50 {
            drop(UnderWay::new(&state, 20));
        }
        assert_eq!(all(&state, 20).len(), ALWAYS + BURST, "a burst is never larger");
    }
}
