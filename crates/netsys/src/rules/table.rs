//! Tables that the nft variant of iptables makes when it is first used: remembered, and taken away again
//! when nothing is in them, which iptables itself has no word for.

use std::io;
use std::os::fd::OwnedFd;

use rules::ruleset::{Chain, ChainKind, Table, TableName};
use rules::{Family, Ruleset};
use rustix::net::netlink::NETFILTER;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::netlink::{HEADER, ack, attribute, attributes, split_message};

/// An empty chain that says who made the table that it is in.
const MARK: &str = "WEIR_MADE_THIS_TABLE";

/// Adds the mark to those tables that are not there yet, or have it.
pub(super) fn mark_made(held: &Ruleset, wanted: &mut Ruleset) {
    for table in &mut wanted.tables {
        let is_ours = held.table(table.name).is_none_or(is_marked);
        if is_ours && !is_marked(table) {
            table.chains.push(Chain {
                name: MARK.to_owned(),
                kind: ChainKind::User,
                rules: vec![],
            });
        }
    }
}

/// Those that an earlier run made, and `wanted` has no use for.
pub(super) fn made_and_unwanted(held: &Ruleset, wanted: &Ruleset) -> Vec<TableName> {
    let tables = held.tables.iter().filter(|table| is_marked(table));
    tables
        .map(|table| table.name)
        .filter(|name| wanted.table(*name).is_none())
        .collect()
}

fn is_marked(table: &Table) -> bool {
    table.chain(MARK).is_some()
}

/// Takes those tables away that have nothing in them but built-in chains without a rule, unless somebody
/// changes any rule while it looks. The kernel is asked, as a dump does not show what others keep in the
/// same table.
///
/// # Errors
/// Where the kernel refuses.
pub(super) fn remove_unused(family: Family, names: &[TableName]) -> io::Result<()> {
    let socket = socket()?;
    for name in names {
        let generation = generation(&socket)?;
        if is_unused(&socket, family, name.as_str())? {
            remove(&socket, family, name.as_str(), generation)?;
        }
    }
    Ok(())
}

const BUILTIN: [&[u8]; 5] = [
    b"PREROUTING\0",
    b"INPUT\0",
    b"FORWARD\0",
    b"OUTPUT\0",
    b"POSTROUTING\0",
];
/// `NF_ACCEPT`.
const ACCEPT: [u8; 4] = 1_u32.to_be_bytes();

fn is_unused(socket: &OwnedFd, family: Family, table: &str) -> io::Result<bool> {
    const TABLE_USE: u16 = 3;
    const CHAIN_NAME: u16 = 3;
    const CHAIN_POLICY: u16 = 5;
    const CHAIN_USE: u16 = 6;
    let name = zero_ended(table);
    let is_this = |object: &&Vec<u8>| value(object, FIRST) == Some(name.as_slice());
    let tables = list(socket, ASK_TABLE, family)?;
    let Some(table) = tables.iter().find(is_this) else {
        return Ok(false);
    };
    let chains = list(socket, ASK_CHAIN, family)?;
    let chains: Vec<_> = chains.iter().filter(is_this).collect();
    // A table counts its chains, sets and all else that it holds; a chain its rules and the jumps to it.
    let holds_only_chains = value(table, TABLE_USE) == Some(&(chains.len() as u32).to_be_bytes()[..]);
    let is_idle = |chain: &&Vec<u8>| {
        value(chain, CHAIN_NAME).is_some_and(|name| BUILTIN.contains(&name))
            && value(chain, CHAIN_USE).is_none_or(|count| count == [0; 4])
            && value(chain, CHAIN_POLICY).is_none_or(|policy| policy == ACCEPT)
    };
    Ok(holds_only_chains && chains.iter().all(is_idle))
}

/// Message types of `linux/netfilter/nf_tables.h` and `nfnetlink.h`.
const SUBSYSTEM: u16 = 10;
const ASK_TABLE: u16 = SUBSYSTEM << 8 | 1;
const REMOVE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const ASK_CHAIN: u16 = SUBSYSTEM << 8 | 4;
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

fn socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(NETFILTER),
    )?)
}

/// The number of the namespace's rule set; it grows with every commit.
fn generation(socket: &OwnedFd) -> io::Result<u32> {
    let mut bytes = vec![];
    message(&mut bytes, ASK_GENERATION, REQUEST, 0, 0, |_| {});
    rustix::net::send(socket, &bytes, SendFlags::empty())?;
    let mut generation = None;
    receive(socket, |kind, body| {
        generation = value(body, FIRST).and_then(|value| Some(u32::from_be_bytes(value.try_into().ok()?)));
        kind == ASK_GENERATION - 1
    })?;
    generation.ok_or_else(|| io::Error::other("the kernel told no generation of its rules"))
}

/// All objects of a kind and family, each as its attributes.
fn list(socket: &OwnedFd, kind: u16, family: Family) -> io::Result<Vec<Vec<u8>>> {
    let mut bytes = vec![];
    message(&mut bytes, kind, REQUEST_LIST, protocol(family), 0, |_| {});
    rustix::net::send(socket, &bytes, SendFlags::empty())?;
    let mut found = vec![];
    receive(socket, |kind, body| {
        if kind == LIST_DONE {
            return true;
        }
        found.push(body.to_vec());
        false
    })?;
    Ok(found)
}

fn remove(socket: &OwnedFd, family: Family, name: &str, generation: u32) -> io::Result<()> {
    let mut bytes = vec![];
    message(&mut bytes, BATCH_BEGIN, REQUEST, 0, SUBSYSTEM, |bytes| {
        attribute(bytes, FIRST, &generation.to_be_bytes());
    });
    message(
        &mut bytes,
        REMOVE_TABLE,
        REQUEST_ACK,
        protocol(family),
        0,
        |bytes| {
            attribute(bytes, FIRST, &zero_ended(name));
        },
    );
    message(&mut bytes, BATCH_END, REQUEST, 0, SUBSYSTEM, |_| {});
    rustix::net::send(socket, &bytes, SendFlags::empty())?;
    match receive(socket, |_, _| false) {
        // Somebody else was quicker: the table may be theirs now.
        Err(error) if error.raw_os_error() == Some(libc::ERESTART) => Ok(()),
        result => result,
    }
}

/// Hands each message's type and attributes over until that says "enough", or the kernel acknowledges.
fn receive(socket: &OwnedFd, mut enough: impl FnMut(u16, &[u8]) -> bool) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let (length, _) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some((message, after)) = split_message(rest) {
            rest = after;
            match ack(message) {
                Some((_, 0)) => return Ok(()),
                Some((_, errno)) => return Err(io::Error::from_raw_os_error(errno)),
                None => {}
            }
            let kind = u16::from_ne_bytes([message[4], message[5]]);
            if enough(kind, message.get(HEADER + FIXED..).unwrap_or_default()) {
                return Ok(());
            }
        }
    }
}

fn value(object: &[u8], attribute: u16) -> Option<&[u8]> {
    attributes(object)
        .find(|(kind, _)| *kind == attribute)
        .map(|(_, value)| value)
}

fn zero_ended(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn protocol(family: Family) -> u8 {
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
