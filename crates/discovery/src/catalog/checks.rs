//! Mistakes that no object has by itself, only two together: port names that do not meet. Kubernetes
//! passes them over in silence, and the service has no endpoints.

use std::collections::BTreeSet;

use model::{Endpoint, ErrorName, ObjectName, Service, TargetPort};

use super::Catalog;
use crate::parse::{Key, Kind, Object, PodObject, ServiceObject};
use runtime::nearest::nearest;

/// A warning at the object whose author can mend it.
#[derive(Debug)]
pub(super) struct Mismatch {
    pub(super) at: Key,
    pub(super) field: &'static str,
    pub(super) name: ErrorName,
    pub(super) message: String,
}

/// What does not meet between a service and what gives its endpoints.
pub(super) fn of_service(catalog: &Catalog, name: &ObjectName) -> Vec<Mismatch> {
    let Some(Object::Service(service)) = catalog.get(Kind::Service, name) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut note = |kind, name: &ObjectName, field, message: Option<String>| {
        let at = Key {
            kind,
            name: name.clone(),
        };
        found.extend(message.map(|message| Mismatch {
            at,
            field,
            name: ErrorName::ManifestMismatch,
            message,
        }));
    };
    if let Some(slices) = catalog.slices_of.get(name) {
        for slice_name in slices {
            if let Some(Object::EndpointSlice(slice)) = catalog.get(Kind::EndpointSlice, slice_name) {
                note(
                    Kind::EndpointSlice,
                    slice_name,
                    "ports",
                    unmatched(service, &slice.endpoints),
                );
            }
        }
    } else if let Some(Object::Endpoints(object)) = catalog.get(Kind::Endpoints, name) {
        note(
            Kind::Endpoints,
            name,
            "subsets",
            unmatched(service, &object.endpoints),
        );
    } else {
        note(
            Kind::Service,
            name,
            "spec.ports",
            no_such_container_port(catalog, service),
        );
    }
    found
}

/// Services that claim an address which another has, too: easily made by copying a manifest.
pub(super) fn shared_addresses(catalog: &Catalog) -> Vec<Mismatch> {
    let mut found = Vec::new();
    for (ip, names) in catalog.addressed.iter().filter(|(_, names)| names.len() > 1) {
        let services = names
            .iter()
            .filter_map(|name| match catalog.get(Kind::Service, name) {
                Some(Object::Service(object)) => Some(&object.service),
                _ => None,
            });
        let mut services: Vec<&Service> = services.collect();
        // As the registry orders them.
        services.sort_by_key(|service| (service.created, &service.name));
        let Some((owner, others)) = services.split_first() else {
            continue;
        };
        found.extend(others.iter().map(|service| {
            let why = if owner.created < service.created {
                "is older"
            } else {
                "comes first by name, neither being older,"
            };
            Mismatch {
                at: Key {
                    kind: Kind::Service,
                    name: service.name.clone(),
                },
                field: "spec.clusterIP",
                name: ErrorName::AddressTwice,
                message: format!(
                    "{ip} is also the address of Service {}, which {why} and so has the ports that both have; give one of the two another",
                    owner.name
                ),
            }
        }));
    }
    found
}

/// A port of endpoints by a name that their service does not have.
fn unmatched(service: &ServiceObject, endpoints: &[Endpoint]) -> Option<String> {
    let service = &service.service;
    let names: Vec<&str> = service.ports.iter().map(|port| &*port.name).collect();
    let stray = endpoints
        .iter()
        .find(|endpoint| !names.contains(&&*endpoint.port_name))?;
    if names.is_empty() {
        return None;
    }
    let hint = nearest(&stray.port_name, &names)
        .map(|name| format!("; did you mean `{name}`?"))
        .unwrap_or_default();
    Some(format!(
        "Service {} has no TCP port named `{}` (it has `{}`), so these endpoints are not used{hint}",
        service.name,
        stray.port_name,
        names.join("`, `")
    ))
}

/// A `targetPort` by a name that no pod has, where pods are what gives the endpoints.
fn no_such_container_port(catalog: &Catalog, object: &ServiceObject) -> Option<String> {
    let service = &object.service;
    let mut names = service.ports.iter().filter_map(|port| match &port.target {
        TargetPort::Name(name) => Some(name),
        TargetPort::Number(_) => None,
    });
    let first = names.next()?;
    let pods: Vec<&PodObject> = catalog.selected(object).collect();
    let ports: BTreeSet<&str> = pods
        .iter()
        .flat_map(|pod| &pod.ports)
        .map(|(name, _)| &**name)
        .collect();
    let missing = std::iter::once(first)
        .chain(names)
        .find(|name| !ports.contains(&***name))?;
    (!pods.is_empty()).then(|| {
        format!("no selected pod has a TCP container port named `{missing}`, so that port has no endpoints; name it in the pod, or give its number")
    })
}
