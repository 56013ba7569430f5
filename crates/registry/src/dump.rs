//! Everything a proxy was told, and what its endpoints have lived through, as plain values. The admin
//! serves it as JSON at `GET /config_dump`; `weir pc` makes its tables of it, on line or from a file.

mod problems;
mod restore;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use model::settings::Policy;
use model::{
    ClusterName, Condition, Created, Direction, KnownBy, ObjectName, Problem, Protocol, ServiceKind,
    SessionAffinity, Settings, Workload,
};
use serde::{Deserialize, Serialize};

use crate::cluster::{Cluster, Target};
use crate::snapshot::Snapshot;

pub use problems::{MOST_LISTED, ProblemsDump};

/// A whole proxy at one instant.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Dump {
    /// Version of the snapshot.
    pub version: u64,
    /// Who this proxy is, if anybody.
    pub own: Option<ObjectName>,
    /// The process that wrote this, where one runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessDump>,
    /// The capture listeners, and published ports.
    pub listeners: Vec<ListenerDump>,
    /// How it serves DNS, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsDump>,
    /// Mesh-wide settings, defaults included.
    pub settings: Settings,
    /// Outbound clusters by service and port, then inbound ones by port.
    pub clusters: Vec<ClusterDump>,
    /// Services by name.
    pub services: Vec<ServiceDump>,
    /// Workloads by name.
    pub workloads: Vec<Workload>,
    /// What is wrong with the manifests.
    #[serde(default)]
    pub problems: ProblemsDump,
}

/// A running proxy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProcessDump {
    /// Its process id, as it is in its own namespace of processes.
    pub pid: u32,
    /// Version of the program.
    pub version: String,
    /// When it started, in seconds since 1970.
    pub started: u64,
    /// The number of the network namespace that it lives in: no other one on the machine has it.
    pub netns: Option<u64>,
}

/// A capture listener, or a published port.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ListenerDump {
    /// `outbound`, `inbound` or `published`.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Of a published port: where connections that come to it are taken to be going.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<SocketAddr>,
}

/// How DNS is served, and how a client's own resolver is set.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DnsDump {
    /// Where it listens, by UDP and TCP.
    pub listeners: Vec<SocketAddr>,
    /// The file with the resolvers of names outside; clients are taken to have the same.
    pub resolv_conf: String,
    /// Whom it names, in the order in which they are asked.
    pub resolvers: Vec<SocketAddr>,
    /// The domains that clients try a short name in.
    pub search: Vec<String>,
    /// Names with so many dots are tried as they are first.
    pub ndots: u32,
    /// Seconds that answers for names of the mesh may be kept.
    pub ttl: u32,
}

/// A service.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ServiceDump {
    /// Namespace and name.
    pub name: ObjectName,
    /// Host name.
    pub host: Arc<str>,
    /// Where it is reached.
    pub kind: ServiceKind,
    /// Its TCP ports.
    pub ports: Vec<u16>,
    /// When it was made.
    #[serde(default)]
    pub created: Created,
    /// Whether its endpoints count whether ready or not.
    #[serde(default)]
    pub publish_not_ready: bool,
}

/// A cluster.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ClusterDump {
    /// `outbound|80||nginx.sidecar.svc.cluster.local`.
    pub name: ClusterName,
    /// Which way.
    pub direction: Direction,
    /// The service.
    pub service: ObjectName,
    /// Its host name.
    pub host: Arc<str>,
    /// Service port number.
    pub port: u16,
    /// Service port name.
    pub port_name: Arc<str>,
    /// What it speaks.
    pub protocol: Protocol,
    /// How that is known.
    pub known_by: KnownBy,
    /// Whether clients connect to its endpoints themselves.
    pub headless: bool,
    /// Virtual addresses that lead to it.
    pub addresses: Vec<IpAddr>,
    /// Host names by which a request may name it.
    pub domains: Arc<[Arc<str>]>,
    /// Whether one client keeps one endpoint.
    pub affinity: SessionAffinity,
    /// Settings in force, defaults included.
    pub policy: Policy,
    /// Which of them are the service's own, by their annotation names.
    pub own_settings: Vec<String>,
    /// Requests under way.
    pub requests: u32,
    /// Retries under way.
    pub retries: u32,
    /// Retries left of the burst that is allowed beyond the budget.
    #[serde(default)]
    pub retry_burst_left: u32,
    /// Its endpoints by address.
    pub endpoints: Vec<EndpointDump>,
}

