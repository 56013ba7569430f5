//! How the proxy of `weir run` reaches what it dials: it stands in the caller's network, and what is in the
//! command's it calls by sockets that the porter makes there.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use model::Direction;
use netsys::contain::Porter;
use netsys::sock;
use proxy::{Sockets, passthrough_source};
use socket2::Socket;

/// The mark of these sockets, by which the rules inside know them. The command may not set it.
pub(super) const MARK: u32 = 1337;

/// Sockets of both networks.
pub(super) struct Both {
    pub(super) porter: Arc<Porter>,
    /// Addresses that the command's network has or may get.
    pub(super) own: Vec<IpAddr>,
}

impl Sockets for Both {
    fn towards(&self, direction: Direction, target: SocketAddr, _: IpAddr) -> io::Result<Socket> {
        let ip = target.ip();
        match direction {
            // From the source that the rules let through to the application.
            Direction::Inbound => self.porter.stream_to(ip, MARK, Some(passthrough_source(target))),
            // The command is an endpoint itself: the rules inside turn the call to the inbound listener.
            Direction::Outbound if self.own.contains(&ip) => self.porter.stream_to(ip, MARK, None),
            Direction::Outbound => sock::stream_to(target),
        }
    }

    fn inside(&self, target: SocketAddr) -> io::Result<Option<Socket>> {
        if !target.ip().is_loopback() {
            return Ok(None);
        }
        self.porter.stream_to(target.ip(), MARK, None).map(Some)
    }
}
