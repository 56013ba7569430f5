//! A device that probes leave and come in by as if they were the world's, for rules that ask by which device a packet
//! goes. Nothing gets out by it: what is sent is too large for its route, so that the kernel turns it away after
//! every rule has seen it. What comes in is put in at the wire and handed to the device by a filter of the wire's.

use std::fs;
use std::net::IpAddr;

use rules::Family;

use super::addresses::{Addresses, OURS};
use super::filter::hand_over;
use super::routing::{Of, WayOut, ask, table_of};
use crate::links::Link;
use crate::netlink::{Changes, LinkIndex};

/// A device of the namespace.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The name that it was asked for by.
    pub asked: String,
    /// Whether it was not there, and is a probe's alone.
    pub is_made: bool,
    /// What it cannot be probed with, in words, each with the reason.
    pub lacks: Vec<String>,
    leaving: Vec<Family>,
    coming: Vec<Family>,
    number: u8,
    addresses: Addresses,
}

/// What sending by a device answers once every rule has let a packet pass (`EMSGSIZE`).
pub const TOO_LONG: i32 = libc::EMSGSIZE;

/// Between the wire's end and the addresses.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    pub(super) addresses: Addresses,
    pub(super) near: LinkIndex,
}

/// How large packets may be that leave by it, and how large they are. What is captured in error goes over `lo`,
/// which takes larger ones.
const fn sizes(family: Family) -> (u32, u32) {
    match family {
        // Every host takes as much.
        Family::V4 => (576, 640),
        Family::V6 => (1280, 1360),
    }
}

impl Device {
    /// Where packets are from that leave by it.
    #[must_use]
    pub fn source(&self, family: Family) -> IpAddr {
        self.addresses.of_device(family, self.number)
    }

    /// Whether packets of a family can leave by it.
    #[must_use]
    pub fn lets_leave(&self, family: Family) -> bool {
        self.leaving.contains(&family)
    }

    /// Whether packets of a family can come in by it.
    #[must_use]
    pub fn lets_come(&self, family: Family) -> bool {
        self.coming.contains(&family)
    }

    /// As many bytes a packet has that leaves by it: the answer to sending one is that it is too long, once every
    /// rule has let it pass.
    #[must_use]
    pub fn packet_bytes(family: Family) -> usize {
        sizes(family).1 as usize
    }

    /// Who sends what is handed to it.
    pub(super) fn sender(&self) -> [u8; 6] {
        [0x02, b'w', b'd', self.number, b'e', b'v']
    }

    /// Gives packets the way out, and the way in.
    pub(super) fn furnish(
        (asked, link): (&str, &Link),
        number: u8,
        families: &[Family],
        ends: Ends,
    ) -> Result<Self, String> {
        let mut device = Self {
            name: link.name.clone(),
            asked: asked.to_owned(),
            is_made: link.hardware.starts_with(&OURS),
            lacks: vec![],
            leaving: vec![],
            coming: vec![],
            number,
            addresses: ends.addresses,
        };
        let speaks = |family: &&Family| **family == Family::V4 || speaks_v6(&link.name);
        let spoken: Vec<_> = families.iter().filter(speaks).copied().collect();
        if spoken.len() < families.len() {
            device
                .lacks
                .push("what goes by it by IPv6: it does not speak it".to_owned());
        }
        for &family in &spoken {
            match device.lead_out(link, family, ends) {
                Ok(()) => device.leaving.push(family),
                Err(why) => device.lacks.push(format!("what leaves by it by {family}: {why}")),
            }
        }
        match hand_over(ends.near, &device.sender(), LinkIndex(link.index)) {
            Ok(()) => device.coming = device.that_may_come(&spoken),
            Err(error) => device.lacks.push(format!(
                "what comes in by it: the kernel hands nothing over to a device (it takes cls_u32 and act_mirred): {error}"
            )),
        }
        if device.leaving.is_empty() && device.coming.is_empty() {
            return Err(device.lacks.join("; "));
        }
        Ok(device)
    }

    fn lead_out(&self, link: &Link, family: Family, ends: Ends) -> Result<(), String> {
        let (mtu, bytes) = sizes(family);
        if link.mtu < bytes {
            return Err(format!(
                "it takes packets of {} bytes, and {bytes} are needed",
                link.mtu
            ));
        }
        let source = self.source(family);
        // What is led to the proxy by REDIRECT goes to an address of the device that it came in by.
        let holder = if self.is_made {
            LinkIndex(link.index)
        } else {
            ends.near
        };
        let mut changes = Changes::new();
        changes.address(holder, source);
        let way = WayOut {
            family,
            table: table_of(self.number),
            link: LinkIndex(link.index),
            by: None,
            mtu: Some(mtu),
        };
        way.add(&mut changes);
        ask(&mut changes, Of::From(source), way.table);
        changes.commit().map_err(|error| error.to_string())
    }

    fn that_may_come(&mut self, families: &[Family]) -> Vec<Family> {
        let mut coming = families.to_vec();
        if is_strict(&self.name) && coming.contains(&Family::V4) {
            coming.retain(|family| *family != Family::V4);
            self.lacks.push(
                "what comes in by it by IPv4: rp_filter is 1 there, so that the kernel drops what has its way back by \
                 another device"
                    .to_owned(),
            );
        }
        coming
    }
}

/// Whether the kernel drops what comes in by it and would not be answered by it.
fn is_strict(name: &str) -> bool {
    let of = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"));
        text.ok()
            .and_then(|text| text.trim().parse::<u8>().ok())
            .unwrap_or(0)
    };
    of("all").max(of(name)) == 1
}

/// Whether the kernel takes IPv6 that comes in by it, or sends any.
fn speaks_v6(name: &str) -> bool {
    let setting = fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"));
    setting.is_ok_and(|text| text.trim() == "0")
}

/// What stands before a sign for any ending.
fn beginning(name: &str) -> Option<&str> {
    name.strip_suffix(['+', '*'])
}

/// The first device that is meant, of those that can be used.
pub(super) fn choose<'a>(links: &'a [Link], name: &str) -> Result<Option<&'a Link>, String> {
    let is_meant = |link: &&Link| match beginning(name) {
        Some(start) => link.name.starts_with(start),
        None => link.name == name,
    };
    let foreign = links.iter().filter(|link| !link.hardware.starts_with(&OURS));
    let meant: Vec<_> = foreign
        .filter(|link| !link.is_loopback)
        .filter(is_meant)
        .collect();
    let usable = meant.iter().find(|link| link.is_up && !link.is_port);
    match (usable, meant.first()) {
        (Some(link), _) => Ok(Some(link)),
        (None, Some(_)) if beginning(name).is_some() => Ok(None),
        (None, Some(link)) if !link.is_up => Err("it is down".to_owned()),
        (None, Some(_)) => {
            Err("it is a port of another device, by which its packets come and leave".to_owned())
        }
        (None, None) => Ok(None),
    }
}

/// A name for a device that is made.
pub(super) fn name_like(name: &str) -> String {
    const BYTES_MAX: usize = 15;
    match beginning(name) {
        Some(start) => format!("{start}weirprobe").chars().take(BYTES_MAX).collect(),
        None => name.to_owned(),
    }
}
