//! Sockets of anybody: made by a thread that has that user's ids for files while it makes them, which is what the
//! packet filter looks at.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use super::Segment;
use crate::sys;

/// Whose a socket is, to the packet filter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// `SO_MARK`; 0 is none.
    pub mark: u32,
}

/// Runs `f` with the calling thread having that user's and group's ids for what it opens.
///
/// # Errors
/// `PermissionDenied` for other ids than its own without `CAP_SETUID` and `CAP_SETGID`; `f` has not run then.
pub fn as_owner<T>(owner: Owner, f: impl FnOnce() -> T) -> io::Result<T> {
    let before = sys::packet::set_file_ids(owner.uid, owner.gid)?;
    let done = f();
    sys::packet::set_file_ids(before.0, before.1)?;
    Ok(done)
}

/// Whether the calling thread can make sockets of that user and group.
#[must_use]
pub fn can_be(owner: Owner) -> bool {
    as_owner(owner, || ()).is_ok()
}

/// The calling process.
#[must_use]
pub fn myself() -> Owner {
    Owner {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mark: 0,
    }
}

/// Sends packets as they are put together, by the way that the namespace's rules and routes have for its own.
#[derive(Debug)]
pub struct RawSocket(Socket);

impl RawSocket {
    /// Of that owner; what it sends is routed as being from `source`, an address of the namespace.
    ///
    /// # Errors
    /// As [`as_owner`]; `AddrNotAvailable` where `source` is not the namespace's.
    pub fn open(owner: Owner, source: IpAddr) -> io::Result<Self> {
        // By this protocol, the header is the sender's.
        let raw = Protocol::from(libc::IPPROTO_RAW);
        let source = SocketAddr::new(source, 0);
        let kind = Type::RAW.nonblocking().cloexec();
        let socket = as_owner(owner, || {
            Socket::new(Domain::for_address(source), kind, Some(raw))
        })??;
        if owner.mark != 0 {
            socket.set_mark(owner.mark)?;
        }
        socket.bind(&source.into())?;
        Ok(Self(socket))
    }

    /// Sends it.
    ///
    /// # Errors
    /// What routing or a rule says; a rule that drops may do so with `PermissionDenied`.
    pub fn send(&self, segment: &Segment) -> io::Result<()> {
        // A raw socket has no ports.
        let to = SocketAddr::new(segment.destination.ip(), 0);
        self.0.send_to(&segment.packet(), &to.into()).map(drop)
    }
}
