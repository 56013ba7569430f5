//! A wire that leads nowhere: a veth pair whose near end has addresses of its own. Whatever is sent from these
//! goes out by it, wherever to, and ends there; at its far end packets are put in as if they came from outside.
//!
//! It goes with this process, killed or not, where the far end can have a namespace of its own (that takes
//! `CAP_SYS_ADMIN`); else [`remove_leftovers`] of the next run takes it away. No setting of the namespace is changed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::{Duration, Instant};

use rules::Family;
use socket2::{Domain, Socket, Type};

use super::Segment;
use crate::links::{self, index_of};
use crate::netlink::{
    self, CREATE_EXCLUSIVE, CREATE_OR_REPLACE, Changes, LIST_ROUTES, LinkIndex, NAME, NEW_LINK, NEW_POLICY,
    NEW_ROUTE, POLICY_MARK, POLICY_MASK, POLICY_PROTOCOL, REMOVE_LINK, REMOVE_POLICY, REMOVE_ROUTE,
    REQUEST_ACK, ROUTE_LOCAL, TABLE, address, address_family, attribute, attributes, link_header, nested,
    number, octets, text,
};
use crate::netns::Netns;
use crate::sys;

const NEAR: &str = "weirprobe0";
const FAR: &str = "weirprobe1";
type Mac = [u8; 6];
/// Locally administered, as is each of the others.
const NEAR_MAC: Mac = [0x02, b'w', b'e', b'i', b'r', 1];
const FAR_MAC: Mac = [0x02, b'w', b'e', b'i', b'r', 2];
/// Nobody's: what is sent to it is seen by the tap and by no stack.
const NOBODY: Mac = [0x02, b'w', b'e', b'i', b'r', 0xff];

/// Where packets from the near addresses are routed, and who says so. Before any routing rule but that of local
/// addresses.
const PROBE_TABLE: u32 = 0x7765_6972;
const PRIORITY: u32 = 5;
const OURS: u8 = 88;

/// The two ends' addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// Of the namespace.
    pub near_v4: Ipv4Addr,
    /// Of nobody, reached by the wire.
    pub far_v4: Ipv4Addr,
    /// Of the namespace.
    pub near_v6: Ipv6Addr,
    /// Of nobody, reached by the wire.
    pub far_v6: Ipv6Addr,
}

impl Addresses {
    /// Some to choose from, none of which is used on the Internet: shared address space, benchmarking and
    /// documentation (RFC 6890), and local IPv6 networks.
    pub const CHOICES: [Self; 3] = [
        Self::of([100, 64, 255], 0xfd77),
        Self::of([198, 19, 255], 0xfdb7),
        Self::of([203, 0, 113], 0xfc77),
    ];
    /// Bits that both ends have in common.
    pub(super) const V4_BITS: u32 = 30;

    const fn of([a, b, c]: [u8; 3], first: u16) -> Self {
        Self {
            near_v4: Ipv4Addr::new(a, b, c, 1),
            far_v4: Ipv4Addr::new(a, b, c, 2),
            near_v6: Ipv6Addr::new(first, 0, 0, 0xffff, 0, 0, 0, 1),
            far_v6: Ipv6Addr::new(first, 0, 0, 0xffff, 0, 0, 0, 2),
        }
    }

    /// The near end's.
    #[must_use]
    pub fn near(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.near_v4.into(),
            Family::V6 => self.near_v6.into(),
        }
    }

    /// The far end's.
    #[must_use]
    pub fn far(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.far_v4.into(),
            Family::V6 => self.far_v6.into(),
        }
    }

    /// Whether somebody in the namespace has one of them.
    fn are_taken(self, taken: &[IpAddr]) -> bool {
        let ours = Family::ALL.map(|family| [self.near(family), self.far(family)]);
        ours.as_flattened().iter().any(|ip| taken.contains(ip))
    }
}

/// The wire. Dropping it takes it away.
#[derive(Debug)]
pub struct Wire {
    /// The addresses of its ends.
    pub addresses: Addresses,
    /// The near end's index.
    pub device: u32,
    families: Vec<Family>,
    /// Puts packets in at the far end.
    far: Socket,
    /// Where the far end is, if it is elsewhere.
    _elsewhere: Option<Netns>,
}

