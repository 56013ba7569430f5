//! The rules of one family as the packet filter has them: tables, ordered chains, rules. Made by
//! [`crate::render()`] from a plan and by [`crate::parse()`] from a dump; printed as restore text. Rules of
//! native nftables are the same type (see [`crate::nft`]), with sets where iptables has a rule for each member.

mod foreign;
mod liveness;
mod print;
mod ranges;

use std::fmt;
use std::net::SocketAddr;

use ipnet::IpNet;

pub use self::foreign::{Case, Chance, Does, ForeignTarget, ForeignTest, Holds, MarkChange, NewDestination};
pub use self::liveness::{LIST, Memory, SET};
pub use self::ranges::{Addresses, merged};
use crate::family::Family;
use crate::intent::SocketMark;

/// Chains of ours begin with this; nothing else of a rule set is ever touched.
pub const OWN_CHAIN_PREFIX: &str = "WEIR_";

/// Comments on rules of ours begin with this.
pub const PURPOSE: &str = "weir: ";

/// All tables of one family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ruleset {
    /// IPv4 or IPv6.
    pub family: Family,
    /// In order of name; at most one of each.
    pub tables: Vec<Table>,
}

/// One table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// Which.
    pub name: TableName,
    /// Built-in ones first, in the order of the dump.
    pub chains: Vec<Chain>,
}

/// The tables that exist.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TableName {
    /// `filter`.
    Filter,
    /// `mangle`.
    Mangle,
    /// `nat`: seen by the first packet of a connection only.
    Nat,
    /// `raw`: before conntrack.
    Raw,
    /// `security`.
    Security,
}

impl TableName {
    /// Every table, by name.
    pub const ALL: [(&'static str, Self); 5] = [
        ("filter", Self::Filter),
        ("mangle", Self::Mangle),
        ("nat", Self::Nat),
        ("raw", Self::Raw),
        ("security", Self::Security),
    ];

    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL[self as usize].0
    }
}

/// One chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: ChainKind,
    /// First match decides.
    pub rules: Vec<Rule>,
}

/// Built-in or made by somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChainKind {
    /// A hook of the kernel, with what happens at its end.
    Builtin(Policy),
    /// Reached by jumps only.
    User,
}

/// What happens at the end of a built-in chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// Goes on.
    Accept,
    /// Is dropped.
    Drop,
}

/// One rule: all matches must fit, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// A comment is one of them.
    pub matches: Vec<Match>,
    /// What then happens.
    pub target: Target,
}

/// A test, or its opposite.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Match {
    /// Whether it must not hold.
    pub negated: bool,
    /// What is looked at.
    pub test: Test,
}

/// What a match looks at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Test {
    /// `-s`.
    Source(IpNet),
    /// One of these: `ip saddr { … }` of nftables.
    Sources(Addresses),
    /// `-d`.
    Destination(IpNet),
    /// One of these: `ip daddr { … }` of nftables.
    Destinations(Addresses),
    /// `-i`; a trailing `+` matches any ending.
    InInterface(String),
    /// `-o`; a trailing `+` matches any ending.
    OutInterface(String),
    /// `-p`.
    Protocol(IpProtocol),
    /// `-m tcp|udp --sport`.
    SourcePort(PortRange),
    /// `-m tcp|udp --dport`.
    DestinationPort(PortRange),
    /// `-m multiport --dports`; `dport { … }` of nftables.
    DestinationPorts(Vec<PortRange>),
    /// At one of these addresses and ports, sorted: `-m set --match-set` with the set of [`crate::ipset`];
    /// `ip daddr . tcp dport { … }` of nftables.
    DestinationServices(Vec<SocketAddr>),
    /// `-m tcp --tcp-flags FIN,SYN,RST,ACK SYN`: the first packet of a TCP connection.
    Opens,
    /// `-m owner --uid-owner`, first and last.
    Uid(u32, u32),
    /// In one of these ranges: `skuid { … }` of nftables.
    Uids(Vec<(u32, u32)>),
    /// `-m owner --gid-owner`, first and last.
    Gid(u32, u32),
    /// In one of these ranges: `skgid { … }` of nftables.
    Gids(Vec<(u32, u32)>),
    /// `-m mark --mark`.
    Mark(SocketMark),
    /// `-m cgroup --cgroup`: the class id of net_cls.
    Class(u32),
    /// In one of these ranges: `meta cgroup { … }` of nftables.
    Classes(Vec<(u32, u32)>),
    /// `-m cgroup --path`: the path of a cgroup of version 2, which those below it count as.
    Cgroup(String),
    /// `-m connmark --mark`.
    ConnectionMark(SocketMark),
    /// `-m conntrack --ctstate`, the states' names.
    State(Vec<String>),
    /// `-m conntrack --ctdir ORIGINAL`: it goes the way in which its connection was opened.
    Original,
    /// `-m socket`: a socket of the namespace has its connection, or listens for it at its very address.
    Socket,
    /// `-m socket --transparent`: a transparent socket of the namespace has its connection.
    Transparent,
    /// `ct zone` of nftables: the connection's zone.
    Zone(u16),
    /// The DNS proxy has given a sign of life lately.
    Alive(Memory),
    /// `-m comment --comment`: always holds.
    Comment(String),
    /// One that only others' rules have, and that is understood.
    Foreign(ForeignTest),
    /// Anything else, as the dump has it: `-m limit --limit 3/min`.
    Other(String),
}

/// A protocol of the IP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IpProtocol {
    /// 6.
    Tcp,
    /// 17.
    Udp,
    /// 132.
    Sctp,
    /// 1.
    Icmp,
    /// 58.
    Icmpv6,
    /// Any other.
    Number(u8),
}

