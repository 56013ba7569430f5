//! One connection, sent and watched: which rules of nftables (those of iptables-nft among them) it met, as the kernel
//! itself tells. A table of our own marks the packet to be traced; it goes with the watch, and what a killed one left
//! behind goes with the next. Caller: `weir explain --trace`.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rules::ruleset::IpProtocol;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use super::Error;
use super::nf_tables::{Object, Socket, name_of, value, zero_ended};
use super::program;
use super::sent::{Sent, connect, connection};
use crate::netlink::{HEADER, attributes, split_message};

/// Its table, of the family `inet`.
const TABLE: &str = "weir-trace";
/// How long the connection is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long after it more is waited for of what the kernel tells.
const QUIET: Duration = Duration::from_millis(100);
/// `NFPROTO_INET`.
const INET: u8 = libc::NFPROTO_INET as u8;

/// A rule that a packet met and that fitted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Met {
    /// Its table with the family: `ip nat`, `inet weir`.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// Its number there, from 1.
    pub number: usize,
}

/// What was seen.
#[derive(Debug)]
pub struct Traced {
    /// The rules that the first packet met, in order; none where the kernel cannot be asked: why.
    pub met: Result<Vec<Met>, String>,
    /// How long it took to connect, or why it could not. A datagram is sent, no more.
    pub connected: io::Result<Duration>,
}

/// Makes the connection, watches it, and closes it at once.
///
/// # Errors
/// Where its socket cannot be made, or the trace's table cannot be taken away.
pub fn trace(sent: Sent) -> Result<Traced, Error> {
    remove_stale()?;
    let socket = connection(sent).map_err(Error::Trace)?;
    let watch = match Watch::start(sent) {
        Ok(watch) => watch,
        Err(why) => {
            let connected = connect(&socket, sent, PATIENCE);
            return Ok(Traced {
                met: Err(why.to_string()),
                connected,
            });
        }
    };
    let connected = connect(&socket, sent, PATIENCE);
    let met = watch.finish().map_err(|error| error.to_string());
    remove_stale()?;
    Ok(Traced { met, connected })
}

/// Takes the table away, ours or that of one that was killed.
fn remove_stale() -> Result<(), Error> {
    let remove = || -> io::Result<()> {
        let socket = Socket::open()?;
        let is_there = |socket: &Socket| -> io::Result<bool> {
            let tables = socket.tables(INET)?;
            Ok(tables
                .iter()
                .any(|table| name_of(table) == Some(zero_ended(TABLE).as_slice())))
        };
        // Whoever changes other rules meanwhile makes the kernel refuse.
        while is_there(&socket)? {
            let generation = socket.generation()?;
            socket.remove_tables(INET, &[TABLE], generation)?;
        }
        Ok(())
    };
    match remove() {
        // A kernel without nf_tables has none.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        result => result.map_err(Error::Table),
    }
}

/// What the kernel tells while the table is there.
struct Watch {
    events: OwnedFd,
    numbers: HashMap<(u8, Vec<u8>, Vec<u8>, u64), usize>,
}

impl Watch {
    fn start(sent: Sent) -> Result<Self, Error> {
        let nft =
            program::on_path("nft").ok_or_else(|| Error::Unusable("nft is not installed".to_owned()))?;
        let events = listen().map_err(Error::Trace)?;
        program::start(&nft, &["-f", "-"], &table(sent), None)?.finish()?;
        let rules = Socket::open().and_then(|socket| socket.rules());
        Ok(Self {
            events,
            numbers: numbers(&rules.map_err(Error::Trace)?),
        })
    }

    /// Everything that was told of the first packet.
    fn finish(self) -> io::Result<Vec<Met>> {
        let mut met = vec![];
        let mut first = None;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = match rustix::net::recv(&self.events, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(rustix::io::Errno::AGAIN) => return Ok(met),
                Err(error) => return Err(error.into()),
            };
            let mut rest = &buffer[..length];
            while let Some((message, after)) = split_message(rest) {
                rest = after;
                if let Some((id, rule)) = self.rule(message)
                    && *first.get_or_insert(id) == id
                {
                    met.extend(rule);
                }
            }
        }
    }

    /// Of which packet a message is, and the rule that fitted, where it is about one of somebody's.
    fn rule(&self, message: &[u8]) -> Option<(u32, Option<Met>)> {
        const TRACE: u16 = 10 << 8 | 17;
        const FIXED: usize = 4;
        const TABLE_NAME: u16 = 1;
        const CHAIN: u16 = 2;
        const HANDLE: u16 = 3;
        const ID: u16 = 6;
        if u16::from_ne_bytes([message[4], message[5]]) != TRACE {
            return None;
        }
        let family = *message.get(HEADER)?;
        let body = message.get(HEADER + FIXED..)?;
        let of = |wanted: u16| {
            attributes(body)
                .find(|(kind, _)| *kind == wanted)
                .map(|(_, value)| value)
        };
        let id = u32::from_be_bytes(of(ID)?.try_into().ok()?);
        let handle = of(HANDLE).and_then(|value| Some(u64::from_be_bytes(value.try_into().ok()?)));
        let (table, chain) = (of(TABLE_NAME)?.to_vec(), of(CHAIN)?.to_vec());
        let rule = handle.and_then(|handle| {
            let number = *self
                .numbers
                .get(&(family, table.clone(), chain.clone(), handle))?;
            let name = text(&table);
            (name != TABLE).then(|| Met {
                table: format!("{} {name}", family_word(family)),
                chain: text(&chain),
                number,
            })
        });
        Some((id, rule))
    }
}

/// The multicast group of traces.
fn listen() -> io::Result<OwnedFd> {
    const TRACES: u32 = 1 << (9 - 1);
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(NETFILTER))?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, TRACES))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(QUIET))?;
    Ok(socket)
}

/// The first packet of that connection alone.
fn table(sent: Sent) -> String {
    let family = if sent.to.is_ipv4() { "ip" } else { "ip6" };
    let port = match sent.protocol {
        IpProtocol::Udp => format!("udp dport {}", sent.to.port()),
        _ => format!(
            "tcp flags & (fin | syn | rst | ack) == syn tcp dport {}",
            sent.to.port()
        ),
    };
    format!(
        "table inet {TABLE} {{\n\tchain output {{\n\t\ttype filter hook output priority -400; policy accept;\n\t\t\
         {family} daddr {} {port} meta skuid {} meta nftrace set 1\n\t}}\n}}\n",
        sent.to.ip(),
        sent.uid
    )
}

/// The number in its chain of each rule, by family, table, chain and handle.
fn numbers(rules: &[Object]) -> HashMap<(u8, Vec<u8>, Vec<u8>, u64), usize> {
    const CHAIN: u16 = 2;
    const HANDLE: u16 = 3;
    let mut last: HashMap<(u8, Vec<u8>, Vec<u8>), usize> = HashMap::new();
    let mut numbers = HashMap::new();
    for rule in rules {
        let handle = value(rule, HANDLE).and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)));
        let (Some(table), Some(chain), Some(handle)) = (name_of(rule), value(rule, CHAIN), handle) else {
            continue;
        };
        let place = (rule.protocol, table.to_vec(), chain.to_vec());
        let number = last.entry(place.clone()).or_default();
        *number += 1;
        numbers.insert((place.0, place.1, place.2, handle), *number);
    }
    numbers
}

fn family_word(family: u8) -> &'static str {
    match i32::from(family) {
        libc::NFPROTO_IPV4 => "ip",
        libc::NFPROTO_IPV6 => "ip6",
        _ => "inet",
    }
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name)).into_owned()
}
