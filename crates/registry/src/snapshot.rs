//! The whole registry at one instant, immutable; swapped whole. Made by [`crate::Table::snapshot`]; a copy
//! shares all that did not change with the one before.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use model::{ObjectName, Service, ServiceKind, Settings, Workload};

use crate::cluster::{Cluster, Target};
use crate::cow::CowMap;

/// The whole registry at one instant, as one proxy sees it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Grows by one with each change.
    pub version: u64,
    /// Mesh-wide settings.
    pub settings: Arc<Settings>,
    /// Who this proxy is, if anybody; its pod may still be unknown.
    pub own_name: Option<ObjectName>,
    /// The workload this proxy belongs to, where known.
    pub own: Option<Arc<Workload>>,
    /// Every service by name.
    pub services: CowMap<ObjectName, Arc<Service>>,
    /// Every workload by name.
    pub workloads: CowMap<ObjectName, Arc<Workload>>,
    /// Workloads by address; where several share one, the one with the lowest name.
    pub by_ip: CowMap<IpAddr, Arc<Workload>>,
    /// Outbound clusters of each service, in the order of its ports.
    pub by_service: CowMap<ObjectName, Arc<[Arc<Cluster>]>>,
    /// Outbound clusters by virtual address and port. Of several services that claim one, the oldest has it,
    /// of those the one with the lowest name.
    pub by_vip: CowMap<SocketAddr, Arc<Cluster>>,
    /// Services by virtual address.
    pub by_vip_ip: CowMap<IpAddr, Arc<Service>>,
    /// Outbound endpoints by their own address and port. One that serves several services is, by the same
    /// rule, that of one of them, and there of the lowest port.
    pub by_endpoint: CowMap<SocketAddr, (Arc<Cluster>, Arc<Target>)>,
    /// Inbound clusters by our own port; of several services that claim one, the same rule holds.
    pub inbound: Arc<HashMap<u16, Arc<Cluster>>>,
}

/// What a host name stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resolved {
    /// Addresses: the virtual ones, or of a headless service those of its endpoints; of a service that
    /// is there but has none at the moment, none.
    Addresses(Vec<IpAddr>),
    /// Another name, to be looked up outside.
    Alias(Arc<str>),
}

impl Snapshot {
    /// All outbound clusters, sorted by service and port.
    #[must_use]
    pub fn clusters(&self) -> Vec<Arc<Cluster>> {
        let mut all: Vec<Arc<Cluster>> = self.by_service.values().flat_map(|c| c.iter().cloned()).collect();
        all.sort_by(|a, b| (&a.host, a.port).cmp(&(&b.host, b.port)));
        all
    }

    /// Outbound clusters of one service, in the order of its ports.
    #[must_use]
    pub fn clusters_of(&self, service: &ObjectName) -> &[Arc<Cluster>] {
        self.by_service.get(service).map_or(&[], |clusters| clusters)
    }

    /// Whether an address is this workload's own or loopback.
    #[must_use]
    pub fn is_own(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.own.as_ref().is_some_and(|own| own.addresses.contains(&ip))
    }

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
            None if namespaced.len() == host.len() => {
                ObjectName::new(Arc::clone(&self.own_name.as_ref()?.namespace), namespaced)
            }
            None => return None,
        };
        self.services.get(&name)
    }

    /// What a host name stands for, the pods of a headless service (`redis-0.redis.data`) included.
    /// `None`: not a name of the mesh.
    #[must_use]
    pub fn resolve(&self, host: &str) -> Option<Resolved> {
        if let Some(service) = self.service_by_host(host) {
            return Some(match &service.kind {
                ServiceKind::ClusterIp(addresses) => Resolved::Addresses(addresses.clone()),
                ServiceKind::ExternalName(name) => Resolved::Alias(Arc::clone(name)),
                ServiceKind::Headless => Resolved::Addresses(self.headless_addresses(&service.name, None)),
            });
        }
        let (pod, service) = host.split_once('.')?;
        let service = self.service_by_host(service)?;
        let addresses = self.headless_addresses(&service.name, Some(&pod.to_ascii_lowercase()));
        (service.kind == ServiceKind::Headless && !addresses.is_empty())
            .then_some(Resolved::Addresses(addresses))
    }

    /// Sorted, each once; `hostname` keeps only the pod of that host name.
    fn headless_addresses(&self, service: &ObjectName, hostname: Option<&str>) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for cluster in self.clusters_of(service) {
            for v6 in [false, true] {
                let usable = cluster
                    .ring(v6)
                    .iter()
                    .map(|slot| &cluster.targets[slot.index as usize]);
                addresses.extend(
                    usable
                        .filter(|target| hostname.is_none() || target.hostname.as_deref() == hostname)
                        .map(|target| target.address.ip()),
                );
            }
        }
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }
}

/// What follows name and namespace in a full host name.
const CLUSTER_DOMAIN: &str = ".svc.cluster.local";

/// One label of a host name.
fn name_part(text: &str) -> Option<&str> {
    (!text.is_empty() && !text.contains('.')).then_some(text)
}
