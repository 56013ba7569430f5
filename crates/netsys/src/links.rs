//! What a network namespace is like: its devices, and whether it speaks IPv6. Everything acts on the namespace of the calling thread.

use std::net::IpAddr;
use std::{fs, io};

use rustix::net::{AddressFamily, SocketType, netdevice};

use crate::netlink::{self, LIST_ADDRESSES, LIST_LINKS, NAME, address, attributes, name, number};

/// A network device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address; empty where it has none.
    pub hardware: Vec<u8>,
    /// How large a packet it takes, in bytes.
    pub mtu: u32,
    /// Whether it is a port of another device, such as a bridge.
    pub is_port: bool,
    /// Whether it is loopback.
    pub is_loopback: bool,
    /// Whether it is up.
    pub is_up: bool,
    /// The kind of a device that software made: `veth`, `bridge`, `tun`.
    pub kind: Option<String>,
    /// The device on a bus that it belongs to (kernel 5.14 and later).
    pub parent: Option<String>,
}

impl Link {
    /// Whether it is a machine's own, virtual machines included. Older kernels do not tell the parent; there
    /// whatever software did not make is taken for physical.
    #[must_use]
    pub fn is_physical(&self) -> bool {
        !self.is_loopback && (self.parent.is_some() || self.kind.is_none())
    }
}

/// Every device of the namespace. The kernel is asked by netlink, as `/sys` shows the namespace that it
/// was mounted in.
///
/// # Errors
/// Where netlink is refused.
pub fn links() -> io::Result<Vec<Link>> {
    Ok(netlink::list(LIST_LINKS)?
        .iter()
        .filter_map(|body| link(body))
        .collect())
}

/// The names of those that are a machine's own.
///
/// # Errors
/// Where netlink is refused.
pub fn physical_devices() -> io::Result<Vec<String>> {
    let physical = links()?.into_iter().filter(Link::is_physical);
    Ok(physical.map(|link| link.name).collect())
}

/// The index of the device of this name, as the zone of an address has it.
///
/// # Errors
/// Where there is no such device.
pub fn index_of(name: &str) -> io::Result<u32> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    Ok(netdevice::name_to_index(socket, name)?)
}

/// The name of the device with this index.
///
/// # Errors
/// Where there is no such device.
pub fn name_of(index: u32) -> io::Result<String> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    Ok(netdevice::index_to_name(socket, index)?)
}

/// The body of a link's message: an `ifinfomsg`, then attributes.
fn link(body: &[u8]) -> Option<Link> {
    const FIXED: usize = 16;
    const HARDWARE: u16 = 1;
    const MTU: u16 = 4;
    const MASTER: u16 = 10;
    const INFO: u16 = 18;
    const INFO_KIND: u16 = 1;
    const PARENT_NAME: u16 = 56;
    let (fixed, rest) = body.split_at_checked(FIXED)?;
    let flags = number(&fixed[8..12])?;
    let mut link = Link {
        index: number(&fixed[4..8])?,
        name: String::new(),
        hardware: vec![],
        mtu: 0,
        is_port: false,
        is_loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
        is_up: flags & libc::IFF_UP as u32 != 0,
        kind: None,
        parent: None,
    };
    for (attribute, value) in attributes(rest) {
        match attribute {
            NAME => link.name = name(value),
            HARDWARE => link.hardware = value.to_vec(),
            MTU => link.mtu = number(value)?,
            MASTER => link.is_port = true,
            PARENT_NAME => link.parent = Some(name(value)),
            INFO => {
                let kind = attributes(value).find(|(attribute, _)| *attribute == INFO_KIND);
                link.kind = kind.map(|(_, value)| name(value));
            }
            _ => {}
        }
    }
    Some(link)
}

/// Whether any device but loopback speaks IPv6, or a new one would.
///
/// # Errors
/// Where `/proc/sys` cannot be read. A kernel without IPv6 is no error.
pub fn ipv6_is_on() -> io::Result<bool> {
    // Unlike /sys, this directory is the reader's namespace's.
    let devices = match fs::read_dir("/proc/sys/net/ipv6/conf") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        devices => devices?,
    };
    for device in devices {
        let device = device?;
        // "all" holds what was last written to it, not what the devices do.
        if device.file_name() == "all" || device.file_name() == "lo" {
            continue;
        }
        match fs::read_to_string(device.path().join("disable_ipv6")) {
            Ok(text) if text.trim() == "0" => return Ok(true),
            // The device went in between.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(false)
}

/// Every address of the namespace's own.
///
/// # Errors
/// Where netlink is refused.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    const FIXED: usize = 8;
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    let of = |body: &Vec<u8>| {
        let rest = body.get(FIXED..)?;
        let find = |wanted| attributes(rest).find_map(|(kind, value)| (kind == wanted).then_some(value));
        // On a point-to-point link the other attribute is the peer's.
        address(find(LOCAL).or_else(|| find(ADDRESS))?)
    };
    Ok(netlink::list(LIST_ADDRESSES)?.iter().filter_map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Changes, LinkIndex};
    use crate::netns::Netns;

    #[test]
    fn physical_devices_are_those_that_sysfs_gives_a_device() {
        // The namespace of the test's own /sys, read only.
        let physical: Vec<_> = links().unwrap().into_iter().filter(Link::is_physical).collect();
        for link in links().unwrap() {
            let in_sysfs = fs::exists(format!("/sys/class/net/{}/device", link.name)).unwrap();
            assert_eq!(physical.contains(&link), in_sysfs, "{link:?}");
        }
    }

    #[test]
    fn devices_that_software_made_are_not_physical() {
        let links = Netns::create()
            .unwrap()
            .run(|| {
                Changes::new()
                    .veth((LinkIndex(2), "eth0"), (LinkIndex(3), "other"))
                    .commit()
                    .unwrap();
                links().unwrap()
            })
            .unwrap();
        assert_eq!(links.len(), 3);
        assert!(links.iter().all(|link| !link.is_physical()), "{links:?}");
        assert_eq!(links[1].kind.as_deref(), Some("veth"));
    }

    #[test]
    fn ipv6_is_off_where_every_device_and_the_default_say_so() {
        Netns::create()
            .unwrap()
            .run(|| {
                assert!(ipv6_is_on().unwrap());
                fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
                assert!(!ipv6_is_on().unwrap());
                fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "0").unwrap();
                assert!(ipv6_is_on().unwrap());
            })
            .unwrap();
    }
}
