//! `weir pc services` and `weir pc workloads`: what the registry holds, whoever uses it.

use model::{ServiceKind, Workload};
use registry::Dump;
use registry::dump::ServiceDump;

use super::Row;

impl Row for ServiceDump {
    const COLUMNS: &'static [&'static str] = &["NAMESPACE", "SERVICE NAME", "SERVICE VIP", "PORTS"];

    fn cells(&self) -> Vec<String> {
        let address = match &self.kind {
            ServiceKind::ClusterIp(addresses) => joined(addresses),
            ServiceKind::Headless => "None".to_owned(),
            ServiceKind::ExternalName(name) => format!("-> {name}"),
        };
        vec![
            self.name.namespace.to_string(),
            self.name.name.to_string(),
            address,
            joined(&self.ports),
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
pub fn services(dump: &Dump, namespace: Option<&str>) -> Vec<ServiceDump> {
    let of_it = |service: &&ServiceDump| namespace.is_none_or(|wanted| *service.name.namespace == *wanted);
    dump.services.iter().filter(of_it).cloned().collect()
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
