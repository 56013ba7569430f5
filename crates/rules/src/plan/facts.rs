//! What a plan has to know of the namespace.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::TproxyFacts;
use crate::cgroup;

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Where REDIRECT leads what is made here.
    #[must_use]
    pub fn loopback(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::LOCALHOST.into(),
            Self::V6 => Ipv6Addr::LOCALHOST.into(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

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
