//! Who listens on loopback in the calling thread's namespace, by the kernel's socket diagnosis (netlink).
//! Caller: `weir run`, which lends the command what its caller has there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::netlink::{self, attributes};

/// All of IPv4 loopback: what a listener on every address takes of it.
const LOOPBACK_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);

/// Loopback destinations at which a TCP connection finds a listener: address and port, each once, sorted.
///
/// # Errors
/// Where the kernel was built without socket diagnosis.
pub fn on_loopback() -> io::Result<Vec<(IpNet, u16)>> {
    let mut found = vec![];
    for family in [libc::AF_INET, libc::AF_INET6] {
        for body in netlink::list_sockets(&request(family as u8))? {
            found.extend(destinations(&body));
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// `inet_diag_req_v2`: TCP of one family that listens, with no attribute but those that always come.
fn request(family: u8) -> Vec<u8> {
    const ADDRESSES: usize = 48;
    const LISTEN: u32 = 10;
    let mut request = vec![family, libc::IPPROTO_TCP as u8, 0, 0];
    request.extend((1_u32 << LISTEN).to_ne_bytes());
    request.extend([0; ADDRESSES]);
    request
}

/// Of an `inet_diag_msg` and its attributes: the loopback destinations that lead to it.
fn destinations(body: &[u8]) -> Vec<(IpNet, u16)> {
    const FIXED: usize = 72;
    const ONLY_V6: u16 = 11;
    let (Some(fixed), Some(rest)) = (body.get(..FIXED), body.get(FIXED..)) else {
        return vec![];
    };
    let port = u16::from_be_bytes([fixed[4], fixed[5]]);
    let address: IpAddr = if i32::from(fixed[0]) == libc::AF_INET {
        Ipv4Addr::new(fixed[8], fixed[9], fixed[10], fixed[11]).into()
    } else {
        let mut octets = [0; 16];
        octets.copy_from_slice(&fixed[8..24]);
        Ipv6Addr::from(octets).to_canonical()
    };
    let only_v6 = attributes(rest).any(|(kind, value)| kind == ONLY_V6 && value == [1]);
    let v6 = IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST));
    let nets: &[IpNet] = match address {
        IpAddr::V4(ip) if ip.is_unspecified() => &[LOOPBACK_V4.into()],
        IpAddr::V6(ip) if ip.is_unspecified() && only_v6 => &[v6],
        IpAddr::V6(ip) if ip.is_unspecified() => &[LOOPBACK_V4.into(), v6],
        ip if ip.is_loopback() => &[ip.into()],
        _ => &[],
    };
    nets.iter().map(|&net| (net, port)).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::netns::Netns;
    use crate::passthrough;

    #[test]
    fn exactly_what_a_connection_to_loopback_would_find() {
        let listen_v6 = |port: u16, only: bool| {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
            socket.set_only_v6(only).unwrap();
            let any = std::net::SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
            socket.bind(&any.into()).unwrap();
            socket.listen(1).unwrap();
            socket
        };
        let found = Netns::create()
            .unwrap()
            .run(|| {
                assert_eq!(on_loopback().unwrap(), []);
                passthrough::add().unwrap();
                let bound = ["127.0.0.1:1", "127.0.0.53:2", "0.0.0.0:3", "[::1]:4", "[::6]:5"];
                let held = bound.map(|address| TcpListener::bind(address).unwrap());
                let more = [listen_v6(6, true), listen_v6(7, false)];
                // One that does not listen, and a connection.
                let _bound = std::net::UdpSocket::bind("127.0.0.1:8").unwrap();
                let _stream = std::net::TcpStream::connect("127.0.0.1:1").unwrap();
                let found = on_loopback().unwrap();
                drop((held, more));
                found
            })
            .unwrap();
        let found: Vec<_> = found.iter().map(|(net, port)| format!("{net} {port}")).collect();
        assert_eq!(
            found,
            [
                "127.0.0.0/8 3",
                "127.0.0.0/8 7",
                "127.0.0.1/32 1",
                "127.0.0.53/32 2",
                "::1/128 4",
                "::1/128 6",
                "::1/128 7"
            ]
        );
    }
}
