//! Links, addresses and routes of the calling thread's network namespace, by rtnetlink.
//! Called by whoever furnishes a namespace; several changes go to the kernel in one message.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use ipnet::IpNet;
use rules::Family;
use rules::plan::PolicyRoute;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

const ACK_ERROR: u16 = 2;
const LIST_DONE: u16 = 3;
pub(crate) const NEW_LINK: u16 = 16;
pub(crate) const REMOVE_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
pub(crate) const NEW_ROUTE: u16 = 24;
const REMOVE_ADDRESS: u16 = 21;
pub(crate) const REMOVE_ROUTE: u16 = 25;
pub(crate) const NEW_POLICY: u16 = 32;
pub(crate) const REMOVE_POLICY: u16 = 33;
pub(crate) const LIST_ROUTES: u16 = 26;
pub(crate) const LIST_POLICIES: u16 = 34;
pub(crate) const LIST_LINKS: u16 = 18;
pub(crate) const LIST_ADDRESSES: u16 = 22;

pub(crate) const REQUEST_ACK: u16 = 0x1 | 0x4;
pub(crate) const CREATE_EXCLUSIVE: u16 = 0x400 | 0x200;
pub(crate) const CREATE_OR_REPLACE: u16 = 0x400 | 0x100;
const REQUEST_LIST: u16 = 0x1 | 0x300;

/// Attribute of a link: its name.
pub(crate) const NAME: u16 = 3;

/// Bytes of a `nlmsghdr`.
pub(crate) const HEADER: usize = 16;

/// A link by its interface index. The loopback device of every namespace has [`LinkIndex::LOOPBACK`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkIndex(pub u32);

impl LinkIndex {
    /// `lo`.
    pub const LOOPBACK: Self = Self(1);
}

/// Changes to be made, in order. The kernel stops at none of them: [`Changes::commit`] tells the first
/// that failed, and those after it may have been made.
#[derive(Default)]
pub struct Changes {
    bytes: Vec<u8>,
    /// What each message was for, by sequence number.
    what: Vec<String>,
    /// Whether addresses and routes may be there already.
    replacing: bool,
}

/// A change that the kernel refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The netlink socket failed.
    #[error("cannot speak to the kernel by rtnetlink")]
    Socket(#[source] io::Error),
    /// The kernel refused one change.
    #[error("cannot {what}")]
    Refused {
        /// What was asked, in words.
        what: String,
        /// What the kernel answered.
        source: io::Error,
    },
}

impl Changes {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// None yet; an address or route that is there already is no error.
    #[must_use]
    pub fn replacing() -> Self {
        Self {
            replacing: true,
            ..Self::default()
        }
    }

    fn create(&self) -> u16 {
        let how = if self.replacing {
            CREATE_OR_REPLACE
        } else {
            CREATE_EXCLUSIVE
        };
        REQUEST_ACK | how
    }

    /// Sets a link up.
    pub fn up(&mut self, link: LinkIndex) -> &mut Self {
        self.message(
            NEW_LINK,
            REQUEST_ACK,
            format!("set link {} up", link.0),
            |bytes| link_header(bytes, link.0, true),
        )
    }

    /// Makes a veth pair with both ends in this namespace, both up.
    pub fn veth(&mut self, near: (LinkIndex, &str), far: (LinkIndex, &str)) -> &mut Self {
        let what = format!("make the veth pair {} and {}", near.1, far.1);
        self.make(near, "veth", what, |bytes| {
            nested(bytes, 1, |bytes| {
                link_header(bytes, far.0.0, false);
                attribute(bytes, NAME, &text(far.1));
            });
        });
        // An end goes up only once it knows the other one.
        self.up(near.0).up(far.0)
    }

    /// Makes a veth pair, the near end here and up, the far one in another namespace, where it is still to
    /// be set up. The descriptor must stay open until [`Changes::commit`].
    pub fn veth_into(
        &mut self,
        near: (LinkIndex, &str),
        far: (LinkIndex, &str),
        netns: BorrowedFd<'_>,
    ) -> &mut Self {
        const NETNS_FD: u16 = 28;
        let what = format!("make the veth pair {} and {}", near.1, far.1);
        self.make(near, "veth", what, |bytes| {
            nested(bytes, 1, |bytes| {
                link_header(bytes, far.0.0, false);
                attribute(bytes, NAME, &text(far.1));
                attribute(bytes, NETNS_FD, &netns.as_raw_fd().to_ne_bytes());
            });
        });
        self.up(near.0)
    }

