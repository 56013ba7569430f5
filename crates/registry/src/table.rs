//! The table: all updates applied so far. Its only product is a [`Snapshot`].
//!
//! An update only notes which services it touches; [`Table::snapshot`] puts those together anew and leaves
//! the others as they are, so its cost is that of what changed.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use model::{Created, Endpoint, ObjectName, Service, ServiceKind, Update, Workload};

use crate::assemble;
use crate::claims::Claims;
use crate::cluster::{Cluster, Target};
use crate::lives::Lives;
use crate::snapshot::Snapshot;

/// What an update changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Changed {
    /// Something a snapshot would show.
    Yes,
    /// Nothing.
    No,
}

/// A service that claims an address. The oldest has it; of those made at the same time, the one with the
/// lowest name.
type Owner = (Created, ObjectName);
/// A port of a service that claims an address and port.
type PortOwner = (Owner, u16);

/// Everything known, mutable; owned by one task.
#[derive(Debug, Default)]
pub struct Table {
    endpoints: HashMap<ObjectName, Arc<[Endpoint]>>,
    by_ip: Claims<IpAddr, ObjectName, Arc<Workload>>,
    by_vip: Claims<SocketAddr, PortOwner, Arc<Cluster>>,
    by_vip_ip: Claims<IpAddr, Owner, Arc<Service>>,
    by_endpoint: Claims<SocketAddr, PortOwner, (Arc<Cluster>, Arc<Target>)>,
    /// The services as they stand in the maps above.
    standing: HashMap<ObjectName, Arc<Service>>,
    /// Services with an endpoint in our own pod.
    own_services: BTreeSet<ObjectName>,
    lives: Lives,
    stale: Stale,
    /// What is known now, less what is stale: the next snapshot in the making.
    next: Snapshot,
    last: Arc<Snapshot>,
}

/// What the last snapshot does not show yet.
#[derive(Debug, Default)]
struct Stale {
    services: BTreeSet<ObjectName>,
    inbound: bool,
    other: bool,
}

impl Table {
    /// An empty table for the proxy of `own` (none: a proxy that stands for no pod).
    #[must_use]
    pub fn new(own: Option<ObjectName>) -> Self {
        let next = Snapshot {
            own_name: own,
            ..Snapshot::default()
        };
        Self {
            last: Arc::new(next.clone()),
            next,
            ..Self::default()
        }
    }

    /// Applies one update. Applying it again answers [`Changed::No`].
    pub fn apply(&mut self, update: Update) -> Changed {
        let changed = match update {
            Update::Service(service) => self.put_service(*service),
            Update::ServiceGone(name) => self.drop_service(name),
            Update::Endpoints { service, endpoints } => self.put_endpoints(service, endpoints),
            Update::Workload(workload) => self.put_workload(*workload),
            Update::WorkloadGone(name) => self.drop_workload(&name),
            Update::Mesh(settings) => {
                let policy_changed = self.next.settings.policy != settings.policy;
                let changed = *self.next.settings != *settings;
                self.next.settings = Arc::from(settings);
                if policy_changed {
                    self.stale_all();
                }
                changed
            }
        };
        self.stale.other |= changed;
        if changed { Changed::Yes } else { Changed::No }
    }

