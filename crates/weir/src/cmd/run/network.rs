//! The network that the command gets: addresses, and no more routes than its caller has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::errors::OrNamed;
use anyhow::Result;
use ipnet::IpNet;
use model::{ErrorName, ServiceKind};
use netsys::contain::Network;
use netsys::routes;
use registry::Snapshot;

/// The command's address where the manifests give it none: of the block for use within one host (RFC 7335).
const OWN_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 2);
/// Likewise; of a unique local prefix (RFC 4193) that spells our name.
const OWN_V6: Ipv6Addr = Ipv6Addr::new(0xfd57, 0x6569, 0x7200, 0, 0, 0, 0, 2);
/// Where the resolvers are that the command asks.
pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Beyond so many routes a default route serves better.
const ROUTES_MAX: usize = 1000;

/// A family that the caller has no default route for gets routes to what the caller reaches, to what
/// the manifests name and to the resolvers. With a default route every connection would seem to succeed, since the proxy takes
/// it, and a client that tries IPv6 first would never try IPv4. Without any route there is an IPv6 address
/// only where the pod has one; else it is kept for later. The pod's own addresses come first.
pub(super) fn of(snapshot: &Snapshot) -> Result<Network> {
    let reachable =
        routes::reachable().or_named(ErrorName::System, "cannot read the routes of this machine")?;
    let resolvers = dns::nameservers(Path::new(RESOLV_CONF));
    Ok(furnish(snapshot, &reachable, &resolvers))
}

fn furnish(snapshot: &Snapshot, reachable: &[IpNet], resolvers: &[IpAddr]) -> Network {
    let mut network = Network::default();
    let own = snapshot.own.as_ref().map_or(&[][..], |own| &own.addresses);
    for fallback in [IpAddr::V4(OWN_V4), IpAddr::V6(OWN_V6)] {
        let same_family = |ip: &IpAddr| ip.is_ipv4() == fallback.is_ipv4();
        let of_pod = own.iter().copied().find(same_family);
        let address = of_pod.unwrap_or(fallback);
        let mut routes: Vec<IpNet> = reachable
            .iter()
            .copied()
            .filter(|net| same_family(&net.addr()))
            .collect();
        if !routes.iter().any(|net| net.prefix_len() == 0) {
            let resolvers = resolvers.iter().copied().filter(|ip| !ip.is_loopback());
            let named = named(snapshot).chain(resolvers);
            routes.extend(named.filter(same_family).map(IpNet::from));
        }
        let mut routes = IpNet::aggregate(&routes);
        routes.retain(|net| *net != IpNet::from(address));
        if routes.len() > ROUTES_MAX {
            routes = vec![default_route(fallback)];
        }
        if address.is_ipv4() || of_pod.is_some() || !routes.is_empty() {
            network.addresses.push(address);
        } else {
            network.later.push(address);
        }
        network.routes.extend(routes);
    }
    network.addresses.sort_by_key(|address| !own.contains(address));
    network
}

/// Grows `held` by what is wanted and says what that was: the new routes, and every address for them to have
/// a source. An address once held stays: the rules know that one.
pub(super) fn grow(held: &mut Network, wanted: &Network) -> Option<Network> {
    let mut more = Network::default();
    for net in &wanted.routes {
        if !held.routes.contains(net) {
            more.routes.push(*net);
        }
    }
    if more.routes.is_empty() {
        return None;
    }
    let needed = |ip: &IpAddr| more.routes.iter().any(|net| net.addr().is_ipv4() == ip.is_ipv4());
    let (now, later) = held.later.iter().copied().partition(needed);
    held.later = later;
    held.addresses.extend::<Vec<_>>(now);
    held.routes.extend(&more.routes);
    more.addresses.clone_from(&held.addresses);
    Some(more)
}

fn default_route(family: IpAddr) -> IpNet {
    match family {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// Every address that the manifests name, apart from loopback.
fn named(snapshot: &Snapshot) -> impl Iterator<Item = IpAddr> {
    let vips = snapshot
        .services
        .values()
        .flat_map(|service| match &service.kind {
            ServiceKind::ClusterIp(addresses) => addresses.clone(),
            ServiceKind::Headless | ServiceKind::ExternalName(_) => vec![],
        });
    let endpoints = snapshot.clusters().into_iter().flat_map(|cluster| {
        let ips: Vec<IpAddr> = cluster.targets.iter().map(|target| target.address.ip()).collect();
        ips
    });
    let pods = snapshot.workloads.values().flat_map(|pod| pod.addresses.clone());
    vips.chain(endpoints).chain(pods).filter(|ip| !ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(all: &[&str]) -> Vec<IpNet> {
        all.iter().map(|net| net.parse().unwrap()).collect()
    }

    fn ips(all: &[&str]) -> Vec<IpAddr> {
        all.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn no_family_looks_usable_that_the_caller_does_not_have() {
        let snapshot = Snapshot::default();
        let both = furnish(&snapshot, &nets(&["0.0.0.0/0", "10.0.0.0/8", "::/0"]), &[]);
        assert_eq!(both.routes, nets(&["0.0.0.0/0", "::/0"]));
        assert_eq!((both.addresses.len(), both.later.len()), (2, 0));

        let resolvers = ips(&["10.1.0.53", "127.0.0.53"]);
        let near = furnish(&snapshot, &nets(&["192.168.0.0/24"]), &resolvers);
        assert_eq!(near.routes, nets(&["10.1.0.53/32", "192.168.0.0/24"]));
        assert_eq!(
            (near.addresses, near.later),
            (vec![OWN_V4.into()], vec![OWN_V6.into()])
        );
    }

    #[test]
    fn what_is_held_grows_by_what_is_new() {
        let mut held = furnish(&Snapshot::default(), &nets(&["0.0.0.0/0"]), &[]);
        let wanted = furnish(&Snapshot::default(), &nets(&["0.0.0.0/0", "fd00::9/128"]), &[]);
        let more = grow(&mut held, &wanted).unwrap();
        assert_eq!(more.routes, nets(&["fd00::9/128"]));
        assert_eq!(more.addresses, [IpAddr::from(OWN_V4), OWN_V6.into()]);
        assert_eq!((&held.later[..], held.addresses.len()), (&[][..], 2));
        assert_eq!(grow(&mut held, &wanted), None, "all of it is held");
        let fewer = furnish(&Snapshot::default(), &nets(&["0.0.0.0/0"]), &[]);
        assert_eq!(grow(&mut held, &fewer), None, "nothing is taken away");
    }
}
