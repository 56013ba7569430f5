//! Which resolvers were silent lately. They are asked last, so that not every look-up waits for them; from time to
//! time one look-up asks them in their turn, to see whether they are back.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

/// How long one that was silent is asked last.
const HELD: Duration = Duration::from_secs(20);
/// Resolvers that are kept in mind: a laptop meets many.
const KEPT_MAX: usize = 64;

/// What is known of each resolver.
#[derive(Debug, Default)]
pub(super) struct Silence(RefCell<HashMap<SocketAddr, Known>>);

#[derive(Clone, Copy, Default, Debug)]
struct Known {
    /// When it last answered anything.
    heard: Option<Instant>,
    /// Until when it is asked last.
    last_until: Option<Instant>,
}

impl Silence {
    /// Those that were silent to the end, each group in its order.
    pub(super) fn sort(&self, order: &mut [SocketAddr]) {
        if order.len() < 2 {
            return;
        }
        let now = Instant::now();
        let mut all = self.0.borrow_mut();
        let mut is_last = |resolver: &SocketAddr| {
            let Some(until) = all.get_mut(resolver).and_then(|known| known.last_until.as_mut()) else {
                return false;
            };
            let is_last = now < *until;
            if !is_last {
                // This look-up finds out; the others do not wait for that.
                *until = now + HELD;
            }
            is_last
        };
        order.sort_by_cached_key(|resolver| is_last(resolver));
    }

    pub(super) fn heard(&self, resolver: SocketAddr) {
        let mut all = self.0.borrow_mut();
        if all.len() >= KEPT_MAX {
            all.clear();
        }
        let known = Known {
            heard: Some(Instant::now()),
            last_until: None,
        };
        all.insert(resolver, known);
    }

    /// One that has answered others meanwhile is slow for one name alone.
    pub(super) fn silent(&self, resolver: SocketAddr, since: Instant) {
        let mut all = self.0.borrow_mut();
        let known = all.entry(resolver).or_default();
        if known.heard.is_none_or(|heard| heard < since) {
            known.last_until = Some(Instant::now() + HELD);
        }
    }
}
