//! What host names stand for: services and the pods of headless ones, their ports (SRV), and the way back from
//! addresses (PTR). Comes in: a name as DNS has it. DNS and `weir pc dns` ask here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use model::{ObjectName, Service, ServiceKind};

use crate::cluster::Target;
use crate::snapshot::Snapshot;

/// What follows name and namespace in a full host name.
const CLUSTER_DOMAIN: &str = ".svc.cluster.local";
/// The namespace of bare names where nobody said who we are.
const NAMESPACE: &str = "default";

/// What a host name stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resolved {
    /// Addresses: the virtual ones, or of a headless service those of its endpoints; of a service that
    /// is there but has none at the moment, none.
    Addresses(Vec<IpAddr>),
    /// Another name, to be looked up outside.
    Alias(Arc<str>),
    /// Of an address, written as a name: the names it has.
    Names(Vec<String>),
    /// Of a port, `_http._tcp.nginx.sidecar.svc.cluster.local`: where it is served.
    Ports(Vec<PortAt>),
    /// A full name below one of our services which nothing has. Nobody else could know it.
    Missing,
}

/// Where a port is served.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PortAt {
    /// Full name of the service, or of the pod of a headless one.
    pub host: String,
    /// The port there.
    pub port: u16,
}

impl Snapshot {
    /// The service that a host name names, as a client in our namespace would write it: `nginx`,
    /// `nginx.sidecar`, `nginx.sidecar.svc`, `nginx.sidecar.svc.cluster.local`, in any case, with or
    /// without a trailing dot.
    #[must_use]
    pub fn service_by_host(&self, host: &str) -> Option<&Arc<Service>> {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let namespaced = host
            .strip_suffix(CLUSTER_DOMAIN)
            .or_else(|| host.strip_suffix(".svc"))
            .unwrap_or(&host);
        let name = match namespaced.split_once('.') {
            Some((name, namespace)) => ObjectName::new(name_part(namespace)?, name_part(name)?),
            None if namespaced.len() == host.len() => return self.service_by_bare_name(namespaced),
            None => return None,
        };
        self.services.get(&name)
    }

    /// In our own namespace. Where nobody said who we are, in `default`, or in the only one that has such a
    /// service.
    fn service_by_bare_name(&self, name: &str) -> Option<&Arc<Service>> {
        let within = |namespace: &Arc<str>| self.services.get(&ObjectName::new(Arc::clone(namespace), name));
        if let Some(own) = &self.own_name {
            return within(&own.namespace);
        }
        within(&NAMESPACE.into()).or_else(|| {
            // A walk over all services: nobody in particular is a command on a laptop.
            let mut named = self
                .services
                .values()
                .filter(|service| &*service.name.name == name);
            named.next().filter(|_| named.next().is_none())
        })
    }

    /// What a host name stands for; written like a service, and below it: its pods
    /// (`redis-0.redis.data`, `10-1-0-5.redis.data`), ports (`_http._tcp.nginx.sidecar`). And addresses, as in
    /// `1.0.96.10.in-addr.arpa`.
    ///
    /// `None`: not a name of the mesh. That is also so for what a manifest does not tell us: ports other than
    /// TCP, the pods of a headless service without a TCP port, other pods of a service with cluster addresses.
    #[must_use]
    pub fn resolve(&self, host: &str) -> Option<Resolved> {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        self.find(&host).map(|found| found.resolved)
    }