impl Wire {
    /// The near end's name.
    pub const DEVICE: &str = NEAR;

    /// Lays one for these families. To what is sent from it, the `local` addresses are the namespace's own.
    ///
    /// # Errors
    /// Without `CAP_NET_ADMIN` and `CAP_NET_RAW`, or where the kernel has no veth.
    pub fn lay(wanted: Addresses, families: &[Family], local: &[IpAddr]) -> Result<Self, netlink::Error> {
        remove_leftovers();
        let taken = links::addresses().map_err(netlink::Error::Socket)?;
        let choices = std::iter::once(wanted).chain(Addresses::CHOICES);
        let addresses = choices
            .into_iter()
            .find(|choice| !choice.are_taken(&taken))
            .unwrap_or(wanted);
        // Without the right to make one, the far end stays here.
        let elsewhere = Netns::create().ok();
        make(elsewhere.as_ref())?;
        let laid = furnish(addresses, families, local, elsewhere.as_ref());
        match laid {
            Ok((device, far)) => Ok(Self {
                addresses,
                device,
                families: families.to_vec(),
                far,
                _elsewhere: elsewhere,
            }),
            Err(error) => {
                remove_leftovers();
                Err(error)
            }
        }
    }

    /// Puts a packet in, as if it came from outside to the near end.
    ///
    /// # Errors
    /// Where the wire is gone.
    pub fn put(&self, segment: &Segment) -> io::Result<()> {
        const V4: [u8; 2] = (libc::ETH_P_IP as u16).to_be_bytes();
        const V6: [u8; 2] = (libc::ETH_P_IPV6 as u16).to_be_bytes();
        let kind = if segment.destination.is_ipv4() { V4 } else { V6 };
        let mut frame = [NEAR_MAC.as_slice(), &NOBODY, &kind].concat();
        frame.extend(segment.packet());
        self.far.send(&frame).map(drop)
    }

    /// The families that it was laid for.
    #[must_use]
    pub fn families(&self) -> &[Family] {
        &self.families
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        remove_leftovers();
    }
}

/// Takes away what an earlier run left in the namespace, if it left anything.
pub fn remove_leftovers() {
    let mut changes = Changes::new();
    changes.message(
        REMOVE_LINK,
        REQUEST_ACK,
        "take the wire away".to_owned(),
        |bytes| {
            link_header(bytes, 0, false);
            attribute(bytes, NAME, &text(NEAR));
        },
    );
    // Most often it is not there.
    let _ = changes.commit();
    let all = local_routes().unwrap_or_default();
    for (ip, _) in all.into_iter().filter(|(_, table)| *table == PROBE_TABLE) {
        let mut changes = Changes::new();
        changes.message(
            REMOVE_ROUTE,
            REQUEST_ACK,
            "take a local route away".to_owned(),
            |bytes| {
                local_route(bytes, ip);
            },
        );
        let _ = changes.commit();
    }
    for family in Family::ALL {
        for addresses in Addresses::CHOICES {
            let mut changes = Changes::new();
            changes.message(
                REMOVE_POLICY,
                REQUEST_ACK,
                "take the routing rule away".to_owned(),
                |bytes| {
                    routing_rule(bytes, addresses.near(family));
                },
            );
            while changes.commit().is_ok() {}
        }
    }
}

/// The pair, both ends down.
fn make(elsewhere: Option<&Netns>) -> Result<(), netlink::Error> {
    const MAC: u16 = 1;
    const INFO: u16 = 18;
    const NETNS_FD: u16 = 28;
    const PEER: u16 = 1;
    let mut changes = Changes::new();
    changes.message(
        NEW_LINK,
        REQUEST_ACK | CREATE_EXCLUSIVE,
        format!("make the veth pair {NEAR} and {FAR}"),
        |bytes| {
            link_header(bytes, 0, false);
            attribute(bytes, NAME, &text(NEAR));
            attribute(bytes, MAC, &NEAR_MAC);
            nested(bytes, INFO, |bytes| {
                attribute(bytes, 1, b"veth");
                nested(bytes, 2, |bytes| {
                    nested(bytes, PEER, |bytes| {
                        link_header(bytes, 0, false);
                        attribute(bytes, NAME, &text(FAR));
                        attribute(bytes, MAC, &FAR_MAC);
                        if let Some(netns) = elsewhere {
                            attribute(bytes, NETNS_FD, &netns.as_fd().as_raw_fd().to_ne_bytes());
                        }
                    });
                });
            });
        },
    );
    changes.commit()
}

