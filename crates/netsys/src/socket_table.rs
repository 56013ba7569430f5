//! The sockets of the calling thread's namespace, as the kernel lists them (netlink): who takes connections or
//! datagrams, and which connections are half open. Nothing is connected to. Callers: `weir verify`, `weir explain`,
//! `weir check`, and `weir run`, which lends the command what its caller has on loopback.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};
use rules::Family;
use rules::ruleset::IpProtocol;

use crate::netlink::{address, address_family, attributes, list_sockets, number};

/// All of IPv4 loopback: what a listener on every address takes of it.
const LOOPBACK_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);

/// States, as the bits of `net/tcp_states.h`; a socket of UDP that is not connected is closed.
const SYN_RECEIVED: u32 = 1 << 3;
const CLOSED: u32 = 1 << 7;
const LISTENS: u32 = 1 << 10;
const EVERY_STATE: u32 = u32::MAX;

/// A socket that takes connections or datagrams from anybody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listener {
    /// Where.
    pub address: SocketAddr,
    /// Whether one of IPv6 takes no IPv4.
    pub only_v6: bool,
    /// The user id of whoever made it.
    pub uid: u32,
    /// The number by which the links in `/proc/PID/fd` name it; 0 where it has gone.
    pub inode: u64,
}

/// A connection that has been asked for and not been confirmed yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HalfOpen {
    /// Where it arrived, after all rules.
    pub local: SocketAddr,
    /// Who asks.
    pub peer: SocketAddr,
}

/// Every listener of TCP or UDP; none of any other protocol.
///
/// # Errors
/// Where the kernel was built without socket diagnosis of that protocol.
pub fn listeners(protocol: IpProtocol) -> io::Result<Vec<Listener>> {
    let (number, state) = match protocol {
        IpProtocol::Tcp => (libc::IPPROTO_TCP, LISTENS),
        IpProtocol::Udp => (libc::IPPROTO_UDP, CLOSED),
        _ => return Ok(vec![]),
    };
    let bodies = sockets(number as u8, state)?;
    let all = bodies.iter().filter_map(|body| listener(body));
    // A socket of UDP that is not bound takes nothing.
    Ok(all.filter(|listener| listener.address.port() != 0).collect())
}

/// Loopback destinations at which a TCP connection finds a listener: address and port, each once, sorted.
///
/// # Errors
/// As [`listeners`].
pub fn on_loopback() -> io::Result<Vec<(IpNet, u16)>> {
    let listeners = listeners(IpProtocol::Tcp)?;
    let of = |listener: &Listener| {
        let port = listener.address.port();
        listener.loopback().into_iter().map(move |net| (net, port))
    };
    let mut found: Vec<_> = listeners.iter().flat_map(of).collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// How many sockets of TCP each user has, whatever they do. One that only waits for its time to pass is nobody's.
///
/// # Errors
/// As [`listeners`].
pub fn users() -> io::Result<BTreeMap<u32, usize>> {
    let mut users = BTreeMap::new();
    for body in sockets(libc::IPPROTO_TCP as u8, EVERY_STATE)? {
        if let Some(socket) = listener(&body).filter(|socket| socket.inode != 0) {
            *users.entry(socket.uid).or_default() += 1;
        }
    }
    Ok(users)
}

/// Every half-open connection of TCP.
///
/// # Errors
/// As [`listeners`].
pub fn half_open() -> io::Result<Vec<HalfOpen>> {
    let of = |body: &Vec<u8>| {
        let [local, peer] = ends(body)?;
        Some(HalfOpen { local, peer })
    };
    let bodies = sockets(libc::IPPROTO_TCP as u8, SYN_RECEIVED)?;
    Ok(bodies.iter().filter_map(of).collect())
}

impl Listener {
    /// Whether what goes to that address comes to it. An unspecified address stands for any of its family, and
    /// only a listener on all of them takes that.
    #[must_use]
    pub fn takes(&self, to: SocketAddr) -> bool {
        let is_any = match self.address.ip() {
            IpAddr::V4(ip) => ip.is_unspecified() && to.is_ipv4(),
            IpAddr::V6(ip) => ip.is_unspecified() && (to.is_ipv6() || !self.only_v6),
        };
        self.address.port() == to.port() && (is_any || self.address.ip() == to.ip())
    }

    /// The loopback destinations that lead to it.
    fn loopback(&self) -> Vec<IpNet> {
        let v6 = IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST));
        match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => vec![LOOPBACK_V4.into()],
            IpAddr::V6(ip) if ip.is_unspecified() && self.only_v6 => vec![v6],
            IpAddr::V6(ip) if ip.is_unspecified() => vec![LOOPBACK_V4.into(), v6],
            ip if ip.is_loopback() => vec![ip.into()],
            _ => vec![],
        }
    }
}

/// Those of both families. A kernel without IPv6 has none of that.
fn sockets(protocol: u8, states: u32) -> io::Result<Vec<Vec<u8>>> {
    let mut all = vec![];
    for family in Family::ALL {
        all.extend(list_sockets(address_family(family), protocol, states)?);
    }
    Ok(all)
}

/// Bytes of an `inet_diag_msg`.
const FIXED: usize = 72;

