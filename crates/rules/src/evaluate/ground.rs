//! What of the namespace decides beside the packet itself: what its addresses are, and where others are reached.

use std::net::IpAddr;

use super::{Origin, Packet};

/// A namespace, as far as it is known.
pub trait Ground {
    /// What an address is to it; none where that is not known.
    fn kind(&self, address: IpAddr) -> Option<AddressKind>;

    /// The device by which an address is reached, `lo` for one of its own; none where that is not known.
    fn device(&self, to: IpAddr) -> Option<String>;
}

/// What an address is to a namespace, as routing has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressKind {
    /// One of its own.
    Local,
    /// Somebody else's.
    Unicast,
    /// Everybody's on a wire.
    Broadcast,
    /// A group's.
    Multicast,
}

impl AddressKind {
    /// As rules call it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "LOCAL",
            Self::Unicast => "UNICAST",
            Self::Broadcast => "BROADCAST",
            Self::Multicast => "MULTICAST",
        }
    }

    /// What an address is in every namespace; none where it is not the same in all.
    #[must_use]
    pub fn everywhere(address: IpAddr) -> Option<Self> {
        match address {
            _ if address.is_loopback() => Some(Self::Local),
            _ if address.is_multicast() => Some(Self::Multicast),
            IpAddr::V4(v4) if v4.is_broadcast() => Some(Self::Broadcast),
            _ => None,
        }
    }
}

/// What the packet itself says of the namespace: where it starts, and the device that routing has given it.
pub(crate) struct ByPacket<'a>(pub(crate) &'a Packet);

impl Ground for ByPacket<'_> {
    fn kind(&self, address: IpAddr) -> Option<AddressKind> {
        let packet = self.0;
        let is_made_here = matches!(packet.origin, Origin::Socket { .. });
        let own = |is_own: bool| match is_own {
            true => AddressKind::Local,
            false => AddressKind::Unicast,
        };
        AddressKind::everywhere(address).or(match address {
            _ if address == packet.destination => Some(own(!is_made_here || packet.device == "lo")),
            _ if address == packet.source => Some(own(is_made_here)),
            _ => None,
        })
    }

    fn device(&self, to: IpAddr) -> Option<String> {
        match self.kind(to)? {
            AddressKind::Local => Some(String::from("lo")),
            _ => (to == self.0.destination).then(|| self.0.device.clone()),
        }
    }
}
