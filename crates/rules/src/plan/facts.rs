//! What a plan has to know of the namespace.

use super::untracked::TproxyFacts;
use crate::cgroup;
use crate::family::Family;

/// What a namespace is like, as far as a plan depends on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// The IPv4 stack.
    pub ipv4: Stack,
    /// The IPv6 stack.
    pub ipv6: Stack,
    /// Devices that are a machine's own: `eth0`, `wlan0`.
    pub physical_devices: Vec<String>,
    /// About the cgroups that the intent names.
    pub cgroups: cgroup::Facts,
    /// What there is for TPROXY; looked at where it is asked for.
    pub tproxy: TproxyFacts,
}

impl Facts {
    /// A namespace made for the purpose: these families, both capturable, no devices but its own.
    #[must_use]
    pub fn fresh(families: &[Family]) -> Self {
        let stack = |family| match families.contains(&family) {
            true => Stack::On,
            false => Stack::Off,
        };
        Self {
            ipv4: stack(Family::V4),
            ipv6: stack(Family::V6),
            physical_devices: vec![],
            cgroups: cgroup::Facts::default(),
            tproxy: TproxyFacts::default(),
        }
    }
}

/// The state of one family in a namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stack {
    /// No device speaks it, so there is nothing to capture.
    Off,
    /// In use, and the packet filter can be programmed.
    On,
    /// In use, but it cannot be captured, for this reason.
    Uncapturable(String),
}
