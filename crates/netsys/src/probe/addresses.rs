//! The addresses of probes, which nobody else has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rules::Family;

/// A hardware address.
pub(super) type Mac = [u8; 6];
/// How those of our devices begin: locally administered.
pub(super) const OURS: [u8; 5] = [0x02, b'w', b'e', b'i', b'r'];

/// One of ours.
pub(super) const fn mac(last: u8) -> Mac {
    let [a, b, c, d, e] = OURS;
    [a, b, c, d, e, last]
}

/// The two ends' addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// Of the namespace.
    pub near_v4: Ipv4Addr,
    /// Of nobody, reached by the wire.
    pub far_v4: Ipv4Addr,
    /// Of the namespace.
    pub near_v6: Ipv6Addr,
    /// Of nobody, reached by the wire.
    pub far_v6: Ipv6Addr,
}

impl Addresses {
    /// Some to choose from, none of which is used on the Internet: shared address space, benchmarking and
    /// documentation (RFC 6890), and local IPv6 networks.
    pub const CHOICES: [Self; 3] = [
        Self::of([100, 64, 255], 0xfd77),
        Self::of([198, 19, 255], 0xfdb7),
        Self::of([203, 0, 113], 0xfc77),
    ];
    /// Bits that all of them have in common.
    pub(super) const V4_BITS: u32 = 28;
    /// How many devices have an address of their own, beside the ends.
    pub const DEVICES_MAX: u8 = 7;

    const fn of([a, b, c]: [u8; 3], first: u16) -> Self {
        Self {
            near_v4: Ipv4Addr::new(a, b, c, 1),
            far_v4: Ipv4Addr::new(a, b, c, 2),
            near_v6: Ipv6Addr::new(first, 0, 0, 0xffff, 0, 0, 0, 1),
            far_v6: Ipv6Addr::new(first, 0, 0, 0xffff, 0, 0, 0, 2),
        }
    }

    /// The near end's.
    #[must_use]
    pub fn near(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.near_v4.into(),
            Family::V6 => self.near_v6.into(),
        }
    }

    /// The far end's.
    #[must_use]
    pub fn far(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.far_v4.into(),
            Family::V6 => self.far_v6.into(),
        }
    }

    /// Nobody's, and reached by no route of its own.
    #[must_use]
    pub fn elsewhere(self, family: Family) -> IpAddr {
        self.numbered(family, 3)
    }

    /// What is sent from there leaves by a device, of which this is the number.
    #[must_use]
    pub(super) fn of_device(self, family: Family, number: u8) -> IpAddr {
        const FIRST: u8 = 8;
        self.numbered(family, FIRST + number.min(Self::DEVICES_MAX - 1))
    }

    fn numbered(self, family: Family, last: u8) -> IpAddr {
        match family {
            Family::V4 => {
                let [a, b, c, _] = self.near_v4.octets();
                Ipv4Addr::new(a, b, c, last).into()
            }
            Family::V6 => {
                let [a, b, c, d, e, f, g, _] = self.near_v6.segments();
                Ipv6Addr::new(a, b, c, d, e, f, g, last.into()).into()
            }
        }
    }

    /// Whether somebody in the namespace has one of the ends'.
    pub(super) fn are_taken(self, taken: &[IpAddr]) -> bool {
        let ours = Family::ALL.map(|family| [self.near(family), self.far(family)]);
        ours.as_flattened().iter().any(|ip| taken.contains(ip))
    }
}
