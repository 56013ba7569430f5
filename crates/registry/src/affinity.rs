//! Session affinity: how long ago each client of a cluster was last seen, so that it keeps its endpoint
//! for as long as it comes back within the service's time, whoever else comes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// Clients that are remembered. Of more, those seen longest ago are forgotten first.
const MOST_CLIENTS: usize = 16_384;

/// The clients of one cluster. Behind a lock, held for one look-up: only services that ask for affinity pay
/// for it.
#[derive(Debug, Default)]
pub(crate) struct Affinity(Mutex<HashMap<IpAddr, Seen>>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    /// When, in milliseconds.
    at: u64,
    /// What its choices are drawn with, the same until it lapses.
    draw: u64,
}

/// The draw of a client that never lapsed: one that is unknown chooses as it did before it was forgotten,
/// before a restart, and in another proxy.
const FIRST: u64 = 0;

impl Affinity {
    /// A number that stays while this client is seen at least once in `timeout` milliseconds. `random` makes
    /// the next one.
    pub(crate) fn draw(
        &self,
        client: IpAddr,
        now: u64,
        timeout: u64,
        random: &mut dyn FnMut() -> u64,
    ) -> u64 {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = clients.get_mut(&client) {
            if now.saturating_sub(seen.at) > timeout {
                seen.draw = random();
            }
            // Another worker may have been here with a later time.
            seen.at = seen.at.max(now);
            return seen.draw;
        }
        if clients.len() >= MOST_CLIENTS {
            forget_oldest(&mut clients);
        }
        clients.insert(client, Seen { at: now, draw: FIRST });
        FIRST
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Forgets a quarter, so that the cost of finding them is spread over many that come.
fn forget_oldest(clients: &mut HashMap<IpAddr, Seen>) {
    let mut times: Vec<u64> = clients.values().map(|seen| seen.at).collect();
    let (_, limit, _) = times.select_nth_unstable(MOST_CLIENTS / 4);
    let limit = *limit;
    clients.retain(|_, seen| seen.at > limit);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TIMEOUT: u64 = 1_000;

    fn client(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 | number).into()
    }

    proptest! {
        /// One client's draw changes exactly when that client stayed away for longer than the time allows.
        #[test]
        fn each_client_lapses_by_itself(visits in prop::collection::vec((0_u32..6, 0_u64..1_500), 1..80)) {
            let affinity = Affinity::default();
            let mut model: HashMap<u32, (u64, u64)> = HashMap::new();
            let mut now = 10_000;
            let mut number = 0;
            let mut random = || { number += 1; number };
            for (who, later) in visits {
                now += later;
                let drawn = affinity.draw(client(who), now, TIMEOUT, &mut random);
                if let Some((at, before)) = model.insert(who, (now, drawn)) {
                    prop_assert_eq!(drawn == before, now - at <= TIMEOUT, "{} after {}", now, at);
                } else {
                    prop_assert_eq!(drawn, FIRST);
                }
            }
        }
    }

    #[test]
    fn memory_is_bounded_and_those_who_come_often_stay() {
        let affinity = Affinity::default();
        let mut random = || 7;
        let faithful = client(0);
        affinity.draw(faithful, 0, TIMEOUT, &mut random);
        // It lapsed once, so that being forgotten would show.
        assert_eq!(affinity.draw(faithful, 5_000, TIMEOUT, &mut random), 7);
        for number in 1..100_000 {
            let now = 5_000 + u64::from(number);
            affinity.draw(client(number), now, TIMEOUT, &mut random);
            assert_eq!(affinity.draw(faithful, now, TIMEOUT, &mut random), 7);
            assert!(affinity.len() <= MOST_CLIENTS);
        }
        // All at the same instant: none is older, and all are forgotten.
        let crowd = Affinity::default();
        for number in 0..100_000 {
            crowd.draw(client(number), 1, TIMEOUT, &mut random);
            assert!(crowd.len() <= MOST_CLIENTS);
        }
    }
}
