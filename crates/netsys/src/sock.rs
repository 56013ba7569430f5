//! Socket facts and options that the standard library does not have.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use model::OrigDst;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::sys;

/// `IP6T_SO_ORIGINAL_DST` of `linux/netfilter_ipv6/ip6_tables.h`.
const IP6T_SO_ORIGINAL_DST: libc::c_int = 80;

/// Where a redirected connection was going, as conntrack remembers it. `local` is the socket's own
/// address and says the family. A connection that was not redirected answers with `local` itself.
///
/// # Errors
/// `ENOENT` where conntrack knows nothing of the connection; `EOPNOTSUPP` without conntrack.
pub fn original_dst(socket: &impl AsFd, local: SocketAddr) -> io::Result<OrigDst> {
    let is_v4 = local.ip().to_canonical().is_ipv4();
    let (level, name) = if is_v4 {
        (libc::SOL_IP, libc::SO_ORIGINAL_DST)
    } else {
        (libc::SOL_IPV6, IP6T_SO_ORIGINAL_DST)
    };
    let raw = sys::address_option(socket.as_fd(), level, name)?;
    let port = u16::from_be(raw.sin6_port);
    if is_v4 {
        // sockaddr_in holds its address where sockaddr_in6 holds its flow label.
        let ip = Ipv4Addr::from(u32::from_be(raw.sin6_flowinfo));
        Ok(OrigDst::new(SocketAddr::new(ip.into(), port)))
    } else {
        Ok(OrigDst::new(SocketAddr::new(
            Ipv6Addr::from(raw.sin6_addr.s6_addr).into(),
            port,
        )))
    }
}

/// Whether a socket can have that address here; it is not kept.
///
/// # Errors
/// Why not: no device has it, or the device is down.
pub fn can_bind(ip: IpAddr) -> io::Result<()> {
    std::net::UdpSocket::bind(SocketAddr::new(ip, 0)).map(drop)
}