    /// The table as it is now. States of endpoints and clusters that stay are carried over.
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        if !self.stale.other {
            return Arc::clone(&self.last);
        }
        for name in std::mem::take(&mut self.stale.services) {
            self.rebuild(&name);
        }
        if std::mem::take(&mut self.stale.inbound) {
            self.rebuild_inbound();
        }
        self.stale.other = false;
        self.next.version += 1;
        self.next.by_ip = self.by_ip.won().clone();
        self.next.by_vip = self.by_vip.won().clone();
        self.next.by_vip_ip = self.by_vip_ip.won().clone();
        self.next.by_endpoint = self.by_endpoint.won().clone();
        self.last = Arc::new(self.next.clone());
        Arc::clone(&self.last)
    }

    fn put_service(&mut self, service: Service) -> bool {
        if self
            .next
            .services
            .get(&service.name)
            .is_some_and(|old| **old == service)
        {
            return false;
        }
        self.stale.services.insert(service.name.clone());
        self.next.services.insert(service.name.clone(), Arc::new(service));
        true
    }

    fn drop_service(&mut self, name: ObjectName) -> bool {
        let known = self.next.services.get(&name).is_some();
        if known {
            self.next.services.remove(&name);
            self.stale.services.insert(name);
        }
        known
    }

    fn put_endpoints(&mut self, service: ObjectName, endpoints: Vec<Endpoint>) -> bool {
        let old = self.endpoints.get(&service);
        if old.map_or(&[][..], |old| &**old) == endpoints {
            return false;
        }
        self.stale.services.insert(service.clone());
        if endpoints.is_empty() {
            self.endpoints.remove(&service);
        } else {
            self.endpoints.insert(service, endpoints.into());
        }
        true
    }

    fn put_workload(&mut self, workload: Workload) -> bool {
        let old = self.next.workloads.get(&workload.name).cloned();
        if old.as_ref().is_some_and(|old| **old == workload) {
            return false;
        }
        let workload = Arc::new(workload);
        for ip in old.iter().flat_map(|old| &old.addresses) {
            self.by_ip.withdraw(ip, &workload.name);
        }
        for &ip in &workload.addresses {
            self.by_ip.put(ip, workload.name.clone(), Arc::clone(&workload));
        }
        if self.next.own_name.as_ref() == Some(&workload.name) {
            self.stale.inbound = true;
            // Which endpoints are ours may hang on our addresses.
            if old.is_none_or(|old| old.addresses != workload.addresses) {
                self.stale_all();
            }
            self.next.own = Some(Arc::clone(&workload));
        }
        self.next.workloads.insert(workload.name.clone(), workload);
        true
    }

    fn drop_workload(&mut self, name: &ObjectName) -> bool {
        let Some(old) = self.next.workloads.get(name).cloned() else {
            return false;
        };
        self.next.workloads.remove(name);
        for ip in &old.addresses {
            self.by_ip.withdraw(ip, name);
        }
        if self.next.own_name.as_ref() == Some(name) {
            self.next.own = None;
            self.stale_all();
        }
        true
    }

    fn stale_all(&mut self) {
        self.stale.services.extend(self.standing.keys().cloned());
        self.stale.inbound = true;
    }

    /// Takes a service out of the maps as it stood there, and puts it in as it is now.
    fn rebuild(&mut self, name: &ObjectName) {
        let before = self.next.by_service.get(name).cloned().unwrap_or_default();
        self.withdraw(name, &before);
        let endpoints = self.endpoints.get(name).cloned().unwrap_or_default();
        let own_now = self.next.services.get(name).is_some()
            && endpoints.iter().any(|endpoint| self.is_own_endpoint(endpoint));
        let own_before = if own_now {
            !self.own_services.insert(name.clone())
        } else {
            self.own_services.remove(name)
        };
        self.stale.inbound |= own_now || own_before;
        if let Some(service) = self.next.services.get(name).cloned() {
            self.put(service, &endpoints, &before);
        }
    }

    fn withdraw(&mut self, name: &ObjectName, clusters: &[Arc<Cluster>]) {
        let Some(service) = self.standing.remove(name) else {
            return;
        };
        let owner = owner(&service);
        for ip in virtual_addresses(&service) {
            self.by_vip_ip.withdraw(ip, &owner);
            for cluster in clusters {
                let owner = (owner.clone(), cluster.port);
                self.by_vip.withdraw(&SocketAddr::new(*ip, cluster.port), &owner);
            }
        }
        for cluster in clusters {
            let owner = (owner.clone(), cluster.port);
            for target in &cluster.targets {
                self.by_endpoint.withdraw(&target.address, &owner);
            }
        }
        self.next.by_service.remove(name);
    }

    fn put(&mut self, service: Arc<Service>, endpoints: &[Endpoint], before: &[Arc<Cluster>]) {
        let name = &service.name;
        let own_namespace = self.next.own_name.as_ref().map(|own| &*own.namespace);
        let policy = &self.next.settings.policy;
        let clusters = assemble::outbound(
            &service,
            endpoints,
            policy,
            own_namespace,
            &mut self.lives,
            before,
        );
        let owner = owner(&service);
        for ip in virtual_addresses(&service) {
            self.by_vip_ip.put(*ip, owner.clone(), Arc::clone(&service));
            for cluster in &*clusters {
                let owner = (owner.clone(), cluster.port);
                self.by_vip
                    .put(SocketAddr::new(*ip, cluster.port), owner, Arc::clone(cluster));
            }
        }
        for cluster in &*clusters {
            for target in &cluster.targets {
                let owner = (owner.clone(), cluster.port);
                let value = (Arc::clone(cluster), Arc::clone(target));
                self.by_endpoint.put(target.address, owner, value);
            }
        }
        self.next.by_service.insert(name.clone(), clusters);
        self.standing.insert(name.clone(), service);
    }

    /// Our own ports: those of the endpoints that are in our own pod. Each is reached at every address of
    /// the pod, whichever of them the service lists.
    fn rebuild_inbound(&mut self) {
        let before: Vec<Arc<Cluster>> = self.next.inbound.values().cloned().collect();
        let mut ports: BTreeMap<u16, (&Arc<Service>, usize, BTreeSet<IpAddr>)> = BTreeMap::new();
        let own = self.own_services.iter();
        let mut services: Vec<&Arc<Service>> = own.filter_map(|name| self.next.services.get(name)).collect();
        services.sort_by_cached_key(|service| owner(service));
        for service in services {
            let Some(endpoints) = self.endpoints.get(&service.name) else {
                continue;
            };
            let mut order: Vec<usize> = (0..service.ports.len()).collect();
            order.sort_by_key(|&index| service.ports[index].number);
            for index in order {
                for endpoint in endpoints
                    .iter()
                    .filter(|e| e.port_name == service.ports[index].name)
                {
                    if self.is_own_endpoint(endpoint) {
                        ports
                            .entry(endpoint.address.port())
                            .or_insert_with(|| (service, index, BTreeSet::new()))
                            .2
                            .insert(endpoint.address.ip());
                    }
                }
            }
        }
        let policy = &self.next.settings.policy;
        let own = self.next.own.as_ref();
        let generation = own.map_or_else(Arc::default, |own| Arc::clone(&own.uid));
        let inbound = ports
            .into_iter()
            .map(|(number, (service, index, mut addresses))| {
                addresses.extend(own.iter().flat_map(|own| own.addresses.iter().copied()));
                let place = assemble::OwnPort {
                    number,
                    addresses,
                    workload: self.next.own_name.clone(),
                    generation: Arc::clone(&generation),
                };
                let cluster = assemble::inbound(
                    &place,
                    service,
                    &service.ports[index],
                    policy,
                    &mut self.lives,
                    &before,
                );
                (number, cluster)
            });
        self.next.inbound = Arc::new(inbound.collect());
    }

    fn is_own_endpoint(&self, endpoint: &Endpoint) -> bool {
        match (&endpoint.workload, &self.next.own_name) {
            (Some(workload), Some(own)) => workload == own,
            (None, Some(_)) => self
                .next
                .own
                .as_ref()
                .is_some_and(|own| own.addresses.contains(&endpoint.address.ip())),
            (_, None) => false,
        }
    }
}

fn owner(service: &Service) -> Owner {
    (service.created, service.name.clone())
}

fn virtual_addresses(service: &Service) -> &[IpAddr] {
    match &service.kind {
        ServiceKind::ClusterIp(addresses) => addresses,
        ServiceKind::Headless | ServiceKind::ExternalName(_) => &[],
    }
}
