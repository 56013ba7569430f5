//! The kernel's nf_tables by netlink, as far as no program is needed: which tables and chains there are, and
//! taking an own table away.

use std::io;
use std::os::fd::OwnedFd;

use rules::Family;
use rustix::net::netlink::NETFILTER;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::netlink::{HEADER, ack, attribute, attributes, split_message};

/// Message types of `linux/netfilter/nf_tables.h` and `nfnetlink.h`.
const SUBSYSTEM: u16 = 10;
const ASK_TABLE: u16 = SUBSYSTEM << 8 | 1;
const REMOVE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const REMOVE_CHAIN: u16 = SUBSYSTEM << 8 | 5;
const ASK_CHAIN: u16 = SUBSYSTEM << 8 | 4;
const ASK_RULE: u16 = SUBSYSTEM << 8 | 7;
const ASK_GENERATION: u16 = SUBSYSTEM << 8 | 16;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const LIST_DONE: u16 = 3;
const REQUEST: u16 = 0x1;
const REQUEST_ACK: u16 = 0x1 | 0x4;
const REQUEST_LIST: u16 = 0x1 | 0x300;
/// Bytes of an `nfgenmsg`.
const FIXED: usize = 4;
/// The first attribute of each of these messages: the generation, or the table's name.
const FIRST: u16 = 1;
/// `NFTA_CHAIN_NAME`.
pub(super) const CHAIN_NAME: u16 = 3;

/// A netlink socket of the calling thread's namespace.
pub(super) struct Socket(OwnedFd);

/// A table or a chain.
pub(super) struct Object {
    /// `NFPROTO_IPV4`, and so on.
    pub(super) protocol: u8,
    attributes: Vec<u8>,
}

impl Socket {
    pub(super) fn open() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(NETFILTER),
        )?;
        Ok(Self(socket))
    }

    /// The number of the namespace's rule set; it grows with every commit.
    pub(super) fn generation(&self) -> io::Result<u32> {
        let mut bytes = vec![];
        message(&mut bytes, ASK_GENERATION, REQUEST, 0, 0, |_| {});
        rustix::net::send(&self.0, &bytes, SendFlags::empty())?;
        let mut generation = None;
        self.receive(|kind, _, body| {
            generation = attributes(body)
                .find(|(kind, _)| *kind == FIRST)
                .and_then(|(_, value)| Some(u32::from_be_bytes(value.try_into().ok()?)));
            kind == ASK_GENERATION - 1
        })?;
        generation.ok_or_else(|| io::Error::other("the kernel told no generation of its rules"))
    }

    /// Every table of a family (0: of all).
    pub(super) fn tables(&self, protocol: u8) -> io::Result<Vec<Object>> {
        self.list(ASK_TABLE, protocol)
    }

    /// Every chain of a family.
    pub(super) fn chains(&self, protocol: u8) -> io::Result<Vec<Object>> {
        self.list(ASK_CHAIN, protocol)
    }

    /// Every rule of every family, those of a chain in their order.
    pub(super) fn rules(&self) -> io::Result<Vec<Object>> {
        self.list(ASK_RULE, 0)
    }

    fn list(&self, kind: u16, protocol: u8) -> io::Result<Vec<Object>> {
        let mut bytes = vec![];
        message(&mut bytes, kind, REQUEST_LIST, protocol, 0, |_| {});
        rustix::net::send(&self.0, &bytes, SendFlags::empty())?;
        let mut found = vec![];
        self.receive(|kind, protocol, body| {
            if kind == LIST_DONE {
                return true;
            }
            found.push(Object {
                protocol,
                attributes: body.to_vec(),
            });
            false
        })?;
        Ok(found)
    }

    /// Takes tables away with all that is in them, in one transaction, unless the rules have changed since that
    /// generation: then it answers no.
    pub(super) fn remove_tables(&self, protocol: u8, names: &[&str], generation: u32) -> io::Result<bool> {
        let each = names.iter().map(|name| vec![(FIRST, *name)]);
        self.remove(REMOVE_TABLE, protocol, &each.collect::<Vec<_>>(), generation)
    }

    /// The same for a chain without rules.
    pub(super) fn remove_chain(
        &self,
        protocol: u8,
        table: &str,
        chain: &str,
        generation: u32,
    ) -> io::Result<bool> {
        let named = vec![(FIRST, table), (CHAIN_NAME, chain)];
        self.remove(REMOVE_CHAIN, protocol, &[named], generation)
    }

    /// Each of these is the names by which one thing is known.
    fn remove(
        &self,
        kind: u16,
        protocol: u8,
        things: &[Vec<(u16, &str)>],
        generation: u32,
    ) -> io::Result<bool> {
        let mut bytes = vec![];
        message(&mut bytes, BATCH_BEGIN, REQUEST, 0, SUBSYSTEM, |bytes| {
            attribute(bytes, FIRST, &generation.to_be_bytes());
        });
        for (number, names) in things.iter().enumerate() {
            // What is refused is told in any case, and first.
            let flags = if number + 1 == things.len() {
                REQUEST_ACK
            } else {
                REQUEST
            };
            message(&mut bytes, kind, flags, protocol, 0, |bytes| {
                for (kind, name) in names {
                    attribute(bytes, *kind, &zero_ended(name));
                }
            });
        }
        message(&mut bytes, BATCH_END, REQUEST, 0, SUBSYSTEM, |_| {});
        rustix::net::send(&self.0, &bytes, SendFlags::empty())?;
        match self.receive(|_, _, _| false) {
            // Somebody else was quicker: it may be theirs now.
            Err(error) if error.raw_os_error() == Some(libc::ERESTART) => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Hands each message's type, family and attributes over until that says "enough", or the kernel
    /// acknowledges.
    fn receive(&self, mut enough: impl FnMut(u16, u8, &[u8]) -> bool) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let (length, _) = rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            let mut rest = &buffer[..length];
            while let Some((message, after)) = split_message(rest) {
                rest = after;
                match ack(message) {
                    Some((_, 0)) => return Ok(()),
                    Some((_, errno)) => return Err(io::Error::from_raw_os_error(errno)),
                    None => {}
                }
                let kind = u16::from_ne_bytes([message[4], message[5]]);
                let protocol = message.get(HEADER).copied().unwrap_or_default();
                if enough(kind, protocol, message.get(HEADER + FIXED..).unwrap_or_default()) {
                    return Ok(());
                }
            }
        }
    }
}

/// An attribute of an object.
pub(super) fn value(object: &Object, attribute: u16) -> Option<&[u8]> {
    attributes(&object.attributes)
        .find(|(kind, _)| *kind == attribute)
        .map(|(_, value)| value)
}

/// The name of the table that it is, or that it is in, with the zero at its end.
pub(super) fn name_of(object: &Object) -> Option<&[u8]> {
    value(object, FIRST)
}

pub(super) fn zero_ended(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

pub(super) fn protocol(family: Family) -> u8 {
    let protocol = match family {
        Family::V4 => libc::NFPROTO_IPV4,
        Family::V6 => libc::NFPROTO_IPV6,
    };
    protocol as u8
}

fn message(
    bytes: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    family: u8,
    resource: u16,
    body: impl FnOnce(&mut Vec<u8>),
) {
    let start = bytes.len();
    bytes.extend([0; 4]);
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    body(bytes);
    let length = (bytes.len() - start) as u32;
    bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}
