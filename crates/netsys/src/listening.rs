//! Who listens in the calling thread's namespace, by the kernel's socket tables. Nothing is connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::{fs, io};

use rules::ruleset::IpProtocol;

/// A socket that takes connections or datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listening {
    /// Where.
    pub address: SocketAddr,
    /// The user id of the process that made it.
    pub uid: u32,
    /// The number by which the links in `/proc/PID/fd` name it; 0 where it has gone.
    pub inode: u64,
}

/// Those of TCP or UDP; none of any other protocol.
///
/// # Errors
/// Where `/proc` is not mounted. A kernel without IPv6 has no such sockets.
pub fn listening(protocol: IpProtocol) -> io::Result<Vec<Listening>> {
    const LISTENS: &str = "0A";
    const UNCONNECTED: &str = "07";
    let (name, state) = match protocol {
        IpProtocol::Tcp => ("tcp", LISTENS),
        IpProtocol::Udp => ("udp", UNCONNECTED),
        _ => return Ok(vec![]),
    };
    let v4 = fs::read_to_string(format!("/proc/thread-self/net/{name}"))?;
    let v6 = match fs::read_to_string(format!("/proc/thread-self/net/{name}6")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other?,
    };
    let lines = v4.lines().chain(v6.lines());
    Ok(lines.filter_map(|line| socket(line, state)).collect())
}

/// `0: 00000000:3A99 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1337 ..`.
fn socket(line: &str, wanted: &str) -> Option<Listening> {
    let mut fields = line.split_whitespace().skip(1);
    let local = fields.next()?;
    let (_remote, state) = (fields.next()?, fields.next()?);
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    let (address, port) = local.split_once(':')?;
    (state == wanted).then_some(Listening {
        address: SocketAddr::new(self::address(address)?, u16::from_str_radix(port, 16).ok()?),
        uid,
        inode,
    })
}

/// Words of 32 bits, each in the machine's byte order.
fn address(text: &str) -> Option<IpAddr> {
    let word = |index: usize| {
        let digits = text.get(index * 8..index * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut octets = [0; 16];
            for (index, part) in octets.chunks_mut(4).enumerate() {
                part.copy_from_slice(&word(index)?);
            }
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

impl Listening {
    /// Whether what goes to that address comes to it.
    #[must_use]
    pub fn takes(&self, to: SocketAddr) -> bool {
        let ip = self.address.ip();
        let is_any = match ip {
            IpAddr::V4(v4) => v4.is_unspecified() && to.is_ipv4(),
            // One of `[::]` takes IPv4 as well, unless it says otherwise, which this table does not tell.
            IpAddr::V6(v6) => v6.is_unspecified(),
        };
        self.address.port() == to.port() && (is_any || ip == to.ip())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_is_found_and_is_gone_with_its_socket() {
        let netns = crate::netns::Netns::create().unwrap();
        let found = |to: SocketAddr| {
            let all = netns.run(|| listening(IpProtocol::Tcp).unwrap()).unwrap();
            all.into_iter()
                .filter(|socket| socket.takes(to))
                .collect::<Vec<_>>()
        };
        for (at, to, is_taken) in [
            ("127.0.0.1:15001", "127.0.0.1:15001", true),
            ("127.0.0.1:15001", "127.0.0.2:15001", false),
            ("0.0.0.0:15001", "10.0.0.9:15001", true),
            ("0.0.0.0:15001", "[::1]:15001", false),
            ("[::1]:15001", "[::1]:15001", true),
            ("[::]:15001", "[::1]:15001", true),
        ] {
            let listener = netns.run(|| TcpListener::bind(at).unwrap()).unwrap();
            let socket = found(to.parse().unwrap());
            assert_eq!(!socket.is_empty(), is_taken, "{at} {to}");
            assert!(socket.iter().all(|socket| socket.uid == 0));
            drop(listener);
            assert_eq!(found(to.parse().unwrap()), [], "{at} {to}");
        }
    }
}
