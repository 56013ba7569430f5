//! Capture: what an accepted connection is, and where it was going.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Instant, SystemTime};

use model::{Direction, Local, OrigDst, Remote, ports};
use netsys::sock;
use tokio::net::TcpStream;

/// What kind of connection a listener accepts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// The rules redirect it there; the kernel knows where it was going.
    Captured(Direction),
    /// The rules divert it there as it is: its own end is where it was going. Inbound.
    Transparent,
    /// It comes to a published port and is inbound to this address of the workload.
    Published(OrigDst),
}

impl Way {
    /// From the application, or to it.
    pub(crate) fn direction(self) -> Direction {
        match self {
            Self::Captured(direction) => direction,
            Self::Transparent | Self::Published(_) => Direction::Inbound,
        }
    }
}

/// One captured connection.
#[derive(Debug)]
pub(crate) struct Captured {
    pub(crate) client: TcpStream,
    pub(crate) origin: Origin,
}

/// Where a captured connection came from and was going.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// Number within this process.
    pub(crate) connection: u64,
    pub(crate) direction: Direction,
    pub(crate) source: Remote,
    pub(crate) original_dst: OrigDst,
    /// Our own end: the listener's where its sockets have the original destination's address.
    pub(crate) local: Local,
    /// Whether nothing captured it: it came to a published port.
    pub(crate) is_published: bool,
    pub(crate) start: Instant,
    pub(crate) start_wall: SystemTime,
}

/// Reads where the connection was going. One that was neither redirected nor came to a published port was
/// going to the listener.
pub(crate) fn capture(connection: u64, way: Way, client: TcpStream, source: Remote) -> io::Result<Captured> {
    let address = client.local_addr()?;
    let local = match way {
        Way::Transparent => Local::new(SocketAddr::new(unspecified(address.ip()), ports::INBOUND)),
        Way::Captured(_) | Way::Published(_) => Local::new(address),
    };
    let original_dst = match way {
        Way::Published(to) => to,
        Way::Transparent => OrigDst::new(address),
        // An error is no conntrack entry, or no conntrack at all: nobody translated the address.
        Way::Captured(_) => {
            sock::original_dst(&client, source.socket()).unwrap_or_else(|_| OrigDst::new(local.socket()))
        }
    };
    let (start, start_wall) = (Instant::now(), SystemTime::now());
    let origin = Origin {
        connection,
        direction: way.direction(),
        source,
        original_dst,
        local,
        is_published: matches!(way, Way::Published(_)),
        start,
        start_wall,
    };
    Ok(Captured { client, origin })
}

fn unspecified(family: IpAddr) -> IpAddr {
    match family {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
