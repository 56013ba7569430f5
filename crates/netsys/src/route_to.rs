//! Where the kernel would send a packet, and from which address: one question to its routing, as `ip route get`
//! asks it. It is about the calling thread's namespace, and nothing is sent.

use std::io;
use std::net::IpAddr;

use rules::evaluate::{AddressKind, Ground};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use crate::links::name_of;
use crate::netlink::{
    HEADER, LIST_ROUTES, REQUEST, ROUTE_LOCAL, ack, address, attribute, attributes, family, host_bits,
    number, octets, split_message,
};

const TO: u16 = 1;
const OUT_DEVICE: u16 = 4;
const GATEWAY: u16 = 5;
const SOURCE: u16 = 7;
const MARK: u16 = 16;
const UID: u16 = 25;
/// Bytes of an `rtmsg`.
const FIXED: usize = 12;

/// A packet that is to be routed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    /// To where.
    pub to: IpAddr,
    /// Its mark.
    pub mark: u32,
    /// Whose it is.
    pub uid: u32,
}

/// The namespace of the calling thread, as its routing has it.
#[derive(Clone, Copy, Debug)]
pub struct Here;

impl Ground for Here {
    fn kind(&self, address: IpAddr) -> Option<AddressKind> {
        Some(match ask(address) {
            Ok(route) if route.is_local => AddressKind::Local,
            Ok(route) if route.is_broadcast => AddressKind::Broadcast,
            _ => AddressKind::everywhere(address).unwrap_or(AddressKind::Unicast),
        })
    }

    fn device(&self, to: IpAddr) -> Option<String> {
        let route = ask(to).ok()?;
        Some(match route.is_local {
            true => String::from("lo"),
            false => route.device,
        })
    }
}

fn ask(to: IpAddr) -> io::Result<Route> {
    route_to(Question { to, mark: 0, uid: 0 })
}

/// What routing says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// The device that it leaves by; `lo` for what stays here.
    pub device: String,
    /// The source address that it gets where its socket has none.
    pub source: Option<IpAddr>,
    /// The next hop, where it is not the destination itself.
    pub gateway: Option<IpAddr>,
    /// Whether it is delivered in this namespace.
    pub is_local: bool,
    /// Whether it goes to everybody on a wire.
    pub is_broadcast: bool,
}

/// Asks.
///
/// # Errors
/// What connect(2) would say: no route ([`io::ErrorKind::NetworkUnreachable`] or
/// [`io::ErrorKind::HostUnreachable`]), a prohibiting one, a family that is switched off.
pub fn route_to(question: Question) -> io::Result<Route> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    rustix::net::send(&socket, &request(question), SendFlags::empty())?;
    let mut buffer = vec![0; 16 * 1024];
    let (length, _) = rustix::net::recv(&socket, &mut buffer[..], rustix::net::RecvFlags::empty())?;
    let (message, _) =
        split_message(&buffer[..length]).ok_or_else(|| io::Error::other("the kernel's answer is cut off"))?;
    if let Some((_, errno)) = ack(message) {
        return Err(io::Error::from_raw_os_error(errno));
    }
    route(&message[HEADER..]).ok_or_else(|| io::Error::other("the kernel's answer is not understood"))
}

fn request(question: Question) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes.extend([family(question.to), host_bits(question.to)]);
    bytes.resize(HEADER + FIXED, 0);
    attribute(&mut bytes, TO, &octets(question.to));
    attribute(&mut bytes, MARK, &question.mark.to_ne_bytes());
    attribute(&mut bytes, UID, &question.uid.to_ne_bytes());
    let length = bytes.len() as u32;
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&LIST_ROUTES.to_ne_bytes());
    bytes[6..8].copy_from_slice(&REQUEST.to_ne_bytes());
    bytes
}

/// An `rtmsg`, then attributes.
fn route(body: &[u8]) -> Option<Route> {
    const BROADCAST: u8 = 3;
    let (fixed, rest) = body.split_at_checked(FIXED)?;
    let mut route = Route {
        device: String::new(),
        source: None,
        gateway: None,
        is_local: fixed[7] == ROUTE_LOCAL,
        is_broadcast: fixed[7] == BROADCAST,
    };
    for (kind, value) in attributes(rest) {
        match kind {
            OUT_DEVICE => route.device = name_of(number(value)?).ok()?,
            SOURCE => route.source = address(value),
            GATEWAY => route.gateway = address(value),
            _ => {}
        }
    }
    Some(route)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::netlink::{Changes, LinkIndex};

    #[test]
    fn as_connect_would_find() {
        let (near, far) = (LinkIndex(2), LinkIndex(3));
        let v4: IpAddr = "100.64.0.2".parse().unwrap();
        let v6: IpAddr = "fd00:77::2".parse().unwrap();
        let mut changes = Changes::new();
        changes
            .veth((near, "eth0"), (far, "weir0"))
            .address(near, v4)
            .address(near, v6)
            .route("0.0.0.0/0".parse().unwrap(), near, v4);
        let netns = crate::netns::Netns::create().unwrap();
        netns.run(|| changes.commit().unwrap()).unwrap();
        let ask = |to: &str| {
            let to = to.parse().unwrap();
            netns
                .run(|| {
                    route_to(Question {
                        to,
                        mark: 0,
                        uid: 1000,
                    })
                })
                .unwrap()
        };
        let out = ask("192.0.2.9").unwrap();
        assert_eq!(
            (out.device.as_str(), out.source, out.is_local),
            ("eth0", Some(v4), false)
        );
        for own in ["127.0.0.1", "100.64.0.2", "::1", "fd00:77::2"] {
            // The kernel makes an IPv6 address its own a moment after it has taken it.
            let begun = Instant::now();
            let mut route = ask(own).unwrap();
            while !route.is_local && begun.elapsed() < Duration::from_secs(10) {
                route = ask(own).unwrap();
            }
            assert_eq!((route.device.as_str(), route.is_local), ("lo", true), "{own}");
        }
        let error = ask("2001:db8::9").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NetworkUnreachable);
    }
}
