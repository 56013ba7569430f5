//! A cluster: the endpoints behind one port of one service, and the choice among them.

mod balance;
mod standing;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use model::settings::{EJECT_TIME_MAX, Policy};
use model::{ClusterName, Condition, Direction, KnownBy, ObjectName, Protocol, SessionAffinity};

pub use self::standing::Standing;
use crate::state::{ClusterState, EndpointState};

/// One endpoint of one cluster.
#[derive(Debug)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// What its readiness says.
    pub condition: Condition,
    /// The pod behind it, where known.
    pub workload: Option<ObjectName>,
    /// UID of the pod behind it; empty where unknown.
    pub generation: Arc<str>,
    /// Host name within a headless service.
    pub hostname: Option<Arc<str>>,
    /// What it has lived through.
    pub state: Arc<EndpointState>,
    /// Its place on the ring of its cluster: a hash of its address.
    pub(crate) key: u64,
}

/// One port of one service, as the data path uses it.
#[derive(Debug)]
pub struct Cluster {
    /// `outbound|80||nginx.sidecar.svc.cluster.local`, or `inbound|8080||` with the port on the pod.
    pub name: ClusterName,
    /// Which way.
    pub direction: Direction,
    /// The service.
    pub service: ObjectName,
    /// Its host name.
    pub host: Arc<str>,
    /// Service port number.
    pub port: u16,
    /// Service port name.
    pub port_name: Arc<str>,
    /// What the port speaks.
    pub protocol: Protocol,
    /// How that is known.
    pub known_by: KnownBy,
    /// Settings of the service over those of the mesh.
    pub policy: Policy,
    /// Whether one client keeps one endpoint.
    pub affinity: SessionAffinity,
    /// Lower-case host names and addresses, without port, by which a request may name this service.
    pub domains: Arc<[Arc<str>]>,
    /// All endpoints, usable or not, sorted by their place on the ring.
    pub targets: Vec<Arc<Target>>,
    /// Those that take new traffic.
    pub(crate) usable: Usable,
    /// What it has lived through.
    pub state: Arc<ClusterState>,
}

/// The endpoints that take new traffic from clients of each address family: the ready ones; where none is
/// ready, those that still serve while they terminate. Those of the other family only where there is none
/// of the client's own.
#[derive(Debug, Default)]
pub(crate) struct Usable {
    pub(crate) v4: Arc<[Slot]>,
    pub(crate) v6: Arc<[Slot]>,
}

/// A place on the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    /// Key of the target; a ring is sorted by it and has each once.
    pub(crate) key: u64,
    /// Index into `targets`.
    pub(crate) index: u32,
}

/// An endpoint that was chosen.
#[derive(Clone, Debug)]
pub struct Pick {
    /// The endpoint.
    pub target: Arc<Target>,
    /// How many take new traffic.
    pub usable: usize,
}

/// Which of a cluster's routes a request takes. Both lead to the cluster: the original destination chose
/// the service, and a Host that names another one does not lead there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// The Host names this service.
    Default,
    /// The Host names something else, or nothing.
    AnyHost,
}

impl Route {
    /// The name the tools print.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::AnyHost => "any-host",
        }
    }
}

impl Cluster {
    /// The route of a request by its Host, with or without this service's port, in any case.
    #[must_use]
    pub fn route(&self, host: &str) -> Route {
        let (name, port) = split_port(host);
        let names_this = port.is_none_or(|port| port == self.port)
            && self
                .domains
                .iter()
                .any(|domain| domain.eq_ignore_ascii_case(name));
        if names_this {
            Route::Default
        } else {
            Route::AnyHost
        }
    }

    /// The endpoints that take new traffic from a client of that address, ejected ones included.
    pub fn usable(&self, client: IpAddr) -> impl ExactSizeIterator<Item = &Arc<Target>> {
        self.ring(client.is_ipv6())
            .iter()
            .map(|slot| &self.targets[slot.index as usize])
    }

    /// An endpoint of this cluster refused, reset or timed out. Enough such in a row eject it, unless too
    /// large a part of the cluster is ejected already; one endpoint may always be. Says whether this
    /// ejected it. `now` as for [`Self::pick`].
    pub fn failed(&self, target: &Target, now: u64) -> bool {
        let policy = &self.policy;
        if policy.eject_after == 0 || !target.state.fail(policy.eject_after) || target.state.is_ejected(now) {
            return false;
        }
        let ejected = self
            .targets
            .iter()
            .filter(|other| other.state.is_ejected(now))
            .count();
        let allowed = (self.targets.len() * policy.eject_max_percent as usize / 100).max(1);
        if ejected >= allowed {
            return false;
        }
        target.state.eject(now, policy.eject_time, EJECT_TIME_MAX);
        true
    }

    pub(crate) fn ring(&self, v6: bool) -> &[Slot] {
        if v6 { &self.usable.v6 } else { &self.usable.v4 }
    }
}

/// Splits `name:port` and `[v6]:port`; a trailing dot of the name is dropped. A port that is no number
/// stays with the name, which then matches nothing.
fn split_port(host: &str) -> (&str, Option<u16>) {
    let (name, port) = match host.rsplit_once(':') {
        // The last colon of a bare `[v6]` is within the brackets.
        Some((name, port)) if !port.ends_with(']') => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (host, None),
        },
        _ => (host, None),
    };
    (name.strip_suffix('.').unwrap_or(name), port)
}
