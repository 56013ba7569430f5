//! The whole registry at one instant, immutable; swapped whole. Made by [`crate::Table::snapshot`]; a copy
//! shares all that did not change with the one before.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use model::{ObjectName, Service, Settings, Workload};

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
}
