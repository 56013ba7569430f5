//! `weir pc services` and `weir pc workloads`: what the registry holds, whoever uses it.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use model::{Direction, ObjectName, ServiceKind, Workload};
use registry::Dump;
use registry::dump::ServiceDump;
use serde::Serialize;

use super::Row;

/// One service.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ServiceRow {
    /// The service.
    #[serde(flatten)]
    pub service: ServiceDump,
    /// Addresses of its endpoints.
    pub endpoints: usize,
    /// Those of them that take new traffic on some port.
    pub usable_endpoints: usize,
}

impl Row for ServiceRow {
    const COLUMNS: &'static [&'static str] =
        &["NAMESPACE", "SERVICE NAME", "SERVICE VIP", "PORTS", "ENDPOINTS"];

    fn cells(&self) -> Vec<String> {
        let service = &self.service;
        let address = match &service.kind {
            ServiceKind::ClusterIp(addresses) => joined(addresses),
            ServiceKind::Headless => "None".to_owned(),
            ServiceKind::ExternalName(name) => format!("-> {name}"),
        };
        vec![
            service.name.namespace.to_string(),
            service.name.name.to_string(),
            address,
            joined(&service.ports),
            format!("{}/{}", self.usable_endpoints, self.endpoints),
        ]
    }
}

impl Row for Workload {
    const COLUMNS: &'static [&'static str] = &[
        "NAMESPACE",
        "POD NAME",
        "ADDRESS",
        "NODE",
        "READY",
        "SERVICE ACCOUNT",
    ];
    const NARROW: usize = 5;

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.namespace.to_string(),
            self.name.name.to_string(),
            joined(&self.addresses),
            if self.node.is_empty() {
                "-".to_owned()
            } else {
                self.node.to_string()
            },
            self.ready.to_string(),
            self.service_account.to_string(),
        ]
    }
}

/// The rows of a namespace, or all, by name.
#[must_use]
pub fn services(dump: &Dump, namespace: Option<&str>) -> Vec<ServiceRow> {
    let of_it = |service: &&ServiceDump| namespace.is_none_or(|wanted| *service.name.namespace == *wanted);
    let mut endpoints: HashMap<&ObjectName, BTreeSet<(IpAddr, bool)>> = HashMap::new();
    for cluster in dump
        .clusters
        .iter()
        .filter(|cluster| cluster.direction == Direction::Outbound)
    {
        let addresses = cluster.endpoints.iter().map(|e| (e.address.ip(), e.usable));
        endpoints.entry(&cluster.service).or_default().extend(addresses);
    }
    let row = |service: &ServiceDump| {
        let of_it = endpoints.get(&service.name).into_iter().flatten();
        let all: BTreeSet<IpAddr> = of_it.clone().map(|&(ip, _)| ip).collect();
        ServiceRow {
            service: service.clone(),
            endpoints: all.len(),
            usable_endpoints: of_it.filter(|&&(_, usable)| usable).count(),
        }
    };
    dump.services.iter().filter(of_it).map(row).collect()
}

/// The rows of a namespace, or all, by name.
#[must_use]
pub fn workloads(dump: &Dump, namespace: Option<&str>) -> Vec<Workload> {
    let of_it = |workload: &&Workload| namespace.is_none_or(|wanted| *workload.name.namespace == *wanted);
    dump.workloads.iter().filter(of_it).cloned().collect()
}

fn joined<T: ToString>(list: &[T]) -> String {
    if list.is_empty() {
        return "-".to_owned();
    }
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