    /// As [`Self::resolve`], of a name in lower case without its trailing dot.
    pub(crate) fn find(&self, host: &str) -> Option<Found<'_>> {
        let of = |resolved, service| Some(Found { resolved, service });
        if let Some(service) = self.service_by_host(host) {
            let resolved = match &service.kind {
                ServiceKind::ClusterIp(addresses) => Resolved::Addresses(addresses.clone()),
                ServiceKind::ExternalName(name) => Resolved::Alias(Arc::clone(name)),
                ServiceKind::Headless if service.ports.is_empty() => return None,
                ServiceKind::Headless => Resolved::Addresses(self.pod_addresses(service, None)),
            };
            return of(resolved, Some(service));
        }
        if let Some(address) = address_of(host) {
            let names = self.names_of(address).map(Resolved::Names)?;
            return of(names, self.by_vip_ip.get(&address));
        }
        let (part, service) = self.split(host)?;
        // Short forms could be anybody's: a service `google` in a namespace `com` does not own
        // `mail.google.com`.
        let is_certain = host.ends_with(CLUSTER_DOMAIN);
        match self.below(part, service) {
            Below::Found(resolved) => of(resolved, Some(service)),
            Below::Nothing if is_certain => of(Resolved::Missing, Some(service)),
            Below::Nothing | Below::Unknown => None,
        }
    }

    /// Every name that has records but for those of addresses, and of pods that have a service's address before
    /// them, in full: services, the pods of headless ones, ports.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for service in self.services.values() {
            if self.find(&service.host).is_none() {
                continue;
            }
            names.push(service.host.to_string());
            if service.kind == ServiceKind::Headless {
                let pods = self.usable(&service.name);
                names.extend(pods.map(|(_, target)| format!("{}.{}", pod_label(target), service.host)));
            }
            let ports = service.ports.iter().filter(|port| !port.name.is_empty());
            let ports = ports.map(|port| format!("_{}._tcp.{}", port.name, service.host));
            names.extend(ports.filter(|name| matches!(self.resolve(name), Some(Resolved::Ports(_)))));
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The service that a name is below, and the part before it.
    fn split<'a>(&self, host: &'a str) -> Option<(&'a str, &Arc<Service>)> {
        let stem = host
            .strip_suffix(CLUSTER_DOMAIN)
            .or_else(|| host.strip_suffix(".svc"));
        if let Some(stem) = stem {
            let (stem, namespace) = stem.rsplit_once('.')?;
            let (part, name) = stem.rsplit_once('.')?;
            let name = ObjectName::new(name_part(namespace)?, name_part(name)?);
            return Some((part, self.services.get(&name)?));
        }
        // A pod is one label, a port two.
        let mut end = host.find('.')?;
        if host.starts_with('_') {
            end += 1 + host[end + 1..].find('.')?;
        }
        Some((&host[..end], self.service_by_host(&host[end + 1..])?))
    }

    fn below(&self, part: &str, service: &Arc<Service>) -> Below {
        let (port, protocol) = match part.split_once('.') {
            Some((port, protocol)) => (port.strip_prefix('_'), protocol),
            None => (None, part),
        };
        match (port, protocol) {
            (_, "_udp" | "_sctp") => Below::Unknown,
            (Some(port), "_tcp") => {
                let places = self.places(service, port);
                if places.is_empty() {
                    Below::Nothing
                } else {
                    Below::Found(Resolved::Ports(places))
                }
            }
            // Names are below it, so that it is there, with nothing of its own.
            (None, "_tcp") if part == "_tcp" && !service.ports.is_empty() => {
                Below::Found(Resolved::Addresses(Vec::new()))
            }
            _ if !part.contains('.') => self.pod_below(part, service),
            _ => Below::Nothing,
        }
    }

    /// A cluster's own DNS has the pods of every service, with cluster addresses, too; it may know of more there
    /// than the manifests do.
    fn pod_below(&self, pod: &str, service: &Service) -> Below {
        let addresses = self.pod_addresses(service, Some(pod));
        match service.kind {
            _ if !addresses.is_empty() => Below::Found(Resolved::Addresses(addresses)),
            ServiceKind::ClusterIp(_) => Below::Unknown,
            ServiceKind::Headless if service.ports.is_empty() => Below::Unknown,
            ServiceKind::Headless | ServiceKind::ExternalName(_) => Below::Nothing,
        }
    }

    /// Where a port of that name is served: by the service's address, or without one by each pod.
    fn places(&self, service: &Service, port_name: &str) -> Vec<PortAt> {
        let is_it = |name: &str| !name.is_empty() && name.eq_ignore_ascii_case(port_name);
        let mut places: Vec<PortAt> = match service.kind {
            ServiceKind::ExternalName(_) => Vec::new(),
            ServiceKind::ClusterIp(_) => service
                .ports
                .iter()
                .filter(|port| is_it(&port.name))
                .map(|port| PortAt {
                    host: service.host.to_string(),
                    port: port.number,
                })
                .collect(),
            ServiceKind::Headless => self
                .usable(&service.name)
                .filter(|(name, _)| is_it(name))
                .map(|(_, target)| PortAt {
                    host: format!("{}.{}", pod_label(target), service.host),
                    port: target.address.port(),
                })
                .collect(),
        };
        places.sort_unstable();
        places.dedup();
        places
    }

    /// The names of an address: of the service whose virtual one it is, else of the pod within the headless
    /// services that it is an endpoint of. `None` where it is not ours.
    fn names_of(&self, address: IpAddr) -> Option<Vec<String>> {
        if let Some(service) = self.by_vip_ip.get(&address) {
            return Some(vec![service.host.to_string()]);
        }
        // A walk over all headless services: such queries are few, and an index would cost each proxy memory.
        let headless = self
            .services
            .values()
            .filter(|service| service.kind == ServiceKind::Headless);
        let mut names: Vec<String> = headless
            .flat_map(|service| {
                self.usable(&service.name)
                    .filter(move |(_, target)| target.address.ip() == address)
                    .map(|(_, target)| format!("{}.{}", pod_label(target), service.host))
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        (!names.is_empty()).then_some(names)
    }

    /// Sorted, each once; `pod` keeps only the pod of that label.
    fn pod_addresses(&self, service: &Service, pod: Option<&str>) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> = self
            .usable(&service.name)
            .filter(|(_, target)| pod.is_none_or(|pod| is_named(target, pod)))
            .map(|(_, target)| target.address.ip())
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// The endpoints of a service that take new traffic, each with the name of its port; some twice.
    fn usable(&self, service: &ObjectName) -> impl Iterator<Item = (&str, &Arc<Target>)> {
        self.clusters_of(service).iter().flat_map(|cluster| {
            let rings = [false, true].into_iter().flat_map(|v6| cluster.ring(v6).iter());
            rings.map(|slot| (&*cluster.port_name, &cluster.targets[slot.index as usize]))
        })
    }
}

/// What was found for a name.
pub(crate) struct Found<'a> {
    pub(crate) resolved: Resolved,
    /// The service that the name is, or is below.
    pub(crate) service: Option<&'a Arc<Service>>,
}