/// So that an end says nothing of its own accord. Where it cannot be told, nothing comes of what it says.
fn silence(link: LinkIndex) {
    const FAMILIES: u16 = 26;
    const ADDRESS_MODE: u16 = 8;
    const NONE: u8 = 1;
    let mut changes = Changes::new();
    changes.message(NEW_LINK, REQUEST_ACK, "silence the wire".to_owned(), |bytes| {
        link_header(bytes, link.0, false);
        nested(bytes, FAMILIES, |bytes| {
            nested(bytes, libc::AF_INET6 as u16, |bytes| {
                attribute(bytes, ADDRESS_MODE, &[NONE]);
            });
        });
    });
    let _ = changes.commit();
}

/// Sets both ends up, and gives the near one its addresses and routes. Answers its index, and the far end's socket.
fn furnish(
    addresses: Addresses,
    families: &[Family],
    local: &[IpAddr],
    elsewhere: Option<&Netns>,
) -> Result<(u32, Socket), netlink::Error> {
    let failed = netlink::Error::Socket;
    let far = match elsewhere {
        Some(netns) => netns.run(far_end).map_err(failed)??,
        None => far_end()?,
    };
    let near = LinkIndex(index_of(NEAR).map_err(failed)?);
    silence(near);
    let mut changes = Changes::new();
    changes.up(near);
    for &family in families {
        let (here, there) = (addresses.near(family), addresses.far(family));
        changes.address(near, here);
        changes.route(there.into(), near, here);
        neighbour(&mut changes, near, there);
        lead_out(&mut changes, near, here, there);
        for &ip in local.iter().filter(|ip| Family::of(**ip) == family) {
            let what = format!("add the local route of {ip}");
            changes.message(NEW_ROUTE, REQUEST_ACK | CREATE_EXCLUSIVE, what, |bytes| {
                local_route(bytes, ip);
            });
        }
    }
    changes.commit()?;
    let here: Vec<_> = families.iter().map(|family| addresses.near(*family)).collect();
    await_local(&here).map_err(failed)?;
    Ok((near.0, far))
}

/// Waits until the kernel takes the addresses for the namespace's own: of IPv6 it does so a moment after it has
/// acknowledged them.
fn await_local(addresses: &[IpAddr]) -> io::Result<()> {
    const AGAIN: Duration = Duration::from_millis(2);
    const PATIENCE: Duration = Duration::from_secs(5);
    let end = Instant::now() + PATIENCE;
    loop {
        let local: Vec<_> = local_routes()?.into_iter().map(|(ip, _)| ip).collect();
        if addresses.iter().all(|ip| local.contains(ip)) {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(AGAIN);
    }
}

/// Up, and a socket that sends by it.
fn far_end() -> Result<Socket, netlink::Error> {
    let failed = netlink::Error::Socket;
    let index = index_of(FAR).map_err(failed)?;
    silence(LinkIndex(index));
    Changes::new().up(LinkIndex(index)).commit()?;
    let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), None).map_err(failed)?;
    sys::packet::bind_to_send(socket.as_fd(), index).map_err(failed)?;
    // The device's queue is put to work a moment after the device.
    sys::set_int_option(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1).map_err(failed)?;
    Ok(socket)
}

/// The far address is known to be nobody's, and is not asked for.
fn neighbour(changes: &mut Changes, link: LinkIndex, address: IpAddr) {
    const NEW_NEIGHBOUR: u16 = 28;
    const PERMANENT: u16 = 0x80;
    const DESTINATION: u16 = 1;
    const MAC: u16 = 2;
    let what = format!("add the neighbour {address}");
    changes.message(NEW_NEIGHBOUR, REQUEST_ACK | CREATE_OR_REPLACE, what, |bytes| {
        bytes.extend([address_family(Family::of(address)), 0, 0, 0]);
        bytes.extend(link.0.to_ne_bytes());
        bytes.extend(PERMANENT.to_ne_bytes());
        bytes.extend([0, 0]);
        attribute(bytes, DESTINATION, &octets(address));
        attribute(bytes, MAC, &NOBODY);
    });
}

