//! Packet sockets, and the ids that a socket is made with. Callers: [`crate::probe`].
#![allow(unsafe_code, reason = "part of the syscall seam")]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::{io, mem};

/// Every protocol, as `sockaddr_ll` has it.
const ALL: u16 = (libc::ETH_P_ALL as u16).to_be();

/// Makes a packet socket receive what passes any device.
pub(crate) fn bind_to_all(socket: BorrowedFd<'_>) -> io::Result<()> {
    bind(socket, 0, ALL)
}

/// Makes a packet socket send by a device, and receive nothing.
pub(crate) fn bind_to_send(socket: BorrowedFd<'_>, device: u32) -> io::Result<()> {
    bind(socket, device, 0)
}

fn bind(socket: BorrowedFd<'_>, device: u32, protocol: u16) -> io::Result<()> {
    // SAFETY: an all-zero sockaddr_ll is a valid value of this plain C structure.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = device.cast_signed();
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe `address`, which outlives the call.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// What a packet socket received: its length, the device's index, and its kind (`PACKET_OUTGOING` and so on).
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, u32, u8)> {
    // SAFETY: an all-zero sockaddr_ll is a valid value of this plain C structure.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the buffer and its length, and the address and its length, describe live values that nothing else
    // uses during the call.
    let received = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_DONTWAIT,
            (&raw mut address).cast(),
            &raw mut length,
        )
    };
    match usize::try_from(received) {
        Ok(received) => Ok((received, address.sll_ifindex.cast_unsigned(), address.sll_pkttype)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Gives the calling thread these ids for whatever it opens; its capabilities stay as they are, but for those
/// over files. Answers the ids before.
///
/// # Errors
/// `PermissionDenied` for other ids than its own without `CAP_SETUID` and `CAP_SETGID`.
pub(crate) fn set_file_ids(uid: u32, gid: u32) -> io::Result<(u32, u32)> {
    /// No id: changes nothing, and so tells the one that there is.
    const NONE: u32 = u32::MAX;
    // SAFETY: take and answer numbers; they change the calling thread's credentials only.
    let (before, now) = unsafe {
        let before = (libc::setfsuid(uid), libc::setfsgid(gid));
        (before, (libc::setfsuid(NONE), libc::setfsgid(NONE)))
    };
    let ids = |(uid, gid): (libc::c_int, libc::c_int)| (uid.cast_unsigned(), gid.cast_unsigned());
    if ids(now) == (uid, gid) {
        return Ok(ids(before));
    }
    // SAFETY: as above; they are the thread's own, which it may always have.
    unsafe {
        libc::setfsuid(ids(before).0);
        libc::setfsgid(ids(before).1);
    }
    Err(io::ErrorKind::PermissionDenied.into())
}