fn listener(body: &[u8]) -> Option<Listener> {
    const ONLY_V6: u16 = 11;
    let (fixed, rest) = body.split_at_checked(FIXED)?;
    let [local, _] = ends(fixed)?;
    Some(Listener {
        address: local,
        only_v6: attributes(rest).any(|attribute| attribute == (ONLY_V6, &[1])),
        uid: number(&fixed[64..68])?,
        inode: number(&fixed[68..72])?.into(),
    })
}

/// Of an `inet_diag_msg`: here and there. One of IPv6 may speak IPv4.
fn ends(body: &[u8]) -> Option<[SocketAddr; 2]> {
    let length = match i32::from(*body.first()?) {
        libc::AF_INET => 4,
        _ => 16,
    };
    let end = |port: usize, ip: usize| {
        let port = u16::from_be_bytes(body.get(port..port + 2)?.try_into().ok()?);
        let ip = address(body.get(ip..ip + length)?)?;
        Some(SocketAddr::new(ip.to_canonical(), port))
    };
    Some([end(4, 8)?, end(6, 24)?])
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::netns::Netns;
    use crate::passthrough;

    fn bound_v6(kind: Type, port: u16, only: bool) -> Socket {
        let socket = Socket::new(Domain::IPV6, kind, None).unwrap();
        socket.set_only_v6(only).unwrap();
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        socket.bind(&any.into()).unwrap();
        if kind == Type::STREAM {
            socket.listen(1).unwrap();
        }
        socket
    }

    #[test]
    fn a_listener_takes_what_the_kernel_would_hand_it_and_is_gone_with_its_socket() {
        let netns = Netns::create().unwrap();
        let found = |protocol, to: SocketAddr| {
            let all = netns.run(|| listeners(protocol).unwrap()).unwrap();
            all.into_iter()
                .filter(|listener| listener.takes(to))
                .collect::<Vec<_>>()
        };
        for (at, to, is_taken) in [
            ("127.0.0.1:15001", "127.0.0.1:15001", true),
            ("127.0.0.1:15001", "127.0.0.2:15001", false),
            ("127.0.0.1:15001", "127.0.0.1:15002", false),
            ("127.0.0.1:15001", "0.0.0.0:15001", false),
            ("0.0.0.0:15001", "10.0.0.9:15001", true),
            ("0.0.0.0:15001", "0.0.0.0:15001", true),
            ("0.0.0.0:15001", "[::1]:15001", false),
            ("[::1]:15001", "[::1]:15001", true),
            ("[::]:15001", "[::1]:15001", true),
            ("[::]:15001", "127.0.0.1:15001", true),
            ("[::ffff:127.0.0.1]:15001", "127.0.0.1:15001", true),
        ] {
            let to = to.parse().unwrap();
            let tcp = netns.run(|| TcpListener::bind(at).unwrap()).unwrap();
            let udp = netns.run(|| UdpSocket::bind(at).unwrap()).unwrap();
            for protocol in [IpProtocol::Tcp, IpProtocol::Udp] {
                let sockets = found(protocol, to);
                assert_eq!(!sockets.is_empty(), is_taken, "{protocol:?} {at} {to}");
                assert!(sockets.iter().all(|socket| socket.uid == 0 && socket.inode != 0));
            }
            drop((tcp, udp));
            assert_eq!(found(IpProtocol::Tcp, to), [], "{at} {to}");
            assert_eq!(found(IpProtocol::Udp, to), [], "{at} {to}");
        }
        for (protocol, kind) in [(IpProtocol::Tcp, Type::STREAM), (IpProtocol::Udp, Type::DGRAM)] {
            for only in [true, false] {
                let _socket = netns.run(|| bound_v6(kind, 53, only)).unwrap();
                let v4 = found(protocol, "127.0.0.1:53".parse().unwrap());
                assert_eq!(v4.is_empty(), only, "{protocol:?}");
                assert_eq!(found(protocol, "[::1]:53".parse().unwrap()).len(), 1);
            }
        }
    }

    #[test]
    fn sockets_of_udp_that_are_connected_or_not_bound_take_nothing_from_others() {
        let found = Netns::create().unwrap().run(|| {
            let _unbound = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            let connected = UdpSocket::bind("127.0.0.1:8").unwrap();
            connected.connect("127.0.0.1:9").unwrap();
            listeners(IpProtocol::Udp).unwrap()
        });
        assert_eq!(found.unwrap(), []);
    }

    #[test]
    fn exactly_what_a_connection_to_loopback_would_find() {
        let found = Netns::create()
            .unwrap()
            .run(|| {
                assert_eq!(on_loopback().unwrap(), []);
                passthrough::add().unwrap();
                let bound = ["127.0.0.1:1", "127.0.0.53:2", "0.0.0.0:3", "[::1]:4", "[::6]:5"];
                let held = bound.map(|address| TcpListener::bind(address).unwrap());
                let more = [6, 7].map(|port| bound_v6(Type::STREAM, port, port == 6));
                // One that does not listen, and a connection.
                let _bound = UdpSocket::bind("127.0.0.1:8").unwrap();
                let _stream = TcpStream::connect("127.0.0.1:1").unwrap();
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