/// Whatever is sent from the near address goes out by the wire.
fn lead_out(changes: &mut Changes, link: LinkIndex, from: IpAddr, by: IpAddr) {
    const OUTPUT_LINK: u16 = 4;
    const GATEWAY: u16 = 5;
    const TABLE_UNSPECIFIED: u8 = 0;
    const UNICAST: u8 = 1;
    const ON_LINK: u32 = 4;
    let what = format!("add the route of what is from {from}");
    changes.message(NEW_ROUTE, REQUEST_ACK | CREATE_EXCLUSIVE, what, |bytes| {
        bytes.extend([address_family(Family::of(from)), 0, 0, 0]);
        bytes.extend([TABLE_UNSPECIFIED, OURS, 0, UNICAST]);
        bytes.extend(ON_LINK.to_ne_bytes());
        attribute(bytes, OUTPUT_LINK, &link.0.to_ne_bytes());
        attribute(bytes, GATEWAY, &octets(by));
        attribute(bytes, TABLE, &PROBE_TABLE.to_ne_bytes());
    });
    let what = format!("route by what is from {from}");
    changes.message(NEW_POLICY, REQUEST_ACK | CREATE_EXCLUSIVE, what, |bytes| {
        routing_rule(bytes, from);
    });
}

/// An `rtmsg` and its attributes.
fn local_route(bytes: &mut Vec<u8>, to: IpAddr) {
    const DESTINATION: u16 = 1;
    const OUTPUT_LINK: u16 = 4;
    const SCOPE_HOST: u8 = 254;
    let bits = if to.is_ipv4() { 32 } else { 128 };
    bytes.extend([address_family(Family::of(to)), bits, 0, 0]);
    bytes.extend([0, OURS, SCOPE_HOST, ROUTE_LOCAL]);
    bytes.extend(0_u32.to_ne_bytes());
    attribute(bytes, DESTINATION, &octets(to));
    attribute(bytes, OUTPUT_LINK, &LinkIndex::LOOPBACK.0.to_ne_bytes());
    attribute(bytes, TABLE, &PROBE_TABLE.to_ne_bytes());
}

/// Single addresses that are delivered here, and the table that says so.
fn local_routes() -> io::Result<Vec<(IpAddr, u32)>> {
    const FIXED: usize = 12;
    const DESTINATION: u16 = 1;
    let of = |body: &Vec<u8>| -> Option<(IpAddr, u32)> {
        let (fixed, rest) = body.split_at_checked(FIXED)?;
        let find = |wanted| attributes(rest).find_map(|(kind, value)| (kind == wanted).then_some(value));
        let to = find(DESTINATION).filter(|_| fixed[7] == ROUTE_LOCAL)?;
        Some((address(to)?, number(find(TABLE)?)?))
    };
    Ok(netlink::list(LIST_ROUTES)?.iter().filter_map(of).collect())
}

/// A `fib_rule_hdr` and its attributes. What is marked goes its own way: by its mark, if it comes to that.
fn routing_rule(bytes: &mut Vec<u8>, from: IpAddr) {
    const SOURCE: u16 = 2;
    const PRIORITY_OF_RULE: u16 = 6;
    const TO_TABLE: u8 = 1;
    let bits = if from.is_ipv4() { 32 } else { 128 };
    bytes.extend([address_family(Family::of(from)), 0, bits, 0, 0, 0, 0, TO_TABLE]);
    bytes.extend(0_u32.to_ne_bytes());
    attribute(bytes, SOURCE, &octets(from));
    attribute(bytes, PRIORITY_OF_RULE, &PRIORITY.to_ne_bytes());
    attribute(bytes, TABLE, &PROBE_TABLE.to_ne_bytes());
    attribute(bytes, POLICY_MARK, &0_u32.to_ne_bytes());
    attribute(bytes, POLICY_MASK, &u32::MAX.to_ne_bytes());
    attribute(bytes, POLICY_PROTOCOL, &[OURS]);
}
