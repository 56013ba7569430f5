//! The syscall seam: every unsafe block of Weir, each behind a safe function.
#![allow(unsafe_code, reason = "this module is where the workspace keeps it")]

pub(crate) mod bpf;
pub(crate) mod packet;
pub(crate) mod process;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Gives the calling thread a new network namespace.
pub(crate) fn unshare_net() -> io::Result<()> {
    // SAFETY: takes no pointers; CLONE_NEWNET affects the calling thread's namespace membership only.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes `command` start in the network namespace that `fd` refers to; `fd` must stay open until it is spawned.
pub(crate) fn start_in_netns(command: &mut Command, fd: BorrowedFd<'_>) {
    let fd = fd.as_raw_fd();
    // SAFETY: the closure runs between fork and exec and makes one async-signal-safe syscall on a
    // descriptor that the caller keeps open; it allocates only on the error path of `last_os_error`, which does not.
    unsafe {
        command.pre_exec(move || {
            if libc::setns(fd, libc::CLONE_NEWNET) == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        });
    }
}

/// Sets the loopback device of the calling thread's namespace up.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: an all-zero ifreq is a valid value of this plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request is a live ifreq with a NUL-terminated name, as SIOCSIFFLAGS reads it.
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as libc::Ioctl,
            &raw const request,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// `getsockopt` of a `sockaddr_in6`-sized address, for the two original-destination options.
pub(crate) fn address_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<libc::sockaddr_in6> {
    // SAFETY: an all-zero sockaddr_in6 is a valid value; it is large enough for a sockaddr_in too.
    let mut address: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe `address`, which outlives the call.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw mut address).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(address)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// `getsockopt` of `TCP_INFO`.
pub(crate) fn tcp_info(fd: BorrowedFd<'_>) -> io::Result<libc::tcp_info> {
    // SAFETY: an all-zero tcp_info is a valid value of this plain C structure.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe `info`, which outlives the call; the kernel writes no
    // more than `length` bytes, and what it does not write stays zero.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(info)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// `getsockopt` of `SO_MEMINFO`: `SK_MEMINFO_VARS` numbers of `linux/sock_diag.h`; what an older kernel lacks is zero.
pub(crate) fn memory_info(fd: BorrowedFd<'_>) -> io::Result<[u32; 9]> {
    let mut raw = [0; 9];
    let mut length = size_of_val(&raw) as libc::socklen_t;
    // SAFETY: `raw` is writable for `length` bytes and outlives the call; any bytes are numbers.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            raw.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(raw)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// `setsockopt` of one integer.
pub(crate) fn set_int_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
