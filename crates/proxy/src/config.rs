//! What a proxy is given: limits, listeners, and how it makes sockets towards endpoints.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use model::{Direction, OrigDst, ports};
use netsys::sock;
use registry::Snapshot;
use runtime::drain;
use runtime::ready::Readiness;
use socket2::Socket;
use tokio::sync::watch;

use crate::report::Reports;

/// Limits of one proxy, and what it is joined to.
#[derive(Clone)]
pub struct Config {
    /// Worker threads.
    pub workers: usize,
    /// Client connections at most, over all workers. Beyond it the kernel's backlog holds them back.
    pub max_connections: usize,
    /// How sockets towards endpoints are made.
    pub sockets: Arc<dyn Sockets>,
    /// The registry; the newest snapshot decides.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Where it reports to.
    pub reports: Reports,
    /// What ends it.
    pub drain: drain::Watch,
    /// A drain ends before its deadline when there has been no connection for so long. Zero for a proxy
    /// whose only client is known to have ended.
    pub quiet: Duration,
    /// Gets a gate for each worker, opened when its listeners accept.
    pub readiness: Readiness,
}

/// The capture listeners, made by the caller; they may belong to another network namespace.
///
/// With as many listeners a direction and family as workers (`SO_REUSEPORT`), each worker has its own;
/// with fewer, workers share.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Accept what the application sends out.
    pub outbound: Vec<TcpListener>,
    /// Accept what others send to the application.
    pub inbound: Vec<TcpListener>,
    /// Accept elsewhere, without capture, what is then inbound to a port of the application.
    pub published: Vec<Published>,
}

/// A listener that stands in for a port of the application where that cannot be reached.
#[derive(Debug)]
pub struct Published {
    /// Where others come.
    pub listener: TcpListener,
    /// Where they are taken to be going: an address of the workload, and a port of its application.
    pub to: OrigDst,
}

impl Listeners {
    /// Listens on the well-known ports on every address of both families, one listener a worker.
    /// A family that the kernel lacks is left out; that IPv4 must be there.
    ///
    /// # Errors
    /// Where a port is taken, or not allowed.
    pub fn bind(workers: usize) -> io::Result<Self> {
        Ok(Self {
            outbound: bind_port(ports::OUTBOUND, workers)?,
            inbound: bind_port(ports::INBOUND, workers)?,
            published: vec![],
        })
    }
}

fn bind_port(port: u16, workers: usize) -> io::Result<Vec<TcpListener>> {
    let v4 = SocketAddr::from(([0, 0, 0, 0], port));
    let v6 = SocketAddr::from(([0; 16], port));
    let mut all = Vec::new();
    for _ in 0..workers {
        all.push(sock::listen(v4, true)?);
        match sock::listen(v6, true) {
            Ok(listener) => all.push(listener),
            Err(error) if lacks_family(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

fn lacks_family(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

/// Makes sockets towards endpoints: in a sidecar from the own namespace, for `weir run` from elsewhere.
pub trait Sockets: Send + Sync {
    /// A non-blocking socket, bound where it must be, ready to connect to `target`.
    ///
    /// # Errors
    /// Out of descriptors; a source address or a mark that is not allowed.
    fn towards(&self, direction: Direction, target: SocketAddr) -> io::Result<Socket>;

    /// A socket for an address that the application named and that means something else in its network
    /// than in the proxy's: its own loopback is asked first. None where there is but one network.
    ///
    /// # Errors
    /// As [`Sockets::towards`].
    fn inside(&self, target: SocketAddr) -> io::Result<Option<Socket>> {
        let _ = target;
        Ok(None)
    }
}

/// Sockets of the proxy's own namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel {
    /// `SO_MARK` by which the rules know the proxy's own traffic; needs `CAP_NET_ADMIN`.
    pub mark: Option<u32>,
}

impl Sockets for Kernel {
    fn towards(&self, direction: Direction, target: SocketAddr) -> io::Result<Socket> {
        let socket = sock::stream_to(target)?;
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        if direction == Direction::Inbound {
            // The rules let this source through to the application; any other would loop.
            let source: IpAddr = match target.ip() {
                IpAddr::V4(_) => ports::PASSTHROUGH_V4.into(),
                IpAddr::V6(_) => ports::PASSTHROUGH_V6.into(),
            };
            sock::bind_address_no_port(&socket)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        Ok(socket)
    }
}