/// An endpoint of a cluster.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EndpointDump {
    /// Where it listens.
    pub address: SocketAddr,
    /// What its readiness says.
    pub condition: Condition,
    /// Whether it takes new traffic (ejection apart).
    pub usable: bool,
    /// Whether a connection made to its own address is handled by this cluster.
    pub direct: bool,
    /// The pod behind it, where known.
    pub workload: Option<ObjectName>,
    /// Host name within a headless service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Arc<str>>,
    /// UID of that pod; empty where unknown.
    pub generation: Arc<str>,
    /// Milliseconds until its ejection ends; absent where it is not ejected.
    pub ejected_for_ms: Option<u64>,
    /// How often it was ejected since it last kept well for long.
    pub ejections: u32,
    /// Requests or connections under way.
    pub in_flight: u32,
}

impl Dump {
    /// A proxy at the instant `now` (milliseconds on the clock of [`Cluster::pick`]) with its
    /// listeners, and what is wrong with its manifests.
    #[must_use]
    pub fn new(snapshot: &Snapshot, listeners: &[ListenerDump], problems: &[Problem], now: u64) -> Self {
        let mut inbound: Vec<&Arc<Cluster>> = snapshot.inbound.values().collect();
        inbound.sort_by_key(|cluster| cluster.targets.first().map(|target| target.address.port()));
        let outbound = snapshot.clusters();
        let clusters = outbound.iter().chain(inbound);
        let mut services: Vec<ServiceDump> = snapshot
            .services
            .values()
            .map(|service| ServiceDump {
                name: service.name.clone(),
                host: Arc::clone(&service.host),
                kind: service.kind.clone(),
                ports: service.ports.iter().map(|port| port.number).collect(),
                created: service.created,
                publish_not_ready: service.publish_not_ready,
            })
            .collect();
        services.sort_by(|a, b| a.name.cmp(&b.name));
        let mut workloads: Vec<Workload> = snapshot.workloads.values().map(|w| (**w).clone()).collect();
        workloads.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            version: snapshot.version,
            own: snapshot.own_name.clone(),
            process: None,
            listeners: listeners.to_vec(),
            dns: None,
            settings: (*snapshot.settings).clone(),
            clusters: clusters
                .map(|cluster| cluster_dump(cluster, snapshot, now))
                .collect(),
            services,
            workloads,
            problems: ProblemsDump::new(problems),
        }
    }
}

fn cluster_dump(cluster: &Arc<Cluster>, snapshot: &Snapshot, now: u64) -> ClusterDump {
    let service = snapshot.services.get(&cluster.service);
    let addresses = match (service.map(|service| &service.kind), cluster.direction) {
        (Some(ServiceKind::ClusterIp(addresses)), Direction::Outbound) => addresses
            .iter()
            .copied()
            .filter(|&ip| {
                let winner = snapshot.by_vip.get(&SocketAddr::new(ip, cluster.port));
                winner.is_some_and(|winner| Arc::ptr_eq(winner, cluster))
            })
            .collect(),
        _ => Vec::new(),
    };
    let mut endpoints: Vec<EndpointDump> = cluster
        .targets
        .iter()
        .zip(0_u32..)
        .map(|(target, index)| endpoint_dump(cluster, target, index, snapshot, now))
        .collect();
    endpoints.sort_by_key(|endpoint| endpoint.address);
    ClusterDump {
        name: cluster.name.clone(),
        direction: cluster.direction,
        service: cluster.service.clone(),
        host: Arc::clone(&cluster.host),
        port: cluster.port,
        port_name: Arc::clone(&cluster.port_name),
        protocol: cluster.protocol,
        known_by: cluster.known_by,
        headless: service.is_some_and(|service| service.kind == ServiceKind::Headless),
        addresses,
        domains: Arc::clone(&cluster.domains),
        affinity: cluster.affinity,
        policy: cluster.policy.clone(),
        own_settings: service.map_or_else(Vec::new, |service| service.settings.names()),
        requests: cluster.state.requests(),
        retries: cluster.state.retries(),
        retry_burst_left: cluster.state.retry_burst_left(),
        endpoints,
    }
}

