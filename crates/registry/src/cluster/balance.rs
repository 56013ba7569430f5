//! The choice of an endpoint. Every policy chooses on the ring of usable endpoints of the client's family,
//! in the common case without looking at each, and never allocates unless something is amiss.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use model::SessionAffinity;
use model::settings::Balancing;
use smallvec::SmallVec;

use super::{Cluster, Pick, Slot, Target};
use crate::state::ClusterState;

/// How good a choice an endpoint is; the lower the better, and the best there is gets chosen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Good,
    /// Ejected, or on trial and being tried; if all are, that is not believed.
    Ejected,
    /// Failed for this very request.
    Tried,
}

impl Cluster {
    /// Chooses an endpoint. `now` is milliseconds on a monotonic clock, `random` yields 64 random bits,
    /// `client` keeps its endpoint under session affinity and prefers endpoints of its own address family
    /// (which is that of the address it called), `tried` are addresses that failed already and are avoided
    /// while another is left. Ejected endpoints are avoided unless all are ejected. `None` where no
    /// endpoint takes traffic.
    #[must_use]
    pub fn pick(
        &self,
        now: u64,
        random: &mut dyn FnMut() -> u64,
        client: IpAddr,
        tried: &[SocketAddr],
    ) -> Option<Pick> {
        let ring = self.ring(client.is_ipv6());
        let choice = Choice {
            cluster: self,
            ring,
            now,
            tried,
            all_good: tried.is_empty() && !self.state.may_have_ejected(now),
        };
        let slot = match (self.affinity, self.policy.balancing) {
            _ if ring.is_empty() => return None,
            (SessionAffinity::ClientIp { timeout }, _) => {
                let draw = self.state.affinity_draw(client, now, timeout, random);
                choice.by_client(client, draw)
            }
            (SessionAffinity::None, Balancing::RoundRobin) => choice.in_turn(client.is_ipv6(), random),
            (SessionAffinity::None, Balancing::LeastRequest) => choice.less_busy_of_two(random),
        }?;
        let target = choice.target(slot);
        if !choice.all_good {
            target.state.chosen(now);
        }
        Some(Pick {
            target: Arc::clone(target),
            usable: ring.len(),
        })
    }
}

struct Choice<'a> {
    cluster: &'a Cluster,
    ring: &'a [Slot],
    now: u64,
    tried: &'a [SocketAddr],
    /// Nothing was tried and nothing is ejected: ranks need not be looked at.
    all_good: bool,
}

impl<'a> Choice<'a> {
    fn target(&self, slot: Slot) -> &'a Arc<Target> {
        &self.cluster.targets[slot.index as usize]
    }

    fn rank(&self, slot: Slot) -> Rank {
        let target = self.target(slot);
        if self.all_good {
            Rank::Good
        } else if self.tried.contains(&target.address) {
            Rank::Tried
        } else if target.state.is_avoided(self.now) {
            Rank::Ejected
        } else {
            Rank::Good
        }
    }

    /// Round robin: the next on the ring after the one chosen last. As the position is kept by key and not
    /// by number, each endpoint that stays gets one turn in each round whichever others come and go. The
    /// first turn is anyone's: proxies that live for one request each do not all ask the same endpoint.
    fn in_turn(&self, v6: bool, random: &mut dyn FnMut() -> u64) -> Option<Slot> {
        let turn = self.cluster.state.turn(v6);
        let mut last = turn.load(Relaxed);
        loop {
            let start = match last {
                ClusterState::NO_TURN => below(self.ring.len(), random())?,
                last => self.ring.partition_point(|slot| slot.key <= last),
            };
            let chosen = self.first_best(start)?;
            match turn.compare_exchange_weak(last, chosen.key, Relaxed, Relaxed) {
                Ok(_) => return Some(chosen),
                Err(now) => last = now,
            }
        }
    }

    /// The first of the best rank, round the ring from `start`.
    fn first_best(&self, start: usize) -> Option<Slot> {
        let (before, after) = self.ring.split_at(start);
        let mut best: Option<(Rank, Slot)> = None;
        for &slot in after.iter().chain(before) {
            let rank = self.rank(slot);
            if rank == Rank::Good {
                return Some(slot);
            }
            if best.is_none_or(|(other, _)| rank < other) {
                best = Some((rank, slot));
            }
        }
        best.map(|(_, slot)| slot)
    }

    /// Power of two choices: of two drawn at random the one with less under way.
    fn less_busy_of_two(&self, random: &mut dyn FnMut() -> u64) -> Option<Slot> {
        if self.all_good {
            return self.draw(self.ring, random);
        }
        if let Some(slot) = self.redraw(random) {
            return Some(slot);
        }
        let best = self.ring.iter().map(|&slot| self.rank(slot)).min()?;
        let candidates: SmallVec<[Slot; 16]> = self
            .ring
            .iter()
            .copied()
            .filter(|&slot| self.rank(slot) == best)
            .collect();
        // Another worker may have changed the ranks between the two looks.
        self.draw(&candidates, random)
            .or_else(|| self.draw(self.ring, random))
    }

    /// In a large ring, where few are amiss, it is cheaper to throw a bad draw away than to look at all.
    /// `None` where that did not find two.
    fn redraw(&self, random: &mut dyn FnMut() -> u64) -> Option<Slot> {
        const WORTH_IT: usize = 16;
        const DRAWS: usize = 12;
        if self.ring.len() < WORTH_IT {
            return None;
        }
        let mut one: Option<Slot> = None;
        for _ in 0..DRAWS {
            let slot = self.ring[below(self.ring.len(), random())?];
            match one {
                _ if self.rank(slot) != Rank::Good => {}
                None => one = Some(slot),
                Some(first) if first == slot => {}
                Some(first) => return Some(self.less_busy(first, slot)),
            }
        }
        None
    }

    fn draw(&self, from: &[Slot], random: &mut dyn FnMut() -> u64) -> Option<Slot> {
        let first = below(from.len(), random())?;
        let Some(step) = below(from.len() - 1, random()) else {
            return Some(from[first]);
        };
        let (one, other) = (from[first], from[(first + 1 + step) % from.len()]);
        Some(self.less_busy(one, other))
    }

    fn less_busy(&self, one: Slot, other: Slot) -> Slot {
        let in_flight = |slot| self.target(slot).state.in_flight();
        if in_flight(other) < in_flight(one) {
            other
        } else {
            one
        }
    }

    /// Rendezvous: the endpoint that scores highest with this client. When one goes, only its own clients
    /// move; when one comes, only those it wins.
    fn by_client(&self, client: IpAddr, draw: u64) -> Option<Slot> {
        let client = match client {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            IpAddr::V6(ip) => {
                let bits = ip.to_bits();
                mix(bits as u64) ^ (bits >> 64) as u64
            }
        };
        let seed = mix(client ^ mix(draw));
        self.ring
            .iter()
            .copied()
            .min_by_key(|&slot| (self.rank(slot), mix(slot.key ^ seed)))
    }
}

/// A number below `n`, evenly drawn but for a bias of `n` in 2^64; `None` where `n` is zero.
fn below(n: usize, random: u64) -> Option<usize> {
    (n > 0).then(|| ((u128::from(random) * n as u128) >> 64) as usize)
}

/// The finalizer of SplitMix64: every input bit changes half of the output bits.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
