//! `v1` Endpoints, the older form of EndpointSlices.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use model::{Condition, Endpoint, ObjectName};

use super::node::Node;
use super::slice::{pod_behind, tcp_ports};

/// An Endpoints object: all endpoints of the service of the same name.
#[derive(Clone, PartialEq, Debug)]
pub struct EndpointsObject {
    /// One for each address and TCP port.
    pub endpoints: Vec<Endpoint>,
}

const ADDRESS: [&str; 4] = ["hostname", "ip", "nodeName", "targetRef"];

pub(super) fn read(root: &Node, name: Option<&ObjectName>) -> Option<EndpointsObject> {
    root.known(&["apiVersion", "kind", "metadata", "subsets"]);
    let namespace = name.map_or("default", |name| &name.namespace);
    let mut endpoints = Vec::new();
    for subset in root.at("subsets").items() {
        subset.known(&["addresses", "notReadyAddresses", "ports"]);
        let ports = tcp_ports(&subset.at("ports"), |number| number.error("is missing"));
        let lists = [
            ("addresses", Condition::READY),
            ("notReadyAddresses", Condition::NOT_READY),
        ];
        for (field, condition) in lists {
            for address in subset.at(field).items() {
                endpoints.extend(of_address(&address, condition, &ports, namespace));
            }
        }
    }
    name.map(|_| EndpointsObject { endpoints })
}

fn of_address(
    node: &Node,
    condition: Condition,
    ports: &[(Arc<str>, u16)],
    namespace: &str,
) -> Vec<Endpoint> {
    node.known(&ADDRESS);
    let (workload, generation) = pod_behind(&node.at("targetRef"), namespace);
    let hostname: Option<Arc<str>> = node.at("hostname").text().map(Into::into);
    let ip = node.at("ip");
    if ip.is_absent() {
        ip.error("is missing");
    }
    let Some(ip) = ip.parsed::<IpAddr>("an IP address") else {
        return Vec::new();
    };
    ports
        .iter()
        .map(|(port_name, port)| Endpoint {
            port_name: Arc::clone(port_name),
            address: SocketAddr::new(ip.to_canonical(), *port),
            condition,
            workload: workload.clone(),
            hostname: hostname.clone(),
            generation: Arc::clone(&generation),
        })
        .collect()
}
