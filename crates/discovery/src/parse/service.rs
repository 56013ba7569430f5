//! `v1` Service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use model::{
    Created, ErrorName, ObjectName, Protocol, Service, ServiceKind, ServicePort, SessionAffinity, TargetPort,
};

use super::node::Node;
use super::settings;
use runtime::nearest::nearest;

/// A Service, and what is needed to find its endpoints and its address.
#[derive(Clone, PartialEq, Debug)]
pub struct ServiceObject {
    /// What the registry is told. `ClusterIp` of no address: it has none yet and is to be given one.
    pub service: Service,
    /// Labels of its pods; empty where its endpoints are given by hand.
    pub selector: BTreeMap<Arc<str>, Arc<str>>,
    /// Address families of its endpoints; empty where it does not say.
    pub families: Vec<Family>,
}

/// An IP address family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv6() { Self::V6 } else { Self::V4 }
    }
}

/// Every field of ServiceSpec in Kubernetes 1.34.
const SPEC: [&str; 20] = [
    "allocateLoadBalancerNodePorts",
    "clusterIP",
    "clusterIPs",
    "externalIPs",
    "externalName",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "internalTrafficPolicy",
    "ipFamilies",
    "ipFamilyPolicy",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "ports",
    "publishNotReadyAddresses",
    "selector",
    "sessionAffinity",
    "sessionAffinityConfig",
    "trafficDistribution",
    "type",
];
const PORT: [&str; 6] = [
    "appProtocol",
    "name",
    "nodePort",
    "port",
    "protocol",
    "targetPort",
];

/// Kubernetes' default of `sessionAffinityConfig.clientIP.timeoutSeconds`, and its limits.
const AFFINITY_SECONDS: u64 = 10_800;
const AFFINITY_SECONDS_MAX: u64 = 86_400;

pub(super) fn read(root: &Node, name: Option<&ObjectName>) -> Option<ServiceObject> {
    root.known(&["apiVersion", "kind", "metadata", "spec", "status"]);
    let spec = root.at("spec");
    spec.known(&SPEC);
    let kind = kind(&spec);
    let families = families(&spec, &kind);
    let is_alias = matches!(kind, ServiceKind::ExternalName(_));
    let ports = if is_alias {
        Vec::new()
    } else {
        ports(&spec.at("ports"))
    };
    let selector = spec
        .at("selector")
        .entries()
        .filter_map(|(label, value)| Some((label.into(), value.text()?.into())))
        .collect();
    let publish_not_ready = spec.at("publishNotReadyAddresses").flag().unwrap_or(false);
    let affinity = affinity(&spec);
    let settings = settings::overrides(&root.at("metadata").at("annotations"));
    let name = name?.clone();
    let service = Service {
        host: format!("{}.{}.svc.cluster.local", name.name, name.namespace).into(),
        name,
        kind,
        ports,
        affinity,
        created: created(&root.at("metadata").at("creationTimestamp")),
        publish_not_ready,
        settings,
    };
    Some(ServiceObject {
        service,
        selector,
        families,
    })
}

/// As Kubernetes writes it; none before the object was applied to a cluster.
fn created(node: &Node) -> Created {
    let Some(text) = node.text() else {
        return Created::Unknown;
    };
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => Created::At(time.as_second()),
        Err(_) => {
            node.warn(
                ErrorName::ManifestField,
                "is not a time such as `2026-08-03T10:04:11Z` and is ignored",
            );
            Created::Unknown
        }
    }
}

