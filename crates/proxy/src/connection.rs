//! One connection from end to end: capture, route, detect, dial, relay or http, report. Read this first.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::event::{AccessRecord, Flags, Step};
use model::{ClusterName, Direction, Handling, KnownBy, Protocol};
use netsys::sock;
use registry::{Cluster, Decision, Deny, Lease, Snapshot, Target};
use tokio::net::TcpStream;

use crate::capture::{Captured, Origin};
use crate::detect::{self, First, Unsaid};
use crate::dial::{self, Dialed, Undialed};
use crate::http;
use crate::life::Life;
use crate::relay::{Ended, How, Relay};
use crate::report::Counters;
use crate::sni::Tap;
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

impl Drop for Route {
    fn drop(&mut self) {
        self.counters.connection_closed();
    }
}

/// Serves one captured connection to its end.
///
/// A connection spends its life in the relay or in HTTP, so that is kept small: all stages before it are
/// one future of their own, freed when the bytes begin to flow.
pub(crate) fn serve(worker: Rc<Worker>, captured: Captured, life: Life) -> impl Future<Output = ()> {
    let prepared = Box::pin(prepare(Rc::clone(&worker), captured, life));
    async move {
        match prepared.await {
            None => {}
            Some(Prepared::Http(client)) => http::serve(client).await,
            Some(Prepared::Bytes(mut relay)) => {
                let how = relay.bytes.run(&relay.life).await;
                relay.report(&worker, how);
            }
        }
        worker.peers.publish(worker.index, worker.lives.count());
    }
}

/// A connection whose protocol is known.
enum Prepared {
    /// Each request finds its endpoint.
    Http(Box<http::Client>),
    /// The endpoint is connected.
    Bytes(Box<Relayed>),
}

/// A connection whose both ends are there.
struct Flow {
    client: TcpStream,
    dialed: Dialed,
    /// Read from the client already.
    first: Box<[u8]>,
    tap: Option<Box<Tap>>,
    origin: Origin,
    route: Route,
}

/// All stages up to the relay or HTTP; none where the connection ended on the way, which has been reported.
async fn prepare(worker: Rc<Worker>, captured: Captured, life: Life) -> Option<Prepared> {
    let worker = &worker;
    let Captured { client, origin } = captured;
    worker.reports.event(&origin, || Step::Captured {
        direction: origin.direction,
        source: origin.source,
        original_dst: origin.original_dst,
        published: origin.is_published.then_some(origin.local),
    });
    let route = match route(worker, &origin) {
        Ok(route) => route,
        Err(denied) => {
            refuse(worker, &origin, denied, &client);
            return None;
        }
    };
    let handling = route.protocol.handling();
    if handling == Handling::Http1 {
        let first = Box::default();
        return Some(Prepared::Http(http::Client::new(
            worker, client, first, origin, route, life, None,
        )));
    }
    let dialed = match dial::dial(worker, &origin, &route).await {
        Ok(dialed) => dialed,
        Err(undialed) => {
            fail(worker, &origin, &route, &undialed, &client);
            return None;
        }
    };
    // Of what passes through, the name that a log would else not have.
    let is_noted = handling == Handling::Tls || route.cluster().is_none() && worker.tells_records();
    let tap = is_noted.then(Box::default);
    let flow = Flow {
        client,
        dialed,
        first: Box::default(),
        tap,
        origin,
        route,
    };
    if handling != Handling::Detect {
        return Some(Prepared::Bytes(flow.relay(worker, life)));
    }
    let flow = wait_for_first_bytes(worker, flow, &life).await?;
    if flow.route.protocol != Protocol::Http {
        return Some(Prepared::Bytes(flow.relay(worker, life)));
    }
    let Flow {
        client,
        dialed,
        first,
        origin,
        route,
        ..
    } = flow;
    let dialed = Some(dialed);
    Some(Prepared::Http(http::Client::new(
        worker, client, first, origin, route, life, dialed,
    )))
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
    let (name, protocol, known_by) = match towards.cluster() {
        Some(cluster) => (cluster.name.clone(), cluster.protocol, cluster.known_by),
        None => (
            passthrough_name(origin.direction),
            Protocol::Tcp,
            KnownBy::UnknownDestination,
        ),
    };
    worker.reports.event(origin, || Step::Decided {
        service: towards.cluster().map(|cluster| Arc::clone(&cluster.host)),
        cluster: name.clone(),
        protocol,
        known_by,
        why,
    });
    let counters = worker.reports.counters(origin.direction, &name);
    counters.connection_opened();
    Ok(Route {
        name,
        towards,
        protocol,
        known_by,
        counters,
    })
}

fn passthrough_name(direction: Direction) -> ClusterName {
    ClusterName::fixed(match direction {
        Direction::Outbound => ClusterName::PASSTHROUGH,
        Direction::Inbound => ClusterName::INBOUND_PASSTHROUGH,
    })
}

/// Closes a connection that must not be carried.
fn refuse(worker: &Worker, origin: &Origin, denied: Deny, client: &TcpStream) {
    let flag = match denied {
        Deny::Loop => Flags::LOOP,
        Deny::RegistryOnly | Deny::UnknownServicePort => Flags::BLACK_HOLE,
    };
    let _ = sock::reset_on_close(client);
    let cluster = ClusterName::fixed(ClusterName::BLACK_HOLE);
    let counters = worker.reports.counters(origin.direction, &cluster);
    counters.connection_opened();
    worker.reports.event(origin, || Step::Decided {
        service: None,
        cluster: cluster.clone(),
        protocol: Protocol::Tcp,
        known_by: KnownBy::UnknownDestination,
        why: denied.as_str(),
    });
    let route = Route {
        name: cluster,
        towards: Towards::OriginalDst,
        protocol: Protocol::Tcp,
        known_by: KnownBy::UnknownDestination,
        counters,
    };
    Outcome {
        flags: flag,
        ..Outcome::default()
    }
    .report(worker, origin, &route);
}