    /// Makes a bridge and sets it up.
    pub fn bridge(&mut self, link: (LinkIndex, &str)) -> &mut Self {
        self.make(link, "bridge", format!("make the bridge {}", link.1), |_| {});
        self.up(link.0)
    }

    /// Plugs a link into a bridge.
    pub fn join(&mut self, link: LinkIndex, bridge: LinkIndex) -> &mut Self {
        const MASTER: u16 = 10;
        let what = format!("plug link {} into the bridge", link.0);
        self.message(NEW_LINK, REQUEST_ACK, what, |bytes| {
            link_header(bytes, link.0, false);
            attribute(bytes, MASTER, &bridge.0.to_ne_bytes());
        })
    }

    fn make(
        &mut self,
        link: (LinkIndex, &str),
        kind: &str,
        what: String,
        data: impl FnOnce(&mut Vec<u8>),
    ) -> &mut Self {
        const INFO: u16 = 18;
        self.message(NEW_LINK, REQUEST_ACK | CREATE_EXCLUSIVE, what, |bytes| {
            link_header(bytes, link.0.0, false);
            attribute(bytes, NAME, &text(link.1));
            nested(bytes, INFO, |bytes| {
                attribute(bytes, 1, kind.as_bytes());
                nested(bytes, 2, data);
            });
        })
    }

    /// Gives a link an address of its own (/32 or /128), usable at once (no duplicate address detection).
    pub fn address(&mut self, link: LinkIndex, address: IpAddr) -> &mut Self {
        self.new_address(link, address, None)
    }

    /// The same; the kernel keeps the metric of its route with it (Linux 4.18 and later).
    pub fn address_with_metric(&mut self, link: LinkIndex, address: IpAddr, metric: u32) -> &mut Self {
        self.new_address(link, address, Some(metric))
    }

    fn new_address(&mut self, link: LinkIndex, address: IpAddr, metric: Option<u32>) -> &mut Self {
        const LOCAL: u16 = 2;
        const ROUTE_METRIC: u16 = 9;
        const ADDRESS: u16 = 1;
        const NO_DUPLICATE_DETECTION: u8 = 2;
        let what = format!("add address {address}");
        self.message(NEW_ADDRESS, self.create(), what, |bytes| {
            bytes.extend([family(address), host_bits(address), NO_DUPLICATE_DETECTION, 0]);
            bytes.extend(link.0.to_ne_bytes());
            attribute(bytes, LOCAL, &octets(address));
            attribute(bytes, ADDRESS, &octets(address));
            if let Some(metric) = metric {
                attribute(bytes, ROUTE_METRIC, &metric.to_ne_bytes());
            }
        })
    }

    /// Takes away what [`Changes::address`] gave.
    pub fn remove_address(&mut self, link: LinkIndex, address: IpAddr) -> &mut Self {
        const LOCAL: u16 = 2;
        let what = format!("remove address {address}");
        self.message(REMOVE_ADDRESS, REQUEST_ACK, what, |bytes| {
            bytes.extend([family(address), host_bits(address), 0, 0]);
            bytes.extend(link.0.to_ne_bytes());
            attribute(bytes, LOCAL, &octets(address));
        })
    }

    /// Sends a network out of a link, without a gateway, from `source`.
    pub fn route(&mut self, to: IpNet, link: LinkIndex, source: IpAddr) -> &mut Self {
        const DESTINATION: u16 = 1;
        const OUTPUT_LINK: u16 = 4;
        const PREFERRED_SOURCE: u16 = 7;
        const TABLE_MAIN: u8 = 254;
        const PROTOCOL_STATIC: u8 = 4;
        const SCOPE_LINK: u8 = 253;
        const UNICAST: u8 = 1;
        let what = format!("add a route to {to}");
        self.message(NEW_ROUTE, self.create(), what, |bytes| {
            bytes.extend([family(to.addr()), to.prefix_len(), 0, 0]);
            bytes.extend([TABLE_MAIN, PROTOCOL_STATIC, SCOPE_LINK, UNICAST]);
            bytes.extend(0_u32.to_ne_bytes());
            attribute(bytes, DESTINATION, &octets(to.network()));
            attribute(bytes, OUTPUT_LINK, &link.0.to_ne_bytes());
            attribute(bytes, PREFERRED_SOURCE, &octets(source));
        })
    }

