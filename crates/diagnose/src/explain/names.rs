//! What a host name is to the client: the mesh's own, by the registry as DNS would have it, or somebody else's.

use std::net::IpAddr;

use model::{ObjectName, ServiceKind};
use registry::{Resolved, Snapshot};

use super::{Finding, Side};

/// What a name comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Named {
    /// Addresses of the mesh.
    Here(Vec<IpAddr>),
    /// To be looked up outside: the name itself, or what the mesh says it stands for.
    Outside(String),
    /// Nothing: why, and what to do.
    Nothing(Finding),
}

/// Looks a name up. Without a registry every name is one outside.
#[must_use]
pub fn named(host: &str, snapshot: Option<&Snapshot>) -> Named {
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return Named::Here(vec![address]);
    }
    let Some(snapshot) = snapshot else {
        return Named::Outside(host.to_owned());
    };
    match snapshot.resolve(host) {
        Some(Resolved::Addresses(addresses)) if addresses.is_empty() => {
            Named::Nothing(without_address(host, snapshot))
        }
        Some(Resolved::Addresses(addresses)) => Named::Here(addresses),
        Some(Resolved::Alias(name)) => Named::Outside(name.to_string()),
        Some(Resolved::Names(_) | Resolved::Ports(_)) => Named::Nothing(Finding::new(
            Side::Client,
            format!("{host} is a name for look-ups, not of something to connect to"),
            "give the name of a service or an address",
        )),
        Some(Resolved::Missing) => Named::Nothing(unknown(host, snapshot)),
        None if is_of_mesh(host, snapshot) => Named::Nothing(unknown(host, snapshot)),
        None => Named::Outside(host.to_owned()),
    }
}

fn without_address(host: &str, snapshot: &Snapshot) -> Finding {
    let kind = snapshot.service_by_host(host).map(|service| &service.kind);
    match kind {
        Some(ServiceKind::ClusterIp(_)) => Finding::new(
            Side::Registry,
            format!("the service {host} has no ClusterIP, so its name has no address"),
            "give it spec.clusterIP, as a cluster does when it is applied, or clusterIP: None to make it headless",
        ),
        _ => Finding::new(
            Side::Endpoint,
            format!("{host} is headless and no endpoint of it takes traffic, so its name has no address"),
            "see its endpoints by `weir pc endpoints`; make its pods ready, or set publishNotReadyAddresses",
        ),
    }
}

/// Whether nobody but the mesh would know it: a bare name, or one within a namespace that there is.
fn is_of_mesh(host: &str, snapshot: &Snapshot) -> bool {
    let host = host.trim_end_matches('.');
    let namespace = match host.split('.').collect::<Vec<_>>()[..] {
        [_] => return host != "localhost",
        [_, namespace] | [_, namespace, "svc"] => namespace,
        [.., "svc", "cluster", "local"] => return true,
        _ => return false,
    };
    let mut services = snapshot.services.iter();
    services.any(|(name, _)| &*name.namespace == namespace)
}

fn unknown(host: &str, snapshot: &Snapshot) -> Finding {
    let wanted = host.split('.').next().unwrap_or(host);
    let mut known: Vec<&ObjectName> = snapshot.services.iter().map(|(name, _)| name).collect();
    known.sort_by_key(|name| (distance(wanted, &name.name), *name));
    let nearest: Vec<_> = known
        .iter()
        .take(3)
        .map(|name| format!("{}.{}", name.name, name.namespace))
        .collect();
    let fix = match nearest.is_empty() {
        true => String::from("the registry holds no service: see `weir pc problems`"),
        false => format!(
            "the nearest names are {}; `weir pc services` lists all",
            nearest.join(", ")
        ),
    };
    Finding::new(
        Side::Registry,
        format!("no service of the registry has the name {host}"),
        fix,
    )
}

/// How many letters must be put in, taken out or changed to make one of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (row, letter) in one.chars().enumerate() {
        let mut next = vec![row + 1];
        for (column, its) in other.iter().enumerate() {
            let changed = last[column] + usize::from(letter != *its);
            next.push(changed.min(last[column + 1] + 1).min(next[column] + 1));
        }
        last = next;
    }
    last[other.len()]
}
