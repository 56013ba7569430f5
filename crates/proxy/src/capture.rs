//! Capture: what an accepted connection is, and where it was going.

use std::io;
use std::time::{Instant, SystemTime};

use model::{Direction, Local, OrigDst, Remote};
use netsys::sock;
use tokio::net::TcpStream;

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
    /// Our own end.
    pub(crate) local: Local,
    pub(crate) start: Instant,
    pub(crate) start_wall: SystemTime,
}

/// Reads where the connection was going. A connection that was not redirected was going to the listener.
pub(crate) fn capture(
    connection: u64,
    direction: Direction,
    client: TcpStream,
    source: Remote,
) -> io::Result<Captured> {
    let local = Local::new(client.local_addr()?);
    let original_dst = match sock::original_dst(&client, source.socket()) {
        Ok(original_dst) => original_dst,
        // No conntrack entry, or no conntrack at all: nobody translated the address.
        Err(_) => OrigDst::new(local.socket()),
    };
    let (start, start_wall) = (Instant::now(), SystemTime::now());
    let origin = Origin {
        connection,
        direction,
        source,
        original_dst,
        local,
        start,
        start_wall,
    };
    Ok(Captured { client, origin })
}