    /// Sends packets with a mark to a routing table of their own, by a rule with this `protocol`, which says
    /// who made it.
    pub fn policy(&mut self, policy: PolicyRoute, protocol: u8) -> &mut Self {
        let what = format!("route mark {:#x} by table {}", policy.mark, policy.table);
        self.message(NEW_POLICY, REQUEST_ACK | CREATE_EXCLUSIVE, what, |bytes| {
            policy_rule(bytes, policy, protocol);
        })
    }

    /// Takes away what [`Changes::policy`] made.
    pub fn remove_policy(&mut self, policy: PolicyRoute, protocol: u8) -> &mut Self {
        let what = format!("take away the routing rule of mark {:#x}", policy.mark);
        self.message(REMOVE_POLICY, REQUEST_ACK, what, |bytes| {
            policy_rule(bytes, policy, protocol);
        })
    }

    /// Delivers everything that is routed by a table here, over loopback.
    pub fn local_default(&mut self, route: LocalDefault, protocol: u8) -> &mut Self {
        let what = format!("add the local route of table {}", route.table);
        self.message(NEW_ROUTE, self.create(), what, |bytes| {
            local_route(bytes, route, protocol);
        })
    }

    /// Takes away what [`Changes::local_default`] made.
    pub fn remove_local_default(&mut self, route: LocalDefault, protocol: u8) -> &mut Self {
        let what = format!("take away the local route of table {}", route.table);
        self.message(REMOVE_ROUTE, REQUEST_ACK, what, |bytes| {
            local_route(bytes, route, protocol);
        })
    }

    /// Makes them all, in the calling thread's namespace. Needs `CAP_NET_ADMIN` over it.
    ///
    /// # Errors
    /// Names the first change that the kernel refused.
    pub fn commit(&self) -> Result<(), Error> {
        let socket = socket().map_err(Error::Socket)?;
        rustix::net::send(&socket, &self.bytes, SendFlags::empty())
            .map_err(|errno| Error::Socket(errno.into()))?;
        self.await_acks(&socket)
    }

    fn await_acks(&self, socket: &OwnedFd) -> Result<(), Error> {
        let mut first = Ok(());
        let mut left = self.what.len();
        let mut buffer = vec![0; 32 * 1024];
        while left > 0 {
            let (length, _) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())
                .map_err(|errno| Error::Socket(errno.into()))?;
            let mut rest = &buffer[..length];
            while let Some((message, after)) = split_message(rest) {
                rest = after;
                let Some((sequence, errno)) = ack(message) else {
                    continue;
                };
                left -= 1;
                if errno != 0 && first.is_ok() {
                    first = Err(Error::Refused {
                        what: self.what.get(sequence).cloned().unwrap_or_default(),
                        source: io::Error::from_raw_os_error(errno),
                    });
                }
            }
        }
        first
    }

    pub(crate) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        what: String,
        body: impl FnOnce(&mut Vec<u8>),
    ) -> &mut Self {
        let start = self.bytes.len();
        let sequence = self.what.len() as u32;
        self.bytes.extend(0_u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend(0_u32.to_ne_bytes());
        body(&mut self.bytes);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.what.push(what);
        self
    }
}

/// A `fib_rule_hdr` and its attributes.
fn policy_rule(bytes: &mut Vec<u8>, policy: PolicyRoute, protocol: u8) {
    const TO_TABLE: u8 = 1;
    bytes.extend([address_family(policy.family), 0, 0, 0, 0, 0, 0, TO_TABLE]);
    bytes.extend(0_u32.to_ne_bytes());
    attribute(bytes, POLICY_MARK, &policy.mark.to_ne_bytes());
    attribute(bytes, POLICY_MASK, &u32::MAX.to_ne_bytes());
    attribute(bytes, TABLE, &policy.table.to_ne_bytes());
    attribute(bytes, POLICY_PROTOCOL, &[protocol]);
}

