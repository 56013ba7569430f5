//! What a proxy is given: limits, listeners, and how it makes sockets towards endpoints.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
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
    /// Accept what others send to the application, as REDIRECT brings it.
    pub inbound: Vec<TcpListener>,
    /// Accept what others send to the application, as TPROXY brings it: their sockets have the address that
    /// was asked for.
    pub transparent: Vec<TcpListener>,
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
    pub fn bind(workers: usize, inbound: Inbound) -> io::Result<Self> {
        let listen = |address| sock::listen(address, true);
        let mut listeners = Self {
            outbound: bind_port(ports::OUTBOUND, workers, listen)?,
            ..Self::default()
        };
        match inbound {
            Inbound::Redirected => listeners.inbound = bind_port(ports::INBOUND, workers, listen)?,
            Inbound::Transparent { .. } => {
                listeners.transparent = bind_port(ports::INBOUND, workers, sock::listen_transparent)?;
            }
        }
        Ok(listeners)
    }
}

/// How connections to the application come to the proxy, and go on to the application.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Inbound {
    /// By REDIRECT; the application sees 127.0.0.6 or `::6` as its client.
    #[default]
    Redirected,
    /// By TPROXY; the application sees the client's own address. Needs `CAP_NET_ADMIN`.
    Transparent {
        /// `SO_MARK` of the leg to the application, by which the rules know it and bring its answers back.
        mark: u32,
    },
}

fn bind_port(
    port: u16,
    workers: usize,
    listen: impl Fn(SocketAddr) -> io::Result<TcpListener>,
) -> io::Result<Vec<TcpListener>> {
    let v4 = SocketAddr::from(([0, 0, 0, 0], port));
    let v6 = SocketAddr::from(([0; 16], port));
    let mut all = Vec::new();
    for _ in 0..workers {
        all.push(listen(v4)?);
        match listen(v6) {
            Ok(listener) => all.push(listener),
            Err(error) if sock::lacks_family(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Makes sockets towards endpoints: in a sidecar from the own namespace, for `weir run` from elsewhere.
pub trait Sockets: Send + Sync {
    /// A non-blocking socket, bound where it must be, ready to connect to `target` on behalf of `client`.
    ///
    /// # Errors
    /// Out of descriptors; a source address or a mark that is not allowed.
    fn towards(&self, direction: Direction, target: SocketAddr, client: IpAddr) -> io::Result<Socket>;

    /// Whether those sockets have the client's own address, so that they serve no other client.
    fn keeps_source(&self, direction: Direction) -> bool {
        let _ = direction;
        false
    }

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

/// Ports that a socket with a client's address takes: all that no client's system gives out by itself (Linux
/// begins at 32768, others later). A connection of the client's from that very port would have the same
/// addresses and ports at both ends, and the kernel could not tell the two apart.
const CLIENT_PORTS: Range<u16> = 1024..32768;
/// Most ports that are tried for one connection.
const PORT_TRIES: u32 = 64;

/// Sockets of the proxy's own namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel {
    /// `SO_MARK` by which the rules know the proxy's own traffic; needs `CAP_NET_ADMIN`.
    pub mark: Option<u32>,
    /// How the application is reached.
    pub inbound: Inbound,
}

impl Sockets for Kernel {
    fn towards(&self, direction: Direction, target: SocketAddr, client: IpAddr) -> io::Result<Socket> {
        let socket = sock::stream_to(target)?;
        let mark = match (direction, self.inbound) {
            (Direction::Inbound, Inbound::Transparent { mark }) => Some(mark),
            _ => self.mark,
        };
        if let Some(mark) = mark {
            socket.set_mark(mark)?;
        }
        match (direction, self.inbound) {
            (Direction::Outbound, _) => {}
            // The rules let this source through to the application; any other would loop.
            (Direction::Inbound, Inbound::Redirected) => {
                sock::bind_address_no_port(&socket)?;
                socket.bind(&SocketAddr::new(passthrough_source(target), 0).into())?;
            }
            (Direction::Inbound, Inbound::Transparent { .. }) => bind_as(&socket, client.to_canonical())?,
        }
        Ok(socket)
    }

    fn keeps_source(&self, direction: Direction) -> bool {
        direction == Direction::Inbound && matches!(self.inbound, Inbound::Transparent { .. })
    }
}

/// Binds to a client's address, and to a port that has not been taken for the longest time.
fn bind_as(socket: &Socket, client: IpAddr) -> io::Result<()> {
    static TURN: AtomicU32 = AtomicU32::new(0);
    sock::transparent(socket)?;
    // Ports are shared by connections to different places, and with those that have just ended.
    socket.set_reuse_address(true)?;
    let mut result = Ok(());
    for _ in 0..PORT_TRIES {
        let turn = TURN.fetch_add(1, Ordering::Relaxed) % CLIENT_PORTS.len() as u32;
        let port = CLIENT_PORTS.start + turn as u16;
        result = socket.bind(&SocketAddr::new(client, port).into());
        match &result {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            _ => break,
        }
    }
    result
}

/// The proxy's source towards the application where it does not take the client's.
#[must_use]
pub fn passthrough_source(target: SocketAddr) -> IpAddr {
    match target.ip() {
        IpAddr::V4(_) => ports::PASSTHROUGH_V4.into(),
        IpAddr::V6(_) => ports::PASSTHROUGH_V6.into(),
    }
}
