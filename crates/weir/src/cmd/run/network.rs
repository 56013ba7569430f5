//! The network that the command gets: addresses, and no more routes than its caller has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use model::ServiceKind;
use netsys::contain::Network;
use registry::Snapshot;

/// The command's address where the manifests give it none: of the block for use within one host (RFC 7335).
const OWN_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 2);
/// Likewise; of a unique local prefix (RFC 4193) that spells our name.
const OWN_V6: Ipv6Addr = Ipv6Addr::new(0xfd57, 0x6569, 0x7200, 0, 0, 0, 0, 2);
/// Beyond so many routes a default route serves better.
const ROUTES_MAX: usize = 1000;

/// A family that the caller has no default route for gets routes to what the caller reaches and to what
/// the manifests name. With a default route every connection would seem to succeed, since the proxy takes
/// it, and a client that tries IPv6 first would never try IPv4. Without any route there is an IPv6 address
/// only where the pod has one. The pod's own addresses come first.
pub(super) fn of(snapshot: &Snapshot, reachable: &[IpNet]) -> Network {
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
            routes.extend(named(snapshot).filter(same_family).map(IpNet::from));
        }
        let mut routes = IpNet::aggregate(&routes);
        routes.retain(|net| *net != IpNet::from(address));
        if routes.len() > ROUTES_MAX {
            routes = vec![default_route(fallback)];
        }
        if address.is_ipv4() || of_pod.is_some() || !routes.is_empty() {
            network.addresses.push(address);
        }
        network.routes.extend(routes);
    }
    network.addresses.sort_by_key(|address| !own.contains(address));
    network
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