impl IpProtocol {
    /// Names as both iptables variants print and read them.
    pub(crate) const NAMES: [(&'static str, Self); 5] = [
        ("tcp", Self::Tcp),
        ("udp", Self::Udp),
        ("sctp", Self::Sctp),
        ("icmp", Self::Icmp),
        ("ipv6-icmp", Self::Icmpv6),
    ];
}

impl fmt::Display for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, protocol)| protocol == self) {
            Some((name, _)) => f.write_str(name),
            None => match self {
                Self::Number(number) => number.fmt(f),
                _ => Ok(()),
            },
        }
    }
}

/// Ports from first to last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortRange {
    /// First.
    pub first: u16,
    /// Last, included.
    pub last: u16,
}

impl From<u16> for PortRange {
    fn from(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}:{}", self.first, self.last)
        }
    }
}

/// What happens to a packet that fits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// The rule counts, and nothing else.
    Continue,
    /// `ACCEPT`: the table is done with it.
    Accept,
    /// `DROP`.
    Drop,
    /// `REJECT --reject-with …`.
    Reject(String),
    /// `RETURN`.
    Return,
    /// `-j CHAIN`.
    Jump(String),
    /// `-g CHAIN`: as a jump, but its end returns to where this chain was called.
    Goto(String),
    /// `REDIRECT --to-ports PORT`.
    Redirect(u16),
    /// `TPROXY --on-port PORT`: to the transparent socket that has its connection, or that listens there. Where
    /// another socket has it, or none listens, iptables drops the packet, and nftables asks the next rule.
    Tproxy {
        /// The port.
        port: u16,
        /// What the packet's mark then is, if it changes.
        mark: Option<u32>,
        /// What its connection's mark then is, if it changes: nftables alone has it in the same rule.
        connection: Option<u32>,
        /// Whether the next rule is asked.
        or_next: bool,
    },
    /// `MARK --set-xmark MARK/0xffffffff`.
    Mark(u32),
    /// `CONNMARK --set-xmark MARK/0xffffffff`: the connection's.
    MarkConnection(u32),
    /// `CONNMARK --save-mark`, all bits: the packet's to the connection.
    SaveMark,
    /// `CONNMARK --restore-mark`, all bits: the connection's to the packet.
    RestoreMark,
    /// `CT --notrack`: conntrack leaves it alone. The next rule is asked.
    Notrack,
    /// `CT --zone`: conntrack knows the packet in this zone only; the first such rule counts.
    Zone(u16),
    /// The packet is remembered as a sign of life of the DNS proxy.
    Remember(Memory),
    /// One that only others' rules have, and that is understood.
    Foreign(ForeignTarget),
    /// Any other extension, as the dump has it: `LOG --log-prefix x`.
    Other(String),
}

impl Target {
    /// The chain that is jumped to.
    #[must_use]
    pub fn chain(&self) -> Option<&str> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            _ => None,
        }
    }
}

impl Ruleset {
    /// One without tables.
    #[must_use]
    pub fn empty(family: Family) -> Self {
        Self {
            family,
            tables: vec![],
        }
    }

    /// The table of that name.
    #[must_use]
    pub fn table(&self, name: TableName) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// What in it is ours: our chains, and the rules that jump to them. Foreign rules and empty tables are gone.
    #[must_use]
    pub fn own(&self) -> Self {
        let tables = self
            .tables
            .iter()
            .map(Table::own)
            .filter(|table| !table.chains.is_empty());
        Self {
            family: self.family,
            tables: tables.collect(),
        }
    }

    /// Whether anything in it that is not ours can decide about a packet: a rule, or a policy that drops.
    #[must_use]
    pub fn has_foreign(&self) -> bool {
        let mut foreign = self
            .tables
            .iter()
            .flat_map(|table| &table.chains)
            .filter(|chain| !chain.is_own());
        foreign.any(|chain| {
            chain.kind == ChainKind::Builtin(Policy::Drop) || chain.rules.iter().any(|rule| !rule.is_own())
        })
    }

    /// What each rule of ours is for, apart from the jumps to our chains.
    pub fn purposes(&self) -> impl Iterator<Item = &str> {
        self.tables
            .iter()
            .flat_map(|table| &table.chains)
            .flat_map(|chain| &chain.rules)
            .filter(|rule| !rule.is_own())
            .filter_map(|rule| rule.comment()?.strip_prefix(PURPOSE))
    }
}

impl Table {
    /// The chain of that name.
    #[must_use]
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }

    pub(crate) fn own(&self) -> Self {
        let chains = self.chains.iter().filter_map(|chain| {
            if chain.is_own() {
                return Some(chain.clone());
            }
            let rules: Vec<_> = chain.rules.iter().filter(|rule| rule.is_own()).cloned().collect();
            (!rules.is_empty()).then(|| Chain {
                rules,
                ..chain.clone()
            })
        });
        Self {
            name: self.name,
            chains: chains.collect(),
        }
    }
}

impl Chain {
    /// Whether it is one of ours.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.name.starts_with(OWN_CHAIN_PREFIX)
    }
}

impl Rule {
    /// Whether it leads to a chain of ours.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.target
            .chain()
            .is_some_and(|chain| chain.starts_with(OWN_CHAIN_PREFIX))
    }

    /// Its comment; for a rule of ours, its purpose.
    #[must_use]
    pub fn comment(&self) -> Option<&str> {
        self.matches.iter().find_map(|found| match &found.test {
            Test::Comment(text) => Some(text.as_str()),
            _ => None,
        })
    }
}
