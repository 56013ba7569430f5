//! Listen: accepts captured connections and gives each to the worker that should serve it. Holds back,
//! in the kernel's backlog, what the limits do not allow; backs off where descriptors run out.

use std::io;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::time::Duration;

use model::{Direction, ErrorName, Remote};
use netsys::sock;
use runtime::backoff::Backoff;
use tokio::net::{TcpListener, TcpStream};

use crate::capture::{self, Way};
use crate::config::{Listeners, Published};
use crate::connection;
use crate::peers::{Handover, Inbox};
use crate::worker::Worker;

/// One listener of one worker.
pub(crate) struct Share {
    way: Way,
    listener: StdListener,
}

/// Deals the listeners out: each worker its own where there are enough, else workers share.
pub(crate) fn share(listeners: Listeners, workers: usize) -> io::Result<Vec<Vec<Share>>> {
    let mut shares: Vec<Vec<Share>> = (0..workers).map(|_| Vec::new()).collect();
    for (way, listeners) in [
        (Way::Captured(Direction::Outbound), listeners.outbound),
        (Way::Captured(Direction::Inbound), listeners.inbound),
        (Way::Transparent, listeners.transparent),
    ] {
        let (v4, v6): (Vec<_>, Vec<_>) = listeners
            .into_iter()
            .partition(|listener| listener.local_addr().is_ok_and(|local| local.is_ipv4()));
        for family in [v4, v6] {
            deal(way, family, &mut shares)?;
        }
    }
    for Published { listener, to } in listeners.published {
        deal(Way::Published(to), vec![listener], &mut shares)?;
    }
    Ok(shares)
}

fn deal(way: Way, listeners: Vec<StdListener>, shares: &mut [Vec<Share>]) -> io::Result<()> {
    if listeners.is_empty() {
        return Ok(());
    }
    let count = listeners.len();
    let extra = shares.len().saturating_sub(count);
    let copies: Vec<_> = (0..extra)
        .map(|turn| listeners[turn % count].try_clone())
        .collect::<io::Result<_>>()?;
    let workers = shares.len();
    for (turn, listener) in listeners.into_iter().chain(copies).enumerate() {
        shares[turn % workers].push(Share { way, listener });
    }
    Ok(())
}

/// A listener that this worker's runtime polls.
pub(crate) struct Adopted {
    way: Way,
    listener: TcpListener,
}

/// Makes a listener this worker's.
pub(crate) fn adopt(share: Share) -> io::Result<Adopted> {
    let Share { way, listener } = share;
    listener.set_nonblocking(true)?;
    // The accepted sockets inherit it.
    sock::tune_listener(&listener)?;
    if way.direction() == Direction::Outbound {
        // The application is on this machine. Best effort: without it bytes are only slower.
        let _ = sock::unpaced(&listener);
    }
    Ok(Adopted {
        way,
        listener: TcpListener::from_std(listener)?,
    })
}

/// Accepts until the worker ends.
pub(crate) async fn accept(worker: Rc<Worker>, adopted: Adopted) {
    let Adopted { way, listener } = adopted;
    let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_secs(1));
    loop {
        while worker.lives.count() >= worker.max_connections {
            worker.reports.at_limit();
            worker.lives.ended.notified().await;
        }
        match listener.accept().await {
            Ok((client, source)) => {
                backoff.reset();
                let source = Remote::new(source);
                place(&worker, Accepted { way, client, source });
            }
            Err(error) if is_one_connection(&error) => {}
            Err(error) => {
                worker.reports.accept_failed();
                let pause = backoff.next(&mut || worker.random());
                tracing::warn!(see = %ErrorName::Descriptors, direction = %way.direction(), %error, ?pause, "cannot accept; the kernel holds new connections back");
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Whether the error is about the one connection that was to be accepted (it is gone already).
fn is_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
        || matches!(error.raw_os_error(), Some(libc::EPROTO | libc::EPERM))
}

/// A connection that belongs to this worker's runtime.
struct Accepted {
    way: Way,
    client: TcpStream,
    source: Remote,
}

/// Serves the connection here, or hands it to a worker that has less to do.
fn place(worker: &Rc<Worker>, accepted: Accepted) {
    let index = worker.place();
    if index == worker.index {
        return serve(worker, accepted);
    }
    let Accepted { way, client, source } = accepted;
    match client.into_std() {
        Ok(client) => {
            let handover = Handover { way, client, source };
            if let Err(refused) = worker.peers.hand(index, handover) {
                adopt_and_serve(worker, refused);
            }
        }
        Err(error) => tracing::debug!(%source, %error, "a connection could not change its worker"),
    }
}

/// Serves what other workers hand over.
pub(crate) async fn take_in(worker: Rc<Worker>, mut inbox: Inbox) {
    while let Some(handover) = inbox.recv().await {
        adopt_and_serve(&worker, handover);
    }
}

fn adopt_and_serve(worker: &Rc<Worker>, handover: Handover) {
    let Handover { way, client, source } = handover;
    match TcpStream::from_std(client) {
        Ok(client) => serve(worker, Accepted { way, client, source }),
        Err(error) => tracing::debug!(%source, %error, "a connection could not change its worker"),
    }
}

fn serve(worker: &Rc<Worker>, accepted: Accepted) {
    let Accepted { way, client, source } = accepted;
    let captured = match capture::capture(worker.next_connection(), way, client, source) {
        Ok(captured) => captured,
        Err(error) => return tracing::debug!(%source, %error, "a connection was gone before it was served"),
    };
    let life = worker.begin();
    tokio::task::spawn_local(connection::serve(Rc::clone(worker), captured, life));
}
