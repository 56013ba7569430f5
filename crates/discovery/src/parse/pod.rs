//! `v1` Pod.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use model::{Condition, ObjectName, Workload};

use super::node::Node;

/// A Pod, and what is needed to tell whose endpoint it is.
#[derive(Clone, PartialEq, Debug)]
pub struct PodObject {
    /// What the registry is told.
    pub workload: Workload,
    /// Its labels.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Names and numbers of the TCP ports of its containers.
    pub ports: Vec<(Arc<str>, u16)>,
    /// As an endpoint; `None` where it has ended and is none.
    pub condition: Option<Condition>,
    /// Host name and the headless service within which it holds.
    pub hostname: Option<(Arc<str>, Arc<str>)>,
}

const PORT: [&str; 5] = ["containerPort", "hostIP", "hostPort", "name", "protocol"];

pub(super) fn read(root: &Node, name: Option<&ObjectName>) -> Option<PodObject> {
    root.known(&["apiVersion", "kind", "metadata", "spec", "status"]);
    let (metadata, spec, status) = (root.at("metadata"), root.at("spec"), root.at("status"));
    let labels = metadata
        .at("labels")
        .entries()
        .filter_map(|(label, value)| Some((label.into(), value.text()?.into())))
        .collect();
    let uid = metadata.at("uid").text().unwrap_or_default();
    let is_leaving = metadata.at("deletionTimestamp").text().is_some();
    let has_ended = matches!(status.at("phase").text(), Some("Succeeded" | "Failed"));
    // Written by hand, a pod often has no conditions: not said is ready, as in an EndpointSlice.
    let ready = ready_condition(&status.at("conditions")).unwrap_or(true);
    let hostname = spec.at("hostname").text().zip(spec.at("subdomain").text());
    let workload = Workload {
        name: name?.clone(),
        uid: uid.into(),
        addresses: addresses(&status),
        service_account: spec.at("serviceAccountName").text().unwrap_or("default").into(),
        node: spec.at("nodeName").text().unwrap_or_default().into(),
        ready: ready && !is_leaving && !has_ended,
    };
    Some(PodObject {
        workload,
        labels,
        ports: container_ports(&spec),
        condition: (!has_ended).then_some(Condition {
            ready: ready && !is_leaving,
            serving: ready,
            terminating: is_leaving,
        }),
        hostname: hostname.map(|(host, service)| (host.into(), service.into())),
    })
}

/// `podIPs`, or `podIP` where that is all there is; each family once.
fn addresses(status: &Node) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = status
        .at("podIPs")
        .items()
        .filter_map(|item| item.at("ip").parsed::<IpAddr>("an IP address"))
        .collect();
    if addresses.is_empty() {
        addresses.extend(status.at("podIP").parsed::<IpAddr>("an IP address"));
    }
    addresses.iter_mut().for_each(|ip| *ip = ip.to_canonical());
    addresses.dedup_by_key(|ip| ip.is_ipv6());
    addresses
}

fn ready_condition(node: &Node) -> Option<bool> {
    node.items()
        .find(|item| item.at("type").text() == Some("Ready"))
        .and_then(|item| Some(item.at("status").text()? == "True"))
}

/// Of the containers, and of those init containers that keep running beside them.
fn container_ports(spec: &Node) -> Vec<(Arc<str>, u16)> {
    let sidecars = spec.at("initContainers");
    let sidecars = sidecars
        .items()
        .filter(|item| item.at("restartPolicy").text() == Some("Always"));
    let mut ports = Vec::new();
    for container in spec.at("containers").items().chain(sidecars) {
        for port in container.at("ports").items() {
            port.known(&PORT);
            let protocol = port.at("protocol").word(&["TCP", "UDP", "SCTP"]).unwrap_or("TCP");
            let name = port.at("name").text().unwrap_or_default();
            if let (Some(number), "TCP") = (port.at("containerPort").port(), protocol) {
                ports.push((name.into(), number));
            }
        }
    }
    ports
}
