//! Pods as the endpoints of the services that select them, where no slice says what the endpoints are.

use std::net::SocketAddr;
use std::sync::Arc;

use model::{Endpoint, TargetPort};

use crate::parse::{Family, PodObject, ServiceObject};

/// Whether a service selects a pod. One without a selector selects none.
pub(super) fn selects(service: &ServiceObject, pod: &PodObject) -> bool {
    !service.selector.is_empty()
        && service
            .selector
            .iter()
            .all(|(label, value)| pod.labels.get(label) == Some(value))
}

/// One for each port of the service that the pod has, and each of its addresses of the service's families.
pub(super) fn endpoints_of_pod(object: &ServiceObject, pod: &PodObject) -> Vec<Endpoint> {
    let Some(condition) = pod.condition else {
        return Vec::new();
    };
    let families = &object.families;
    let hostname = pod
        .hostname
        .as_ref()
        .filter(|(_, subdomain)| *subdomain == object.service.name.name)
        .map(|(host, _)| Arc::clone(host));
    let mut endpoints = Vec::new();
    for port in &object.service.ports {
        let number = match &port.target {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => pod
                .ports
                .iter()
                .find(|(n, _)| n == name)
                .map(|&(_, number)| number),
        };
        let Some(number) = number else { continue };
        let addresses = pod.workload.addresses.iter();
        endpoints.extend(
            addresses
                .filter(|ip| families.is_empty() || families.contains(&Family::of(**ip)))
                .map(|&ip| Endpoint {
                    port_name: Arc::clone(&port.name),
                    address: SocketAddr::new(ip, number),
                    condition,
                    workload: Some(pod.workload.name.clone()),
                    hostname: hostname.clone(),
                    generation: Arc::clone(&pod.workload.uid),
                }),
        );
    }
    endpoints
}