/// A port that declares nothing: the endpoint is dialled already, and whoever speaks first decides.
async fn wait_for_first_bytes(worker: &Rc<Worker>, mut flow: Flow, life: &Life) -> Option<Flow> {
    let settings = Arc::clone(&worker.snapshot().settings);
    let first = match detect::detect(&mut flow.client, &flow.dialed.stream, life, &settings).await {
        Ok(first) => first,
        Err(unsaid) => {
            let flags = match unsaid {
                Unsaid::ClientBroke => Flags::DOWNSTREAM_CLOSED,
                Unsaid::Idle => Flags::IDLE_TIMEOUT,
                Unsaid::Cut => Flags::DRAINED,
            };
            let _ = sock::reset_on_close(&flow.client);
            let _ = sock::reset_on_close(&flow.dialed.stream);
            let outcome = Outcome {
                flags,
                ..Outcome::of(&flow.dialed)
            };
            outcome.report(worker, &flow.origin, &flow.route);
            return None;
        }
    };
    let First {
        protocol,
        bytes,
        server_first,
    } = first;
    flow.route.protocol = protocol;
    flow.route.known_by = KnownBy::FirstBytes;
    worker.reports.event(&flow.origin, || Step::Detected {
        protocol,
        sni: None,
        server_first,
    });
    if protocol == Protocol::Tls {
        let mut tap = Box::<Tap>::default();
        tap.see(&bytes);
        flow.tap = Some(tap);
    }
    flow.first = bytes;
    Some(flow)
}

/// No endpoint took the connection: the client sees a reset, not a clean end.
fn fail(worker: &Worker, origin: &Origin, route: &Route, undialed: &Undialed, client: &TcpStream) {
    let _ = sock::reset_on_close(client);
    let outcome = Outcome {
        endpoint: undialed.endpoint,
        flags: undialed.flags,
        ..Outcome::default()
    };
    outcome.report(worker, origin, route);
}

/// A connection in the relay; boxed, for what a future holds across an await it holds twice.
struct Relayed {
    bytes: Relay,
    outcome: Outcome,
    /// Held for as long as bytes flow.
    _lease: Option<Lease>,
    life: Life,
    origin: Origin,
    route: Route,
}

impl Flow {
    fn relay(self, worker: &Worker, life: Life) -> Box<Relayed> {
        let Self {
            client,
            dialed,
            first,
            tap,
            origin,
            route,
        } = self;
        let outcome = Outcome::of(&dialed);
        let idle = worker.snapshot().settings.tcp_idle_timeout;
        let buffers = Rc::clone(&worker.buffers);
        let bytes = Relay::new(buffers, client, dialed.stream, first, tap, idle);
        Box::new(Relayed {
            bytes,
            outcome,
            _lease: dialed.lease,
            life,
            origin,
            route,
        })
    }
}

impl Relayed {
    fn report(self, worker: &Worker, how: How) {
        let Self {
            bytes,
            mut outcome,
            _lease,
            life: _,
            origin,
            route,
        } = self;
        let Ended { received, sent, sni } = bytes.end(how);
        outcome.received = received;
        outcome.sent = sent;
        outcome.sni = sni;
        outcome.flags.insert(match how {
            How::Clean => Flags::default(),
            How::ClientBroke => Flags::DOWNSTREAM_CLOSED,
            How::UpstreamBroke => Flags::UPSTREAM_CLOSED,
            How::Idle => Flags::IDLE_TIMEOUT,
            How::Cut => Flags::DRAINED,
        });
        outcome.report(worker, &origin, &route);
    }
}

/// What became of an opaque connection.
#[derive(Debug, Default)]
struct Outcome {
    endpoint: Option<SocketAddr>,
    connect: Option<Duration>,
    flags: Flags,
    received: u64,
    sent: u64,
    sni: Option<Box<str>>,
}

impl Outcome {
    fn of(dialed: &Dialed) -> Self {
        Self {
            endpoint: Some(dialed.endpoint),
            connect: Some(dialed.took),
            ..Self::default()
        }
    }

    fn report(self, worker: &Worker, origin: &Origin, route: &Route) {
        let duration = origin.start.elapsed();
        route
            .counters
            .opaque(self.received, self.sent, self.flags, duration);
        let log = worker.snapshot().settings.access_log;
        worker.reports.record(origin, log, || AccessRecord {
            endpoint: self.endpoint,
            sni: self.sni,
            flags: self.flags,
            duration,
            connect: self.connect,
            bytes_received: self.received,
            bytes_sent: self.sent,
            ..route.record(origin, origin.start_wall)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, F: Future>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// What an idle opaque connection costs is this, its boxed [`Relayed`], two sockets' registrations,
    /// and a task's header.
    #[test]
    fn the_future_of_a_connection_stays_small() {
        let size = size_of_future(serve);
        assert!(size <= 112, "{size} bytes");
        assert!(size_of::<Relayed>() <= 640, "{} bytes", size_of::<Relayed>());
    }
}
