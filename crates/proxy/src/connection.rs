//! One connection from end to end: capture, route, detect, dial, relay or http, report. Read this first.

use std::rc::Rc;
use std::sync::Arc;

use model::event::{Flags, Step};
use model::{Handling, KnownBy, Protocol};
use netsys::sock;
use registry::Lease;
use tokio::net::TcpStream;

use crate::capture::{Captured, Origin};
use crate::detect::{self, First, Unsaid};
use crate::dial::{self, Dialed};
use crate::http;
use crate::life::Life;
use crate::outcome::{self, Outcome};
use crate::relay::{Ended, How, Relay};
use crate::route::{self, Route};
use crate::sni::Tap;
use crate::worker::Worker;

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
    if worker.peers.own.has(origin.source, origin.original_dst) {
        outcome::refuse_own(worker, &origin, &client);
        return None;
    }
    let route = match route::route(worker, &origin) {
        Ok(route) => route,
        Err(denied) => {
            outcome::deny(worker, &origin, denied, &client);
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
            outcome::fail(worker, &origin, &route, &undialed, &client);
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
