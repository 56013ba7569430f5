//! How an endpoint stands when one is to be chosen: whether it may be, and if not, why it loses. Told by what
//! [`Cluster::pick`] looks at, for tools that explain a choice.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Cluster, Target};

/// How an endpoint stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Standing {
    /// It may be chosen.
    Candidate,
    /// It failed so often that it is left alone for this many milliseconds more, while another is left.
    Ejected(u64),
    /// Its ejection has ended, and it is being tried by somebody else just now.
    OnTrial,
    /// Its address is of the other family than the client's, and the client's family has endpoints.
    OtherFamily,
    /// It is going away, and others are not.
    Leaving,
    /// It takes no traffic.
    NotReady,
}

impl Cluster {
    /// How one of its endpoints stands for a client; `now` as for [`Cluster::pick`].
    #[must_use]
    pub fn standing(&self, target: &Arc<Target>, now: u64, client: IpAddr) -> Standing {
        let is_of = |v6: bool| {
            let mut slots = self.ring(v6).iter();
            slots.any(|slot| Arc::ptr_eq(&self.targets[slot.index as usize], target))
        };
        let condition = target.condition;
        if is_of(client.is_ipv6()) {
            match target.state.ejected_for(now) {
                Some(rest) => Standing::Ejected(rest),
                None if target.state.is_avoided(now) => Standing::OnTrial,
                None => Standing::Candidate,
            }
        } else if condition.ready || is_of(!client.is_ipv6()) {
            Standing::OtherFamily
        } else if condition.terminating && condition.serving {
            Standing::Leaving
        } else {
            Standing::NotReady
        }
    }
}