/// An `rtmsg` and its attributes.
fn local_route(bytes: &mut Vec<u8>, route: LocalDefault, protocol: u8) {
    const OUTPUT_LINK: u16 = 4;
    const SCOPE_HOST: u8 = 254;
    bytes.extend([address_family(route.family), 0, 0, 0]);
    bytes.extend([0, protocol, SCOPE_HOST, ROUTE_LOCAL]);
    bytes.extend(0_u32.to_ne_bytes());
    attribute(bytes, OUTPUT_LINK, &LinkIndex::LOOPBACK.0.to_ne_bytes());
    attribute(bytes, TABLE, &route.table.to_ne_bytes());
    if route.metric != 0 {
        attribute(bytes, METRIC, &route.metric.to_ne_bytes());
    }
}

/// A route that delivers everything here. The kernel keeps several in a table, one a metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalDefault {
    /// Of which packets.
    pub family: Family,
    /// The routing table that it is in.
    pub table: u32,
    /// 0 is the kernel's default, which IPv6 shows as 1024.
    pub metric: u32,
}

/// Attributes of a routing rule; that of the table is also a route's.
pub(crate) const POLICY_MARK: u16 = 10;
pub(crate) const TABLE: u16 = 15;
pub(crate) const POLICY_MASK: u16 = 16;
pub(crate) const POLICY_PROTOCOL: u16 = 21;
/// `RTA_PRIORITY`.
pub(crate) const METRIC: u16 = 6;
/// `RTN_LOCAL`.
pub(crate) const ROUTE_LOCAL: u8 = 2;

pub(crate) fn address_family(family: Family) -> u8 {
    let number = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    number as u8
}

/// Speaks rtnetlink.
fn socket() -> io::Result<OwnedFd> {
    socket_of(None)
}

/// No protocol is `NETLINK_ROUTE`.
fn socket_of(protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        flags,
        protocol,
    )?)
}

/// Everything of one kind ([`LIST_LINKS`], [`LIST_ADDRESSES`]) in the calling thread's namespace: the body
/// of each message, the kernel's fixed structure first and then attributes (see [`attributes`]).
pub(crate) fn list(kind: u16) -> io::Result<Vec<Vec<u8>>> {
    /// Room for the fixed structure of any kind; all zeroes is "all of them".
    const ANY: [u8; 16] = [0; 16];
    list_by(&socket()?, kind, &ANY)
}

/// The sockets that an `inet_diag_req_v2` asks for: an `inet_diag_msg` each, then attributes.
pub(crate) fn list_sockets(wanted: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    let socket = socket_of(Some(rustix::net::netlink::SOCK_DIAG))?;
    list_by(&socket, SOCK_DIAG_BY_FAMILY, wanted)
}

fn list_by(socket: &OwnedFd, kind: u16, wanted: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let mut request = Vec::new();
    request.extend(((HEADER + wanted.len()) as u32).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(REQUEST_LIST.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(wanted);
    rustix::net::send(socket, &request, SendFlags::empty())?;

    let mut found = vec![];
    // The kernel makes no datagram of a list longer than this.
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let (length, _) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some((message, after)) = split_message(rest) {
            rest = after;
            match (u16::from_ne_bytes([message[4], message[5]]), ack(message)) {
                (LIST_DONE, _) => return Ok(found),
                (ACK_ERROR, Some((_, errno))) => return Err(io::Error::from_raw_os_error(errno)),
                _ => found.push(message[HEADER..].to_vec()),
            }
        }
    }
}

/// Type and value of each attribute.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// Two flags are kept in the type.
    const TYPE: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & TYPE;
        let value = bytes.get(4..length)?;
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
        Some((kind, value))
    })
}

/// `ifinfomsg`.
pub(crate) fn link_header(bytes: &mut Vec<u8>, index: u32, up: bool) {
    let flags = if up { libc::IFF_UP as u32 } else { 0 };
    bytes.extend([0; 4]);
    bytes.extend(index.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes()); // the flags to change: only those that are set
}

/// One attribute: length without padding, type, value, padding to four bytes.
pub(crate) fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    nested(bytes, kind, |bytes| bytes.extend(value));
}

