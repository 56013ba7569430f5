//! Dial: a connection to an endpoint of the route, another endpoint where one refuses.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::Direction;
use model::event::{Flags, Network, Step};
use registry::{Lease, Target};
use socket2::Socket;
use tokio::net::TcpStream;

use crate::capture::Origin;
use crate::route::{Route, Towards};
use crate::worker::Worker;

/// Sources that are tried for one connection where the client's address is kept.
const SOURCE_TRIES: u32 = 16;

/// A connection to an endpoint.
#[derive(Debug)]
pub(crate) struct Dialed {
    pub(crate) stream: TcpStream,
    pub(crate) endpoint: SocketAddr,
    /// How long connecting took.
    pub(crate) took: Duration,
    /// Counts as under way at its endpoint for as long as it lives.
    pub(crate) lease: Option<Lease>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) struct Undialed {
    /// The last endpoint tried, if there was one.
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) flags: Flags,
}

/// Connects to an endpoint of the route. No byte has been sent yet, so a refusal is always safe to
/// retry; each endpoint is tried once, as often as the route's policy allows.
///
/// # Errors
/// Where no endpoint is usable, or none accepted.
pub(crate) async fn dial(worker: &Rc<Worker>, origin: &Origin, route: &Route) -> Result<Dialed, Undialed> {
    let network = match ask_inside(worker, origin, route).await {
        Inside::Answered(dialed) => return Ok(dialed),
        Inside::Nobody => Network::Outside,
        Inside::Same => Network::Only,
    };
    let mut tried: Vec<SocketAddr> = Vec::new();
    let mut flags = Flags::default();
    loop {
        let attempt = u32::try_from(tried.len()).unwrap_or(u32::MAX) + 1;
        let Some(choice) = choose(worker, origin, route, (&tried, attempt, network)) else {
            flags.insert(Flags::NO_HEALTHY_UPSTREAM);
            return Err(Undialed {
                endpoint: tried.last().copied(),
                flags,
            });
        };
        let (endpoint, target) = choice;
        let lease = target.map(Lease::new);
        let start = Instant::now();
        let timeout = route.connect_timeout();
        let error = match connect(worker, origin, endpoint, timeout).await {
            Ok(stream) => {
                let took = start.elapsed();
                if let Some(lease) = &lease {
                    lease.target().state.succeeded();
                }
                worker.reports.event(origin, || Step::Connected {
                    endpoint,
                    took: Some(took),
                });
                return Ok(Dialed {
                    stream,
                    endpoint,
                    took,
                    lease,
                });
            }
            Err(error) => error,
        };
        tried.push(endpoint);
        let is_local = is_local(&error);
        if is_local {
            flags.insert(Flags::OVERLOAD);
        } else {
            flags.insert(Flags::UPSTREAM_CONNECT_FAILURE);
            note_failure(worker, route, lease.as_ref());
        }
        let retry = !is_local && route.may_retry(attempt);
        worker.reports.event(origin, || Step::TryFailed {
            endpoint,
            why: error.to_string().into(),
            retry,
        });
        if !retry {
            return Err(Undialed {
                endpoint: Some(endpoint),
                flags,
            });
        }
        flags.insert(Flags::RETRIED);
        route.counters.retries.inc();
    }
}

/// What the application's own network says to an address.
enum Inside {
    Answered(Dialed),
    Nobody,
    /// It is the same there as here.
    Same,
}

