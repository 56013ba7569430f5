//! `discovery.k8s.io/v1` EndpointSlice.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use model::{Condition, Endpoint, ErrorName, ObjectName};

use super::node::Node;

/// An EndpointSlice: some endpoints of one service.
#[derive(Clone, PartialEq, Debug)]
pub struct SliceObject {
    /// The service they belong to.
    pub service: ObjectName,
    /// One for each address and TCP port.
    pub endpoints: Vec<Endpoint>,
}

const FIELDS: [&str; 6] = [
    "addressType",
    "apiVersion",
    "endpoints",
    "kind",
    "metadata",
    "ports",
];
const ENDPOINT: [&str; 8] = [
    "addresses",
    "conditions",
    "deprecatedTopology",
    "hints",
    "hostname",
    "nodeName",
    "targetRef",
    "zone",
];
const PORT: [&str; 4] = ["appProtocol", "name", "port", "protocol"];
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

pub(super) fn read(root: &Node, name: Option<&ObjectName>) -> Option<SliceObject> {
    root.known(&FIELDS);
    let label = root.at("metadata").at("labels").at(SERVICE_LABEL);
    let is_name = root.at("addressType").word(&["IPv4", "IPv6", "FQDN"]) == Some("FQDN");
    if is_name {
        root.at("addressType")
            .remark("endpoints by name are not balanced over; the slice is passed over");
    }
    let namespace = name.map_or("default", |name| &name.namespace);
    let ports = tcp_ports(&root.at("ports"), |number| {
        number.remark("is not given (\"all ports\"), which says nothing to a proxy; it is passed over");
    });
    let mut endpoints = Vec::new();
    for item in root.at("endpoints").items() {
        item.known(&ENDPOINT);
        let condition = condition(&item.at("conditions"));
        let (workload, generation) = pod_behind(&item.at("targetRef"), namespace);
        let hostname: Option<Arc<str>> = item.at("hostname").text().map(Into::into);
        let addresses = item.at("addresses");
        if addresses.is_absent() {
            addresses.error("is missing");
        }
        for address in addresses.items() {
            let Some(ip) = (if is_name {
                None
            } else {
                address.parsed::<IpAddr>("an IP address")
            }) else {
                continue;
            };
            endpoints.extend(ports.iter().map(|(port_name, port)| Endpoint {
                port_name: Arc::clone(port_name),
                address: SocketAddr::new(ip.to_canonical(), *port),
                condition,
                workload: workload.clone(),
                hostname: hostname.clone(),
                generation: Arc::clone(&generation),
            }));
        }
    }
    let Some(service) = label.text().filter(|text| !text.is_empty()) else {
        label.warn(
            ErrorName::ManifestMismatch,
            "is missing, so the slice belongs to no service and is passed over",
        );
        return Some(SliceObject {
            service: ObjectName::new(namespace, ""),
            endpoints: Vec::new(),
        });
    };
    Some(SliceObject {
        service: ObjectName::new(namespace, service),
        endpoints,
    })
}

/// Names and numbers of the TCP ports in a list; `without` is told of one that has no number.
pub(super) fn tcp_ports(node: &Node, without: impl Fn(&Node)) -> Vec<(Arc<str>, u16)> {
    let mut ports = Vec::new();
    for item in node.items() {
        item.known(&PORT);
        let protocol = item.at("protocol").word(&["TCP", "UDP", "SCTP"]).unwrap_or("TCP");
        let name = item.at("name").text().unwrap_or_default();
        let number = item.at("port");
        if number.is_absent() {
            without(&number);
        } else if let Some(number) = number.port()
            && protocol == "TCP"
        {
            ports.push((name.into(), number));
        }
    }
    ports
}

/// What is not said: ready, serving as it is ready, not terminating.
fn condition(node: &Node) -> Condition {
    node.known(&["ready", "serving", "terminating"]);
    let ready = node.at("ready").flag().unwrap_or(true);
    Condition {
        ready,
        serving: node.at("serving").flag().unwrap_or(ready),
        terminating: node.at("terminating").flag().unwrap_or(false),
    }
}

/// The pod that a `targetRef` refers to, and its UID.
pub(super) fn pod_behind(node: &Node, namespace: &str) -> (Option<ObjectName>, Arc<str>) {
    let uid = node.at("uid").text().unwrap_or_default().into();
    let namespace = node.at("namespace").text().unwrap_or(namespace);
    let name = match node.at("kind").text() {
        Some("Pod") => node.at("name").text(),
        _ => None,
    };
    (name.map(|name| ObjectName::new(namespace, name)), uid)
}