fn endpoint_dump(
    cluster: &Cluster,
    target: &Arc<Target>,
    index: u32,
    snapshot: &Snapshot,
    now: u64,
) -> EndpointDump {
    let rings = cluster.ring(false).iter().chain(cluster.ring(true));
    let by_own_address = match cluster.direction {
        Direction::Outbound => snapshot.by_endpoint.get(&target.address),
        Direction::Inbound => None,
    };
    EndpointDump {
        address: target.address,
        condition: target.condition,
        usable: rings.into_iter().any(|slot| slot.index == index),
        direct: by_own_address.is_some_and(|(winner, _)| std::ptr::eq(&raw const **winner, cluster)),
        workload: target.workload.clone(),
        hostname: target.hostname.clone(),
        generation: Arc::clone(&target.generation),
        ejected_for_ms: target.state.ejected_for(now),
        ejections: target.state.ejections(),
        in_flight: target.state.in_flight(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{endpoint, endpoints, mesh, name, put, service, table, workload};

    #[test]
    fn a_dump_survives_json() {
        let mut web = service("a/web", &["10.96.0.1", "fd00::1"], &[80]);
        web.settings.retries = Some(7);
        web.settings.timeout = Some(None);
        let mut table = table(
            Some("a/me"),
            [
                put(web),
                put(service("b/redis", &[], &[6379])),
                workload("a/me", &["10.1.0.9"]),
                mesh(|s| s.policy.timeout = Some(std::time::Duration::from_millis(1500))),
            ],
        );
        let mut mine = endpoint(80, "10.1.0.9:8080");
        mine.workload = Some(name("a/me"));
        table.apply(endpoints("a/web", vec![mine, endpoint(80, "10.1.0.1:8080")]));
        table.apply(endpoints("b/redis", vec![endpoint(6379, "10.1.0.1:8080")]));
        let snapshot = table.snapshot();
        let cluster = &snapshot.clusters_of(&name("a/web"))[0];
        let target = cluster
            .targets
            .iter()
            .find(|t| t.address.ip().to_string() == "10.1.0.1");
        let target = target.expect("a target");
        assert!((0..3).any(|_| cluster.failed(target, 5)));
        let _lease = crate::Lease::new(Arc::clone(target));
        let _request = crate::UnderWay::new(&cluster.state, 20);

        let listeners = [ListenerDump {
            name: "outbound".to_owned(),
            address: "0.0.0.0:15001".parse().expect("an address"),
            to: None,
        }];
        let dump = Dump::new(&snapshot, &listeners, &[], 1_005);
        let json = serde_json::to_string(&dump).expect("JSON");
        assert_eq!(serde_json::from_str::<Dump>(&json).expect("a dump"), dump);

        let names: Vec<_> = dump.clusters.iter().map(|c| c.name.as_str()).collect();
        let redis = "outbound|6379||redis.b.svc.cluster.local";
        assert_eq!(
            names,
            [redis, "outbound|80||web.a.svc.cluster.local", "inbound|8080||"]
        );
        let web = &dump.clusters[1];
        assert_eq!(web.own_settings, ["timeout", "retries"]);
        assert_eq!(
            (web.policy.retries, web.policy.timeout, web.requests),
            (7, None, 1)
        );
        assert_eq!(web.addresses.len(), 2);
        let ejected = &web.endpoints[0];
        assert_eq!((ejected.ejected_for_ms, ejected.in_flight), (Some(9_000), 1));
        assert!(ejected.usable && ejected.direct);
        assert!(!dump.clusters[0].endpoints[0].direct, "a/web has the address");
        assert!(json.contains(r#""timeout":"1s500ms""#), "{json}");
    }
}
