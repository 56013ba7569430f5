//! What a network namespace is like: its devices, whether it speaks IPv6, and the address `::6` on its
//! loopback device. Everything acts on the namespace of the calling thread.

use std::{fs, io};

use model::ports::PASSTHROUGH_V6;
use rustix::net::{AddressFamily, SocketType, netdevice};

use crate::netlink::{self, Changes, LIST_ADDRESSES, LIST_LINKS, LinkIndex, attributes};

/// A network device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Whether it is loopback.
    pub is_loopback: bool,
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

/// The body of a link's message: an `ifinfomsg`, then attributes.
fn link(body: &[u8]) -> Option<Link> {
    const FIXED: usize = 16;
    const NAME: u16 = 3;
    const INFO: u16 = 18;
    const INFO_KIND: u16 = 1;
    const PARENT_NAME: u16 = 56;
    let (fixed, rest) = body.split_at_checked(FIXED)?;
    let flags = u32::from_ne_bytes(fixed[8..12].try_into().ok()?);
    let mut link = Link {
        name: String::new(),
        is_loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
        kind: None,
        parent: None,
    };
    for (attribute, value) in attributes(rest) {
        match attribute {
            NAME => link.name = text(value),
            PARENT_NAME => link.parent = Some(text(value)),
            INFO => {
                let kind = attributes(value).find(|(attribute, _)| *attribute == INFO_KIND);
                link.kind = kind.map(|(_, value)| text(value));
            }
            _ => {}
        }
    }
    Some(link)
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
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

/// Whether `::6` is on loopback.
///
/// # Errors
/// Where netlink is refused.
pub fn has_passthrough_v6() -> io::Result<bool> {
    const FIXED: usize = 8;
    const ADDRESS: u16 = 1;
    let wanted = PASSTHROUGH_V6.octets();
    Ok(netlink::list(LIST_ADDRESSES)?.iter().any(|body| {
        let index = body
            .get(4..8)
            .map(|bytes| bytes == LinkIndex::LOOPBACK.0.to_ne_bytes());
        index == Some(true)
            && attributes(&body[FIXED..]).any(|(attribute, value)| attribute == ADDRESS && value == wanted)
    }))
}

/// Puts `::6/128` on loopback, without which the proxy could not use it as a source.
///
/// # Errors
/// Without `CAP_NET_ADMIN`, or where loopback does not speak IPv6.
pub fn add_passthrough_v6() -> Result<(), netlink::Error> {
    let mut changes = Changes::new();
    changes.address(LinkIndex::LOOPBACK, PASSTHROUGH_V6.into());
    tolerate(changes.commit(), libc::EEXIST)
}

/// Takes `::6` from loopback; it need not be there.
///
/// # Errors
/// Without `CAP_NET_ADMIN`.
pub fn remove_passthrough_v6() -> Result<(), netlink::Error> {
    let mut changes = Changes::new();
    changes.remove_address(LinkIndex::LOOPBACK, PASSTHROUGH_V6.into());
    tolerate(changes.commit(), libc::EADDRNOTAVAIL)
}

fn tolerate(result: Result<(), netlink::Error>, errno: i32) -> Result<(), netlink::Error> {
    match result {
        Err(netlink::Error::Refused { source, .. }) if source.raw_os_error() == Some(errno) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn the_passthrough_address_comes_and_goes_and_may_be_asked_for_twice() {
        Netns::create()
            .unwrap()
            .run(|| {
                assert!(!has_passthrough_v6().unwrap());
                add_passthrough_v6().unwrap();
                add_passthrough_v6().unwrap();
                assert!(has_passthrough_v6().unwrap());
                std::net::TcpListener::bind("[::6]:0").unwrap();
                remove_passthrough_v6().unwrap();
                remove_passthrough_v6().unwrap();
                assert!(!has_passthrough_v6().unwrap());
            })
            .unwrap();
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
