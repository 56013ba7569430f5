//! What is asked of sockets: a list of those in some states (sock_diag(7)).

use std::io;

use rustix::net::netlink::SOCK_DIAG;

use super::{list_by, socket_of};

/// Those of one family and protocol that are in `states` (a bit each, by the numbers of `net/tcp_states.h`): the body
/// of each message, an `inet_diag_msg` and then attributes.
pub(crate) fn list_sockets(family: u8, protocol: u8, states: u32) -> io::Result<Vec<Vec<u8>>> {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    /// Bytes of an `inet_diag_sockid`; all zeroes is any socket.
    const ANY: [u8; 48] = [0; 48];
    let mut wanted = vec![family, protocol, 0, 0];
    wanted.extend(states.to_ne_bytes());
    wanted.extend(ANY);
    list_by(&socket_of(Some(SOCK_DIAG))?, SOCK_DIAG_BY_FAMILY, &wanted)
}
