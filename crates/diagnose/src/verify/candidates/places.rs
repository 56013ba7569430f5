//! Addresses that stand for networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rules::Intent;
use rules::intent::Selection;

/// Values of one kind that are tried where rules speak of more: each is a packet or several.
pub(super) const MOST: usize = 48;

/// An address of each included network, to be taken for the namespace's own by what is sent from the wire: without
/// one, nothing could tell that what stays in the namespace is left alone.
pub(in crate::verify) fn local(intent: &Intent, own: &[IpAddr]) -> Vec<IpAddr> {
    let Selection::Only(nets) = &intent.outbound.cidrs else {
        return vec![];
    };
    let of = |net: &IpNet| -> Option<IpAddr> {
        let ip = match net {
            IpNet::V4(net) if net.prefix_len() < 30 => Ipv4Addr::from(u32::from(net.broadcast()) - 2).into(),
            IpNet::V6(net) if net.prefix_len() < 126 => {
                Ipv6Addr::from(u128::from(net.broadcast()) - 2).into()
            }
            _ => return None,
        };
        (!ip_is_special(ip) && !own.contains(&ip)).then_some(ip)
    };
    nets.iter().filter_map(of).take(MOST).collect()
}

fn ip_is_special(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_multicast() || ip.is_unspecified()
}

/// The first and the last address of a network that a host could have.
pub(super) fn within(net: IpNet) -> Vec<IpAddr> {
    let mut hosts = net.hosts();
    let first = hosts.next();
    // Iterating to the last one of a wide network would take for ever.
    let last: IpAddr = match net {
        IpNet::V4(v4) => {
            // But for the broadcast address, where there is one.
            let beyond = u32::from(v4.prefix_len() < 31);
            Ipv4Addr::from(u32::from(v4.broadcast()) - beyond).into()
        }
        IpNet::V6(v6) => v6.broadcast().into(),
    };
    let mut all: Vec<_> = first.into_iter().chain([last]).collect();
    all.dedup();
    all
}

/// Whether others can call it.
pub(super) fn is_global(ip: IpAddr) -> bool {
    !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
