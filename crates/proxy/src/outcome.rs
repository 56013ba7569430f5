//! What became of an opaque connection, or of one that was never carried, and its report.

use std::net::SocketAddr;
use std::time::Duration;

use model::event::{AccessRecord, Flags};
use netsys::sock;
use registry::Deny;
use tokio::net::TcpStream;

use crate::capture::Origin;
use crate::dial::{Dialed, Undialed};
use crate::route::{self, Route};
use crate::worker::Worker;

/// What became of an opaque connection.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) connect: Option<Duration>,
    pub(crate) flags: Flags,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) sni: Option<Box<str>>,
}

impl Outcome {
    /// Of a connection that got that far.
    pub(crate) fn of(dialed: &Dialed) -> Self {
        Self {
            endpoint: Some(dialed.endpoint),
            connect: Some(dialed.took),
            ..Self::default()
        }
    }

    /// Counts it, and tells of it where that is wanted.
    pub(crate) fn report(self, worker: &Worker, origin: &Origin, route: &Route) {
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

/// Closes a connection that the registry denies.
pub(crate) fn deny(worker: &Worker, origin: &Origin, denied: Deny, client: &TcpStream) {
    let flags = match denied {
        Deny::Loop => Flags::LOOP,
        Deny::RegistryOnly | Deny::UnknownServicePort => Flags::BLACK_HOLE,
    };
    refuse(worker, origin, flags, denied.as_str(), client);
}

/// Closes a connection of the proxy's own, which came back to it.
pub(crate) fn refuse_own(worker: &Worker, origin: &Origin, client: &TcpStream) {
    refuse(
        worker,
        origin,
        Flags::LOOP,
        "the proxy's own: the rules captured it",
        client,
    );
}

/// Closes a connection that must not be carried: the client sees a reset.
fn refuse(worker: &Worker, origin: &Origin, flags: Flags, why: &'static str, client: &TcpStream) {
    let _ = sock::reset_on_close(client);
    let route = route::black_hole(worker, origin, why);
    let outcome = Outcome {
        flags,
        ..Outcome::default()
    };
    outcome.report(worker, origin, &route);
}

/// No endpoint took the connection: the client sees a reset, not a clean end.
pub(crate) fn fail(worker: &Worker, origin: &Origin, route: &Route, undialed: &Undialed, client: &TcpStream) {
    let _ = sock::reset_on_close(client);
    let outcome = Outcome {
        endpoint: undialed.endpoint,
        flags: undialed.flags,
        ..Outcome::default()
    };
    outcome.report(worker, origin, route);
}