/// An address that the application named is first looked for where it lives, if that is not here.
async fn ask_inside(worker: &Worker, origin: &Origin, route: &Route) -> Inside {
    let endpoint = origin.original_dst.socket();
    if !matches!(route.towards, Towards::OriginalDst) || origin.direction != Direction::Outbound {
        return Inside::Same;
    }
    let socket = match worker.sockets.inside(endpoint) {
        Ok(None) => return Inside::Same,
        Ok(Some(socket)) => Ok(socket),
        Err(error) => Err(error),
    };
    worker.reports.event(origin, || Step::Chosen {
        endpoint,
        attempt: 1,
        usable: 1,
        of: 1,
        network: Network::Inside,
    });
    let start = Instant::now();
    let connected = match socket {
        Ok(socket) => finish(worker, socket, endpoint, route.connect_timeout()).await,
        Err(error) => Err(error),
    };
    let took = start.elapsed();
    match connected {
        Ok(stream) => {
            worker.reports.event(origin, || Step::Connected {
                endpoint,
                took: Some(took),
            });
            Inside::Answered(Dialed {
                stream,
                endpoint,
                took,
                lease: None,
            })
        }
        Err(error) => {
            worker.reports.event(origin, || Step::TryFailed {
                endpoint,
                why: error.to_string().into(),
                retry: true,
            });
            Inside::Nobody
        }
    }
}

fn choose(
    worker: &Rc<Worker>,
    origin: &Origin,
    route: &Route,
    (tried, attempt, network): (&[SocketAddr], u32, Network),
) -> Option<(SocketAddr, Option<Arc<Target>>)> {
    let (endpoint, target, usable) = match &route.towards {
        Towards::OriginalDst => (origin.original_dst.socket(), None, 1),
        Towards::Target(_, target) => (target.address, Some(Arc::clone(target)), 1),
        Towards::Cluster(cluster) => {
            let pick = worker.pick(cluster, origin.source.ip(), tried)?;
            if tried.contains(&pick.target.address) {
                return None;
            }
            (pick.target.address, Some(pick.target), pick.usable)
        }
    };
    worker.reports.event(origin, || Step::Chosen {
        endpoint,
        attempt,
        usable,
        of: route.of_family(endpoint),
        network,
    });
    Some((endpoint, target))
}

fn note_failure(worker: &Worker, route: &Route, lease: Option<&Lease>) {
    if let (Some(lease), Some(cluster)) = (lease, route.cluster()) {
        worker.note_failure(cluster, lease.target());
    }
}

/// Whether the proxy itself lacked what it takes (descriptors, memory, a free port): that says nothing of the
/// endpoint, and another one would fare no better.
pub(crate) fn is_local(error: &io::Error) -> bool {
    // No port is EADDRINUSE from bind(2) where the source is a client's address, EADDRNOTAVAIL from connect(2).
    use libc::{EADDRINUSE, EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(
        error.raw_os_error(),
        Some(EADDRINUSE | EADDRNOTAVAIL | EMFILE | ENFILE | ENOBUFS | ENOMEM)
    )
}

/// One connection to one address within `timeout`.
///
/// # Errors
/// The kernel's, or `TimedOut`.
pub(crate) async fn connect(
    worker: &Worker,
    origin: &Origin,
    endpoint: SocketAddr,
    timeout: Duration,
) -> io::Result<TcpStream> {
    let client = origin.source.ip();
    let mut tries = 1;
    loop {
        let socket = worker.sockets.towards(origin.direction, endpoint, client)?;
        match finish(worker, socket, endpoint, timeout).await {
            // The port that was taken has a connection to this endpoint; the next one may have none.
            Err(error)
                if error.kind() == io::ErrorKind::AddrNotAvailable
                    && worker.sockets.keeps_source(origin.direction)
                    && tries < SOURCE_TRIES =>
            {
                tries += 1;
            }
            result => return result,
        }
    }
}

async fn finish(
    worker: &Worker,
    socket: Socket,
    endpoint: SocketAddr,
    timeout: Duration,
) -> io::Result<TcpStream> {
    match socket.connect(&endpoint.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    let stream = TcpStream::from_std(socket.into())?;
    worker.peers.own.dialed(|| stream.local_addr(), endpoint);
    let connected = async {
        stream.writable().await?;
        stream.take_error()?.map_or(Ok(()), Err)
    };
    match tokio::time::timeout(timeout, connected).await {
        Ok(result) => result.map(|()| stream),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no connection within {timeout:?}"),
        )),
    }
}