/// Whether making or binding a socket failed because this kernel or namespace does not have its family: it was
/// built or booted without IPv6, or no device has it switched on.
#[must_use]
pub fn lacks_family(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

/// `IP_BIND_ADDRESS_NO_PORT`: a later bind to port 0 picks no port; connect picks one that is free for
/// its destination. Without it one source address has 28,000 connections in total.
///
/// # Errors
/// On kernels before 4.2.
pub fn bind_address_no_port(socket: &impl AsFd) -> io::Result<()> {
    sys::set_int_option(socket.as_fd(), libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// `IP_TRANSPARENT`: the socket may have an address that is not this machine's. One option for both
/// families: the kernel keeps it in the socket.
///
/// # Errors
/// `PermissionDenied` without `CAP_NET_ADMIN`.
pub fn transparent(socket: &impl AsFd) -> io::Result<()> {
    sys::set_int_option(socket.as_fd(), libc::SOL_IP, libc::IP_TRANSPARENT, 1)
}

/// Keepalive under 60 s: conntrack forgets a half-closed redirected connection after 60 s of silence
/// (`nf_conntrack_tcp_timeout_close_wait`), and its later bytes would go nowhere.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;
/// A peer that acknowledges nothing for this long is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// Sets what a long-lived leg of a proxied connection needs: keepalive, and an end to waiting for a peer
/// that vanished. On a listener, the sockets that it accepts inherit it, as they do `TCP_NODELAY`.
///
/// # Errors
/// Where the socket is not TCP.
pub fn keep_watch(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// Sets a listener so that the sockets it accepts are fit for use: no Nagle delay, [`keep_watch`].
///
/// # Errors
/// Where the socket is not TCP.
pub fn tune_listener(listener: &impl AsFd) -> io::Result<()> {
    SockRef::from(listener).set_tcp_nodelay(true)?;
    keep_watch(listener)
}

/// How silent the peer's machine is. One that is only slow to answer still acknowledges, and answers the
/// kernel's probes; one that is gone, or cut off, does neither.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Silence {
    /// Something that was sent, and sent again, is not acknowledged; nothing has come for so long.
    Unacknowledged(Duration),
    /// All that was sent is acknowledged, or was sent a moment ago; nothing has come for so long.
    Acknowledged(Duration),
}

/// How silent the peer's machine is.
///
/// # Errors
/// Where the socket is not TCP.
pub fn silence(socket: &impl AsFd) -> io::Result<Silence> {
    let info = sys::tcp_info(socket.as_fd())?;
    let since = info.tcpi_last_ack_recv.min(info.tcpi_last_data_recv);
    let since = Duration::from_millis(since.into());
    let is_repeated = info.tcpi_unacked > 0 && info.tcpi_retransmits > 0;
    Ok(if is_repeated {
        Silence::Unacknowledged(since)
    } else {
        Silence::Acknowledged(since)
    })
}

/// Whether nothing is left of the connection: it was reset, or ended in both directions.
#[must_use]
pub fn is_closed(socket: &impl AsFd) -> bool {
    /// `TCP_CLOSE` of `linux/tcp_states.h`.
    const CLOSED: u8 = 7;
    sys::tcp_info(socket.as_fd()).is_ok_and(|info| info.tcpi_state == CLOSED)
}

/// Makes the kernel ask the peer's kernel whether it is there whenever nothing has come for `pause` (in
/// whole seconds, at least one), and at once if that is so already.
///
/// # Errors
/// Where the socket is not TCP.
pub fn probe_every(socket: &impl AsFd, pause: Duration) -> io::Result<()> {
    let pause = Duration::from_secs(pause.as_secs().max(1));
    let keepalive = TcpKeepalive::new().with_time(pause).with_interval(pause);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

/// Turns off what congestion control adds on a leg that never leaves this machine. BBR, the default of
/// many systems, paces what it sends by timers, which on loopback only costs time: a burst that a
/// receiver could take at once waits for its turn. Reno does not pace, and may be set without privilege.
/// On a listener, the sockets that it accepts inherit it.
///
/// # Errors
/// Where the kernel was built without it.
pub fn unpaced(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_tcp_congestion(b"reno")
}

/// A non-blocking TCP socket of the target's family, without Nagle delay, ready to connect. One that
/// lives longer than a moment wants [`keep_watch`]; it is five system calls that a short one need not pay.
///
/// # Errors
/// Out of descriptors.
pub fn stream_to(target: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(target), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// A non-blocking UDP socket that is connected to the target, so that what comes from elsewhere does not
/// reach it. `mark` is its `SO_MARK`.
///
/// # Errors
/// Out of descriptors or ports; without a route; `PermissionDenied` for a mark without `CAP_NET_ADMIN`.
pub fn datagram_to(target: SocketAddr, mark: Option<u32>) -> io::Result<std::net::UdpSocket> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(target), kind, Some(Protocol::UDP))?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    socket.connect(&target.into())?;
    Ok(socket.into())
}

/// Makes the queue of what has arrived and is not received yet so long, in bytes of the kernel's own bookkeeping; as
/// long as it may be without `CAP_NET_ADMIN`, where that is less (`net.core.rmem_max`).
///
/// # Errors
/// Where the kernel refuses, which it does not for a socket of the network.
pub fn queue_up_to(socket: &impl AsFd, bytes: usize) -> io::Result<()> {
    let half = libc::c_int::try_from(bytes / 2).unwrap_or(libc::c_int::MAX);
    sys::set_int_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, half)
        .or_else(|_| sys::set_int_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, half))
}

/// How many datagrams the kernel has dropped because the socket's queue was full, since the socket was made.
///
/// # Errors
/// On kernels before 4.12.
pub fn lost(socket: &impl AsFd) -> io::Result<u32> {
    /// `SK_MEMINFO_DROPS` of `linux/sock_diag.h`.
    const DROPS: usize = 8;
    Ok(sys::memory_info(socket.as_fd())?[DROPS])
}

/// A non-blocking listener, set as [`tune_listener`] does. `share` sets `SO_REUSEPORT`.
/// An IPv6 listener takes IPv6 only.
///
/// # Errors
/// Where the address is in use or not ours.
pub fn listen(address: SocketAddr, share: bool) -> io::Result<std::net::TcpListener> {
    listener(address, share, false)
}

/// As [`listen`], with `SO_REUSEPORT`, and accepts what TPROXY diverts to it: connections to any address.
///
/// # Errors
/// As [`listen`]; `PermissionDenied` without `CAP_NET_ADMIN`.
pub fn listen_transparent(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    listener(address, true, true)
}

fn listener(address: SocketAddr, share: bool, is_transparent: bool) -> io::Result<std::net::TcpListener> {
    /// The kernel lowers it to `net.core.somaxconn`.
    const BACKLOG: i32 = 65535;
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    if share {
        socket.set_reuse_port(true)?;
    }
    if is_transparent {
        transparent(&socket)?;
    }
    tune_listener(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Makes the socket's close a reset instead of a clean end.
///
/// # Errors
/// Where the socket is not TCP.
pub fn reset_on_close(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn what_a_full_queue_loses_is_counted() {
        let own = UdpSocket::bind("127.0.0.1:0").unwrap();
        queue_up_to(&own, 1).unwrap();
        assert_eq!(lost(&own).unwrap(), 0);
        own.connect(own.local_addr().unwrap()).unwrap();
        for _ in 0..100 {
            own.send(&[0; 100]).unwrap();
        }
        own.set_nonblocking(true).unwrap();
        let received = std::iter::from_fn(|| own.recv(&mut [0; 100]).ok()).count();
        assert!(received < 100, "{received}");
        assert_eq!(lost(&own).unwrap() as usize, 100 - received);
    }
}
