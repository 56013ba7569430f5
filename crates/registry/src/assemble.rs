//! One service and its endpoints, put together into clusters. Called by [`crate::Table`] for the services
//! that changed; what the clusters before lived through is handed in and carried over.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use model::settings::{Overrides, Policy};
use model::{
    ClusterName, Condition, Direction, Endpoint, ObjectName, Service, ServiceKind, ServicePort,
    SessionAffinity,
};

use crate::cluster::{Cluster, Slot, Target, Usable};
use crate::lives::Lives;

/// One outbound cluster for each port of the service.
pub(crate) fn outbound(
    service: &Service,
    endpoints: &[Endpoint],
    mesh: &Policy,
    own_namespace: Option<&str>,
    lives: &mut Lives,
    before: &[Arc<Cluster>],
) -> Arc<[Arc<Cluster>]> {
    if matches!(service.kind, ServiceKind::ExternalName(_)) {
        return Arc::default();
    }
    let domains = domains(service, own_namespace);
    let policy = service.settings.over(mesh);
    service
        .ports
        .iter()
        .map(|port| {
            let name = ClusterName::new(Direction::Outbound, port.number, &service.host);
            let targets = targets(endpoints.iter().filter(|e| e.port_name == port.name), lives);
            Arc::new(Cluster {
                state: lives.cluster(&name, before),
                name,
                direction: Direction::Outbound,
                service: service.name.clone(),
                host: Arc::clone(&service.host),
                port: port.number,
                port_name: Arc::clone(&port.name),
                protocol: port.protocol,
                known_by: port.known_by,
                policy: policy.clone(),
                affinity: service.affinity,
                domains: Arc::clone(&domains),
                usable: usable(&targets, service.publish_not_ready),
                targets,
            })
        })
        .collect()
}

/// A port of our own pod.
pub(crate) struct OwnPort {
    pub(crate) number: u16,
    /// Every address of the pod.
    pub(crate) addresses: BTreeSet<IpAddr>,
    pub(crate) workload: Option<ObjectName>,
    pub(crate) generation: Arc<str>,
}

/// The inbound cluster of a port of our own pod, which serves `port` of `service`. There is one
/// application behind it, so nothing is retried, ejected or balanced, and the time-outs are the caller's.
pub(crate) fn inbound(
    own: &OwnPort,
    service: &Service,
    port: &ServicePort,
    mesh: &Policy,
    lives: &mut Lives,
    before: &[Arc<Cluster>],
) -> Arc<Cluster> {
    let name = ClusterName::new(Direction::Inbound, own.number, "");
    let endpoints: Vec<Endpoint> = own
        .addresses
        .iter()
        .map(|&ip| Endpoint {
            port_name: Arc::clone(&port.name),
            address: SocketAddr::new(ip, own.number),
            condition: Condition::READY,
            workload: own.workload.clone(),
            hostname: None,
            generation: Arc::clone(&own.generation),
        })
        .collect();
    let targets = targets(endpoints.iter(), lives);
    let overrides = Overrides {
        timeout: Some(None),
        per_try_timeout: Some(None),
        retries: Some(0),
        eject_after: Some(0),
        ..service.settings.clone()
    };
    Arc::new(Cluster {
        state: lives.cluster(&name, before),
        name,
        direction: Direction::Inbound,
        service: service.name.clone(),
        host: Arc::clone(&service.host),
        port: port.number,
        port_name: Arc::clone(&port.name),
        protocol: port.protocol,
        known_by: port.known_by,
        policy: overrides.over(mesh),
        affinity: SessionAffinity::None,
        domains: domains(service, Some(&service.name.namespace)),
        usable: usable(&targets, true),
        targets,
    })
}

/// The names by which a request may name a service: its short name only from its own namespace.
fn domains(service: &Service, own_namespace: Option<&str>) -> Arc<[Arc<str>]> {
    let ObjectName { namespace, name } = &service.name;
    let mut domains: Vec<Arc<str>> = vec![Arc::clone(&service.host)];
    if own_namespace == Some(namespace) {
        domains.push(Arc::clone(name));
    }
    domains.push(format!("{name}.{namespace}").into());
    domains.push(format!("{name}.{namespace}.svc").into());
    if let ServiceKind::ClusterIp(addresses) = &service.kind {
        domains.extend(addresses.iter().map(|ip| match ip {
            IpAddr::V4(ip) => Arc::from(ip.to_string()),
            IpAddr::V6(ip) => Arc::from(format!("[{ip}]")),
        }));
    }
    domains.into()
}

/// Targets sorted by their place on the ring, each address once: where it is given twice (a slice being
/// moved, a pod that replaced another) the readier one.
fn targets<'a>(endpoints: impl Iterator<Item = &'a Endpoint>, lives: &mut Lives) -> Vec<Arc<Target>> {
    let mut by_address: BTreeMap<SocketAddr, &Endpoint> = BTreeMap::new();
    for endpoint in endpoints {
        let place = by_address.entry(endpoint.address).or_insert(endpoint);
        if readiness(endpoint.condition) > readiness(place.condition) {
            *place = endpoint;
        }
    }
    let mut keyed: Vec<(u64, &Endpoint)> = by_address.into_values().map(|e| (key(e.address), e)).collect();
    keyed.sort_by_key(|&(key, endpoint)| (key, endpoint.address));
    // Two equal keys, should they ever come up, would share one place.
    for i in 1..keyed.len() {
        if keyed[i].0 <= keyed[i - 1].0 {
            keyed[i].0 = keyed[i - 1].0.saturating_add(1);
        }
    }
    keyed
        .into_iter()
        .map(|(key, endpoint)| {
            Arc::new(Target {
                address: endpoint.address,
                condition: endpoint.condition,
                workload: endpoint.workload.clone(),
                generation: Arc::clone(&endpoint.generation),
                hostname: endpoint.hostname.clone(),
                state: lives.endpoint(endpoint),
                key,
            })
        })
        .collect()
}

fn readiness(condition: Condition) -> (bool, bool) {
    (condition.ready, condition.serving)
}

fn key(address: SocketAddr) -> u64 {
    let mut hasher = DefaultHasher::new();
    address.hash(&mut hasher);
    hasher.finish()
}

/// Which targets take traffic, by the client's family: ready before terminating, own family before other.
fn usable(targets: &[Arc<Target>], publish_not_ready: bool) -> Usable {
    let ring = |test: &dyn Fn(&Target) -> bool| -> Arc<[Slot]> {
        (0_u32..)
            .zip(targets)
            .filter(|(_, target)| test(target))
            .map(|(index, target)| Slot {
                key: target.key,
                index,
            })
            .collect()
    };
    let ready = |t: &Target| publish_not_ready || t.condition.ready;
    let leaving = |t: &Target| t.condition.terminating && t.condition.serving;
    let of_family = |v6: bool| {
        let own = ring(&|t| ready(t) && t.address.is_ipv6() == v6);
        if !own.is_empty() {
            return own;
        }
        let other = ring(&ready);
        if !other.is_empty() {
            return other;
        }
        let own = ring(&|t| leaving(t) && t.address.is_ipv6() == v6);
        if own.is_empty() { ring(&leaving) } else { own }
    };
    let v4 = of_family(false);
    let v6 = of_family(true);
    // Most clusters have one family: one ring serves both kinds of client.
    let v6 = if v4 == v6 { Arc::clone(&v4) } else { v6 };
    Usable { v4, v6 }
}
