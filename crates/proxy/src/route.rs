//! Route: asks the registry where a captured connection goes, and keeps what it answered.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::event::{AccessRecord, Flags, Step};
use model::{ClusterName, Direction, Handling, KnownBy, Protocol};
use registry::{Cluster, Decision, Deny, Snapshot, Target};

use crate::capture::Origin;
use crate::report::Counters;
use crate::worker::Worker;

/// Where a connection goes, as the registry decided.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: ClusterName,
    pub(crate) towards: Towards,
    pub(crate) protocol: Protocol,
    pub(crate) known_by: KnownBy,
    pub(crate) counters: Rc<Counters>,
}

/// Which endpoints may be dialled.
#[derive(Debug)]
pub(crate) enum Towards {
    /// Where the connection was going, whoever is there.
    OriginalDst,
    /// Where the connection was going, which is this endpoint of the cluster.
    Target(Arc<Cluster>, Arc<Target>),
    /// Any usable endpoint of the cluster.
    Cluster(Arc<Cluster>),
}

impl Towards {
    fn cluster(&self) -> Option<&Arc<Cluster>> {
        match self {
            Self::OriginalDst => None,
            Self::Target(cluster, _) | Self::Cluster(cluster) => Some(cluster),
        }
    }
}

impl Route {
    /// The cluster; none for what passes through.
    pub(crate) fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.towards.cluster()
    }

    /// Endpoints that could have been chosen instead of this one were they all usable: those of its family.
    pub(crate) fn of_family(&self, endpoint: SocketAddr) -> usize {
        let Towards::Cluster(cluster) = &self.towards else {
            return 1;
        };
        let of_family = |target: &&Target| target.address.is_ipv4() == endpoint.is_ipv4();
        cluster
            .targets
            .iter()
            .map(|target| &**target)
            .filter(of_family)
            .count()
    }

    /// Host name of the service.
    pub(crate) fn service(&self) -> Option<Arc<str>> {
        self.cluster().map(|cluster| Arc::clone(&cluster.host))
    }

    /// What every record says of a connection that went this way; what came of it is to be filled in.
    pub(crate) fn record(&self, origin: &Origin, start: SystemTime) -> AccessRecord {
        AccessRecord {
            start,
            direction: origin.direction,
            connection: origin.connection,
            source: origin.source,
            original_dst: origin.original_dst,
            protocol: self.protocol,
            known_by: self.known_by,
            service: self.service(),
            cluster: self.name.clone(),
            endpoint: None,
            http: None,
            sni: None,
            flags: Flags::default(),
            duration: Duration::ZERO,
            connect: None,
            first_byte: None,
            bytes_received: 0,
            bytes_sent: 0,
        }
    }

    /// Time allowed for a connection.
    pub(crate) fn connect_timeout(&self) -> Duration {
        self.cluster()
            .map_or(model::settings::CONNECT_TIMEOUT, |cluster| {
                cluster.policy.connect_timeout
            })
    }

    /// Whether another endpoint may be dialled after `attempts`.
    pub(crate) fn may_retry(&self, attempts: u32) -> bool {
        match &self.towards {
            Towards::Cluster(cluster) => attempts <= cluster.policy.retries,
            Towards::OriginalDst | Towards::Target(..) => false,
        }
    }

    /// Takes over what changed in the registry. Says whether the connection would still be routed here,
    /// and read as HTTP; where not, this route is not to be used any more.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot, origin: &Origin) -> bool {
        let towards = match snapshot.decide(origin.direction, origin.original_dst, origin.local) {
            Decision::Cluster(cluster) => Towards::Cluster(cluster),
            Decision::Endpoint(cluster, target) => Towards::Target(cluster, target),
            Decision::Passthrough(_) | Decision::Deny(_) => return false,
        };
        let is_http = towards
            .cluster()
            .is_some_and(|cluster| cluster.name == self.name && may_be_http(cluster.protocol));
        if is_http {
            self.towards = towards;
        }
        is_http
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        self.counters.connection_closed();
    }
}

/// Asks the registry, and says what it answered.
pub(crate) fn route(worker: &Worker, origin: &Origin) -> Result<Route, Deny> {
    let snapshot = worker.snapshot();
    let decision = snapshot.decide(origin.direction, origin.original_dst, origin.local);
    let (towards, why) = match decision {
        Decision::Deny(deny) => return Err(deny),
        Decision::Passthrough(why) => (Towards::OriginalDst, why.as_str()),
        Decision::Cluster(cluster) => (Towards::Cluster(cluster), "a service owns this address and port"),
        Decision::Endpoint(cluster, target) => (
            Towards::Target(cluster, target),
            "an endpoint of a service has this address and port",
        ),
    };
    let known = match towards.cluster() {
        Some(cluster) => (cluster.name.clone(), cluster.protocol, cluster.known_by),
        None => unknown(passthrough_name(origin.direction)),
    };
    Ok(begin(worker, origin, towards, known, why))
}

/// The route of a connection that must not be carried.
pub(crate) fn black_hole(worker: &Worker, origin: &Origin, why: &'static str) -> Route {
    let known = unknown(ClusterName::fixed(ClusterName::BLACK_HOLE));
    begin(worker, origin, Towards::OriginalDst, known, why)
}

/// Name, protocol, and how that is known.
type Known = (ClusterName, Protocol, KnownBy);

fn unknown(name: ClusterName) -> Known {
    (name, Protocol::Tcp, KnownBy::UnknownDestination)
}

/// Tells of the decision, and counts the connection as one of that cluster.
fn begin(worker: &Worker, origin: &Origin, towards: Towards, known: Known, why: &'static str) -> Route {
    let (name, protocol, known_by) = known;
    worker.reports.event(origin, || Step::Decided {
        service: towards.cluster().map(|cluster| Arc::clone(&cluster.host)),
        cluster: name.clone(),
        protocol,
        known_by,
        why: why.into(),
    });
    let counters = worker.reports.counters(origin.direction, &name);
    counters.connection_opened();
    Route {
        name,
        towards,
        protocol,
        known_by,
        counters,
    }
}

fn passthrough_name(direction: Direction) -> ClusterName {
    ClusterName::fixed(match direction {
        Direction::Outbound => ClusterName::PASSTHROUGH,
        Direction::Inbound => ClusterName::INBOUND_PASSTHROUGH,
    })
}

/// Whether a connection that speaks HTTP/1 may be read as such on a port of this protocol.
fn may_be_http(protocol: Protocol) -> bool {
    matches!(protocol.handling(), Handling::Http1 | Handling::Detect)
}

/// The route of a connection that is known to speak HTTP/1, as the registry has it now; none where the
/// address that it was made to is no service that speaks HTTP.
pub(crate) fn route_http(worker: &Worker, origin: &Origin) -> Option<Route> {
    let mut route = route(worker, origin).ok()?;
    if route.cluster().is_none() || !may_be_http(route.protocol) {
        return None;
    }
    if route.protocol != Protocol::Http {
        route.protocol = Protocol::Http;
        route.known_by = KnownBy::FirstBytes;
    }
    Some(route)
}
