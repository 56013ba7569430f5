//! A wire that leads nowhere: a veth pair whose near end has addresses of its own. Whatever is sent from these
//! goes out by it, wherever to, and ends there; at its far end packets are put in as if they came from outside.
//!
//! It goes with this process, killed or not, where the far end can have a namespace of its own (that takes
//! `CAP_SYS_ADMIN`); else [`remove_leftovers`] of the next run takes it away. No setting of the namespace is changed.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::{Duration, Instant};

use rules::Family;
use socket2::{Domain, Socket, Type};

use super::addresses::{Addresses, Mac, OURS, mac};
use super::device::{self, Device, Ends};
use super::routing::{Of, PROBE_TABLE, WayOut, ask, deliver_here, local_routes, neighbour, remove_all};
use super::segment::Segment;
use crate::links::{self, Link, index_of};
use crate::netlink::{
    self, CREATE_EXCLUSIVE, Changes, LinkIndex, NAME, NEW_LINK, REMOVE_LINK, REQUEST_ACK, attribute,
    link_header, nested, text,
};
use crate::netns::Netns;
use crate::sys;

const NEAR: &str = "weirprobe0";
const FAR: &str = "weirprobe1";
const NEAR_MAC: Mac = mac(1);
const FAR_MAC: Mac = mac(2);
/// Nobody's: what is sent to it is seen by the tap and by no stack.
const NOBODY: Mac = mac(0xff);

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
    elsewhere: Option<Netns>,
    devices: Vec<Device>,
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
        let pair = Pair {
            near: (NEAR, NEAR_MAC),
            far: (FAR, FAR_MAC),
        };
        pair.make(elsewhere.as_ref())?;
        let laid = furnish(addresses, families, local, elsewhere.as_ref());
        match laid {
            Ok((device, far)) => Ok(Self {
                addresses,
                device,
                families: families.to_vec(),
                far,
                elsewhere,
                devices: vec![],
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
        self.put_from(NOBODY, segment)
    }

    /// Puts a packet in, as if it came from outside by a device of [`Wire::devices`].
    ///
    /// # Errors
    /// As [`Wire::put`].
    pub fn put_by(&self, device: &Device, segment: &Segment) -> io::Result<()> {
        self.put_from(device.sender(), segment)
    }

    fn put_from(&self, sender: Mac, segment: &Segment) -> io::Result<()> {
        const V4: [u8; 2] = (libc::ETH_P_IP as u16).to_be_bytes();
        const V6: [u8; 2] = (libc::ETH_P_IPV6 as u16).to_be_bytes();
        let kind = if segment.destination.is_ipv4() { V4 } else { V6 };
        let mut frame = [NEAR_MAC.as_slice(), &sender, &kind].concat();
        frame.extend(segment.packet());
        self.far.send(&frame).map(drop)
    }

    /// Has probes leave and come in by a device of that name, of which a trailing `+` or `*` stands for any ending.
    /// Where there is none, it is made and goes with the wire, if `may_make`.
    ///
    /// # Errors
    /// In words, why none can.
    pub fn lead_by(&mut self, name: &str, may_make: bool) -> Result<&Device, String> {
        let number = self.devices.len() as u8;
        if number == Addresses::DEVICES_MAX {
            return Err(format!("no more than {number} devices are probed in one run"));
        }
        let links = links::links().map_err(|error| error.to_string())?;
        let link = match device::choose(&links, name)? {
            Some(link) => link.clone(),
            None if may_make => self.make_device(name, number)?,
            None => return Err("there is no such device here".to_owned()),
        };
        let ends = Ends {
            addresses: self.addresses,
            near: LinkIndex(self.device),
        };
        let device = Device::furnish((name, &link), number, &self.families, ends)?;
        let leaving = self.families.iter().filter(|family| device.lets_leave(**family));
        let sources: Vec<_> = leaving.map(|family| device.source(*family)).collect();
        await_local(&sources).map_err(|error| error.to_string())?;
        self.devices.push(device);
        self.devices.last().ok_or_else(String::new)
    }

    fn make_device(&self, name: &str, number: u8) -> Result<Link, String> {
        let (name, far) = (device::name_like(name), format!("{NEAR}{number}"));
        let pair = Pair {
            near: (&name, mac(0x10 + number)),
            far: (far.as_str(), mac(0x20 + number)),
        };
        let made = pair.make(self.elsewhere.as_ref()).and_then(|()| {
            let _far = in_namespace(self.elsewhere.as_ref(), || set_up(pair.far.0))?;
            set_up(pair.near.0)
        });
        let index = made.map_err(|error| format!("none is there, and none can be made: {error}"))?;
        let links = links::links().map_err(|error| error.to_string())?;
        let link = links.into_iter().find(|link| link.index == index);
        link.ok_or_else(|| "it has gone again".to_owned())
    }

    /// Those that probes come in and leave by beside the wire.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
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
    let links = links::links().unwrap_or_default();
    let ours = links.iter().filter(|link| link.hardware.starts_with(&OURS));
    let mut changes = Changes::new();
    for link in ours {
        changes.message(
            REMOVE_LINK,
            REQUEST_ACK,
            "take the wire away".to_owned(),
            |bytes| {
                link_header(bytes, link.index, false);
            },
        );
    }
    // The other end goes with the first one, and is missed here.
    let _ = changes.commit();
    remove_all();
}

/// A veth pair, both ends down.
struct Pair<'a> {
    near: (&'a str, Mac),
    far: (&'a str, Mac),
}

impl Pair<'_> {
    fn make(&self, elsewhere: Option<&Netns>) -> Result<(), netlink::Error> {
        const MAC: u16 = 1;
        const INFO: u16 = 18;
        const NETNS_FD: u16 = 28;
        const PEER: u16 = 1;
        let what = format!("make the veth pair {} and {}", self.near.0, self.far.0);
        let end = |bytes: &mut Vec<u8>, (name, mac): (&str, Mac)| {
            link_header(bytes, 0, false);
            attribute(bytes, NAME, &text(name));
            attribute(bytes, MAC, &mac);
        };
        let mut changes = Changes::new();
        changes.message(NEW_LINK, REQUEST_ACK | CREATE_EXCLUSIVE, what, |bytes| {
            end(bytes, self.near);
            nested(bytes, INFO, |bytes| {
                attribute(bytes, 1, b"veth");
                nested(bytes, 2, |bytes| {
                    nested(bytes, PEER, |bytes| {
                        end(bytes, self.far);
                        if let Some(netns) = elsewhere {
                            attribute(bytes, NETNS_FD, &netns.as_fd().as_raw_fd().to_ne_bytes());
                        }
                    });
                });
            });
        });
        changes.commit()
    }
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
    let far = in_namespace(elsewhere, far_end)?;
    let near = LinkIndex(set_up(NEAR)?);
    let mut changes = Changes::new();
    for &family in families {
        let (here, there) = (addresses.near(family), addresses.far(family));
        changes.address(near, here);
        changes.route(there.into(), near, here);
        neighbour(&mut changes, near, there, NOBODY);
        let out = WayOut {
            family,
            table: PROBE_TABLE,
            link: near,
            by: Some(there),
            mtu: None,
        };
        out.add(&mut changes);
        // So that neither what is sent from there nor what answers it, nor what is passed on, gets anywhere else.
        for of in [Of::From(here), Of::From(there), Of::To(there)] {
            ask(&mut changes, of, PROBE_TABLE);
        }
        for &ip in local.iter().filter(|ip| Family::of(**ip) == family) {
            deliver_here(&mut changes, ip);
        }
    }
    changes.commit()?;
    let here: Vec<_> = families.iter().map(|family| addresses.near(*family)).collect();
    await_local(&here).map_err(netlink::Error::Socket)?;
    Ok((near.0, far))
}

/// Runs `f` in the namespace of the far ends: here, where there is no other.
fn in_namespace<T: Send>(
    elsewhere: Option<&Netns>,
    f: impl FnOnce() -> Result<T, netlink::Error> + Send,
) -> Result<T, netlink::Error> {
    match elsewhere {
        Some(netns) => netns.run(f).map_err(netlink::Error::Socket)?,
        None => f(),
    }
}

/// Sets an end up that says nothing of its own accord. Answers its index.
fn set_up(name: &str) -> Result<u32, netlink::Error> {
    let index = index_of(name).map_err(netlink::Error::Socket)?;
    silence(LinkIndex(index));
    Changes::new().up(LinkIndex(index)).commit()?;
    Ok(index)
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
    let index = set_up(FAR)?;
    let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), None).map_err(failed)?;
    sys::packet::bind_to_send(socket.as_fd(), index).map_err(failed)?;
    // The device's queue is put to work a moment after the device.
    sys::set_int_option(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1).map_err(failed)?;
    Ok(socket)
}
