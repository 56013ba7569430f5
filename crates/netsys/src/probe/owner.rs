//! Sockets of anybody: made by a thread that has that user's ids for files while it makes them, which is what the
//! packet filter looks at.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::{fs, io};

use socket2::{Domain, Protocol, Socket, Type};

use super::segment::Segment;
use crate::{fdpass, sys};

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

/// A socket of that owner, with its mark.
///
/// # Errors
/// As [`as_owner`].
pub fn socket_of(owner: Owner, domain: Domain, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
    let socket = as_owner(owner, || Socket::new(domain, kind.cloexec(), protocol))??;
    if owner.mark != 0 {
        socket.set_mark(owner.mark)?;
    }
    Ok(socket)
}

/// Runs `f` as a process in the cgroup of this folder, with the calling thread's ids; it has no descriptor of this
/// process's. Sockets that it makes are that cgroup's, and this process stays where it is.
///
/// # Errors
/// Where no process can be moved there, and those of `f`.
pub fn in_cgroup(folder: &Path, f: impl Fn() -> io::Result<()>) -> io::Result<()> {
    in_cgroup_keeping(folder, None, f)
}

/// A socket that `make` makes in that cgroup. Of version 2 it stays that cgroup's; with a class id it is the caller's
/// from now on, so that what shall be seen with that is to be sent by `make`.
///
/// # Errors
/// As [`in_cgroup`].
pub fn made_in_cgroup(folder: &Path, make: impl Fn() -> io::Result<Socket>) -> io::Result<Socket> {
    let (here, there) = fdpass::pair()?;
    in_cgroup_keeping(folder, Some(there.as_fd()), || {
        there.send(b"made", &[make()?.as_fd()])
    })?;
    let received = here.receive()?;
    let made = received.and_then(|(_, descriptors)| descriptors.into_iter().next());
    Ok(made.ok_or(io::ErrorKind::UnexpectedEof)?.into())
}

fn in_cgroup_keeping(
    folder: &Path,
    kept: Option<BorrowedFd<'_>>,
    f: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    let mut done = Ok(());
    sys::process::in_a_child(&mut || {
        // One that is moved to a class takes along what it has open, which is this process's.
        done = sys::process::close_all_but(kept)
            // Nought is whoever writes it.
            .and_then(|()| fs::write(folder.join("cgroup.procs"), "0"))
            .and_then(|()| f());
    })?;
    done
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
        let kind = Type::RAW.nonblocking();
        let socket = socket_of(owner, Domain::for_address(source), kind, Some(raw))?;
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