fn kind(spec: &Node) -> ServiceKind {
    let node = spec.at("type");
    if node.word(&["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]) == Some("ExternalName") {
        let external = spec.at("externalName").require_text().unwrap_or_default();
        return ServiceKind::ExternalName(external.into());
    }
    let mut nodes: Vec<Node> = spec.at("clusterIPs").items().collect();
    if nodes.is_empty() {
        nodes.push(spec.at("clusterIP"));
    }
    let mut addresses = Vec::new();
    for node in nodes {
        match node.text() {
            Some("None") => return ServiceKind::Headless,
            Some("") | None => {}
            Some(_) => addresses.extend(node.parsed::<IpAddr>("an IP address or `None`")),
        }
    }
    ServiceKind::ClusterIp(addresses)
}

fn families(spec: &Node, kind: &ServiceKind) -> Vec<Family> {
    let node = spec.at("ipFamilies");
    let said: Vec<Family> = node
        .items()
        .filter_map(|item| match item.word(&["IPv4", "IPv6"])? {
            "IPv6" => Some(Family::V6),
            _ => Some(Family::V4),
        })
        .collect();
    match kind {
        ServiceKind::ClusterIp(addresses) if said.is_empty() => {
            addresses.iter().map(|&ip| Family::of(ip)).collect()
        }
        _ => said,
    }
}

fn ports(node: &Node) -> Vec<ServicePort> {
    let mut ports: Vec<ServicePort> = Vec::new();
    let mut passed_over: Vec<String> = Vec::new();
    let mut names = BTreeSet::new();
    let items: Vec<Node> = node.items().collect();
    let count = items.len();
    for item in items {
        item.known(&PORT);
        let protocol = item.at("protocol").word(&["TCP", "UDP", "SCTP"]).unwrap_or("TCP");
        let number = item.at("port");
        if number.is_absent() {
            number.error("is missing");
        }
        let number = number.port();
        let name = item.at("name").text().unwrap_or_default();
        if name.is_empty() && count > 1 {
            item.at("name")
                .error("is missing; each of several ports needs one");
        } else if !names.insert(name) {
            item.at("name")
                .error(format!("`{name}` is another port's name already"));
        }
        let target = target(&item.at("targetPort"), number);
        let app_protocol = item.at("appProtocol").text();
        let Some((number, target)) = number.zip(target) else {
            continue;
        };
        if protocol != "TCP" {
            passed_over.push(format!("{number}/{protocol}"));
            continue;
        }
        if ports.iter().any(|port| port.number == number) {
            item.at("port").error(format!("{number}/TCP is there twice"));
        }
        let (protocol, known_by) = Protocol::declared(app_protocol, Some(name));
        if protocol == Protocol::Undeclared {
            undeclared(&item, app_protocol.unwrap_or_default(), name);
        }
        ports.push(ServicePort {
            number,
            name: name.into(),
            protocol,
            known_by,
            target,
        });
    }
    if !passed_over.is_empty() {
        node.remark(format!(
            "{} not captured: only TCP is; it goes where it would go without Weir",
            passed_over.join(", ")
        ));
    }
    ports
}

/// A word for the protocol that is none, but near one. Any other value of `appProtocol` may mean something to
/// somebody else, and most names of ports mean nothing.
fn undeclared(item: &Node, app_protocol: &str, name: &str) {
    let known = Protocol::words();
    let near = |word: &str| {
        // Of the shortest almost any is near.
        let word = Some(word).filter(|word| word.len() > 3);
        word.and_then(|word| nearest(word, &known))
    };
    let (node, written, near) = match app_protocol {
        "" => {
            let ends = [name.split('-').next(), name.rsplit('-').next()];
            let near = ends.into_iter().flatten().find_map(near);
            (item.at("name"), name, near)
        }
        value => (item.at("appProtocol"), value, near(value)),
    };
    if let Some(near) = near {
        node.warn(
            ErrorName::UnknownProtocol,
            format!("`{written}` names no protocol that Weir knows, so the port counts as undeclared; did you mean `{near}`?"),
        );
    }
}

/// A number, or the name of a container port; the service's own port where it is not given.
fn target(node: &Node, own: Option<u16>) -> Option<TargetPort> {
    if node.is_absent() {
        return own.map(TargetPort::Number);
    }
    match node.scalar()?.parse::<u64>() {
        // An empty name and zero are what Go writes for "not given".
        Ok(0) => own.map(TargetPort::Number),
        Ok(_) => node.port().map(TargetPort::Number),
        Err(_) => match node.text()? {
            "" => own.map(TargetPort::Number),
            name => Some(TargetPort::Name(name.into())),
        },
    }
}

fn affinity(spec: &Node) -> SessionAffinity {
    let timeout = spec
        .at("sessionAffinityConfig")
        .at("clientIP")
        .at("timeoutSeconds")
        .number(1..=AFFINITY_SECONDS_MAX);
    match spec.at("sessionAffinity").word(&["None", "ClientIP"]) {
        Some("ClientIP") => SessionAffinity::ClientIp {
            timeout: Duration::from_secs(timeout.unwrap_or(AFFINITY_SECONDS)),
        },
        _ => SessionAffinity::None,
    }
}