pub(crate) fn nested(bytes: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.extend([0; 2]);
    bytes.extend(kind.to_ne_bytes());
    body(bytes);
    let length = (bytes.len() - start) as u16;
    bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

pub(crate) fn text(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

pub(crate) fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    family as u8
}

pub(crate) fn host_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The first message of a datagram, header included, and what follows it.
pub(crate) fn split_message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let message = bytes.get(..length).filter(|_| length >= HEADER)?;
    let next = length.next_multiple_of(4).min(bytes.len());
    Some((message, &bytes[next..]))
}

/// Sequence number and error number (0: done) of an acknowledgement; none for any other message.
pub(crate) fn ack(message: &[u8]) -> Option<(usize, i32)> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    let sequence = u32::from_ne_bytes(message.get(8..12)?.try_into().ok()?);
    let errno = i32::from_ne_bytes(message.get(HEADER..HEADER + 4)?.try_into().ok()?);
    (kind == ACK_ERROR).then(|| (sequence as usize, errno.saturating_neg()))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::netns::Netns;

    fn inside(changes: &Changes) -> Result<(), Error> {
        Netns::create().unwrap().run(|| changes.commit()).unwrap()
    }

    #[test]
    fn a_pair_with_addresses_and_default_routes_gives_connect_a_source() {
        let (near, far) = (LinkIndex(2), LinkIndex(3));
        let v4: IpAddr = "100.64.0.2".parse().unwrap();
        let v6: IpAddr = "fd00:77::2".parse().unwrap();
        let mut changes = Changes::new();
        changes
            .veth((near, "eth0"), (far, "weir0"))
            .address(near, v4)
            .address(near, v6)
            .route("0.0.0.0/0".parse().unwrap(), near, v4)
            .route("::/0".parse().unwrap(), near, v6);
        let sources = Netns::create()
            .unwrap()
            .run(|| {
                changes.commit().unwrap();
                [("0.0.0.0:0", "192.0.2.9:9"), ("[::]:0", "[2001:db8::9]:9")].map(|(any, to)| {
                    let socket = std::net::UdpSocket::bind(any).unwrap();
                    socket.connect(to).unwrap();
                    socket.local_addr().unwrap().ip()
                })
            })
            .unwrap();
        assert_eq!(sources, [v4, v6]);
    }

    #[test]
    fn namespaces_on_a_bridge_reach_each_other() {
        let (switch, pods) = (
            Netns::create().unwrap(),
            [Netns::create().unwrap(), Netns::create().unwrap()],
        );
        let bridge = LinkIndex(2);
        let addresses: [IpAddr; 2] = ["10.9.0.1".parse().unwrap(), "10.9.0.2".parse().unwrap()];
        let mut plug = Changes::new();
        plug.bridge((bridge, "br0"));
        for (port, pod) in [LinkIndex(10), LinkIndex(11)].into_iter().zip(&pods) {
            plug.veth_into(
                (port, &format!("p{}", port.0)),
                (LinkIndex(2), "eth0"),
                pod.as_fd(),
            );
            plug.join(port, bridge);
        }
        switch.run(|| plug.commit().unwrap()).unwrap();
        for (pod, address) in pods.iter().zip(addresses) {
            let mut furnish = Changes::new();
            furnish.up(LinkIndex(2)).address(LinkIndex(2), address);
            furnish.route("0.0.0.0/0".parse().unwrap(), LinkIndex(2), address);
            pod.run(|| furnish.commit().unwrap()).unwrap();
        }
        let listener = pods[1]
            .run(|| std::net::TcpListener::bind((addresses[1], 0)).unwrap())
            .unwrap();
        let to = listener.local_addr().unwrap();
        let stream = pods[0].run(|| std::net::TcpStream::connect(to).unwrap()).unwrap();
        assert_eq!(stream.local_addr().unwrap().ip(), addresses[0]);
    }

    #[test]
    fn the_refused_change_is_named() {
        let mut changes = Changes::new();
        changes
            .up(LinkIndex::LOOPBACK)
            .address(LinkIndex(77), "10.0.0.1".parse().unwrap());
        let error = inside(&changes).unwrap_err();
        assert_eq!(error.to_string(), "cannot add address 10.0.0.1");
    }
}
