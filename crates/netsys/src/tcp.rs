//! The TCP sockets of the calling thread's namespace, by the kernel's socket diagnosis (netlink): who listens
//! where, and which connections are half open at which listener. Caller: `weir verify`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::netlink;

/// A socket that listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listener {
    /// Where; an IPv6 one on every address may take IPv4 too.
    pub address: SocketAddr,
    /// Whose it is.
    pub uid: u32,
    /// Which socket, as `/proc/PID/fd` names it.
    pub inode: u32,
}

/// A connection that has been asked for and not been confirmed yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HalfOpen {
    /// Where it arrived, after all rules.
    pub local: SocketAddr,
    /// Who asks.
    pub peer: SocketAddr,
}

/// Every listener.
///
/// # Errors
/// Where the kernel was built without socket diagnosis.
pub fn listeners() -> io::Result<Vec<Listener>> {
    const LISTEN: u32 = 10;
    let of = |body: &Vec<u8>| {
        Some(Listener {
            address: address(body, 4, 8)?,
            uid: number(body, 64)?,
            inode: number(body, 68)?,
        })
    };
    Ok(sockets(LISTEN)?.iter().filter_map(of).collect())
}

/// Every half-open connection.
///
/// # Errors
/// As [`listeners`].
pub fn half_open() -> io::Result<Vec<HalfOpen>> {
    const SYN_RECEIVED: u32 = 3;
    let of = |body: &Vec<u8>| {
        Some(HalfOpen {
            local: address(body, 4, 8)?,
            peer: address(body, 6, 24)?,
        })
    };
    Ok(sockets(SYN_RECEIVED)?.iter().filter_map(of).collect())
}

fn sockets(state: u32) -> io::Result<Vec<Vec<u8>>> {
    const ADDRESSES: usize = 48;
    let mut all = vec![];
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut request = vec![family as u8, libc::IPPROTO_TCP as u8, 0, 0];
        request.extend((1_u32 << state).to_ne_bytes());
        request.extend([0; ADDRESSES]);
        all.extend(netlink::list_sockets(&request)?);
    }
    Ok(all)
}

/// Of an `inet_diag_msg`: a port and an address at these places.
fn address(body: &[u8], port: usize, ip: usize) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(body.get(port..port + 2)?.try_into().ok()?);
    let octets: [u8; 16] = body.get(ip..ip + 16)?.try_into().ok()?;
    let ip: IpAddr = if i32::from(*body.first()?) == libc::AF_INET {
        Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into()
    } else {
        Ipv6Addr::from(octets).to_canonical()
    };
    Some(SocketAddr::new(ip, port))
}

fn number(body: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(body.get(at..at + 4)?.try_into().ok()?))
}