/// What is below a service under a name.
enum Below {
    Found(Resolved),
    Nothing,
    /// What manifests do not tell us.
    Unknown,
}

/// The label of a pod within its service: its host name, else its address with dashes.
fn pod_label(target: &Target) -> String {
    match &target.hostname {
        Some(hostname) => hostname.to_ascii_lowercase(),
        None => target.address.ip().to_string().replace(['.', ':'], "-"),
    }
}

fn is_named(target: &Target, label: &str) -> bool {
    match &target.hostname {
        Some(hostname) => hostname.eq_ignore_ascii_case(label),
        None => pod_label(target) == label,
    }
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` is made of.
fn address_of(host: &str) -> Option<IpAddr> {
    if let Some(stem) = host.strip_suffix(".in-addr.arpa") {
        let mut octets: Vec<&str> = stem.split('.').collect();
        octets.reverse();
        return octets.join(".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    }
    let stem = host.strip_suffix(".ip6.arpa")?;
    let mut bits: u128 = 0;
    let mut count: u32 = 0;
    for label in stem.split('.') {
        let [nibble] = label.as_bytes() else { return None };
        let nibble = char::from(*nibble).to_digit(16)?;
        if count == 32 {
            return None;
        }
        bits |= u128::from(nibble) << (4 * count);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from_bits(bits).into())
}

/// One label of a host name.
fn name_part(text: &str) -> Option<&str> {
    (!text.is_empty() && !text.contains('.')).then_some(text)
}

#[cfg(test)]
mod tests;
