//! What other people's rules test and do beyond what Weir's have: the rule's own words, and what they mean to a packet.
//! Read by the parsers of both languages; followed by [`crate::evaluate()`].

use std::net::IpAddr;

use super::{Match, PortRange, Target};

/// A test that no rule of Weir's has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForeignTest {
    /// As the dump has it.
    pub text: String,
    /// When it holds.
    pub holds: Holds,
}

/// When a test holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Holds {
    /// For every packet: it counts, or takes a note.
    Always,
    /// By chance, or in turn.
    ByChance(Chance),
    /// Where every test of one of these rows holds: a set of values, or of several together.
    OneOf(Vec<Vec<Match>>),
    /// Where the source is one of these kinds of addresses.
    SourceKind(Vec<String>),
    /// Where the destination is one of these kinds of addresses.
    DestinationKind(Vec<String>),
    /// Where the source port is one of these.
    SourcePort(Vec<PortRange>),
    /// Where these TCP flags, and of the first ones no others, are set.
    Flags {
        /// Those that are looked at.
        mask: u8,
        /// Those that must be set.
        set: u8,
    },
    /// Where a socket of the namespace has made it.
    Owned,
    /// Where its connection was made to one of these addresses, whatever has become of it since.
    OriginalDestination(ipnet::IpNet),
    /// Where its connection was made to this port.
    OriginalPort(PortRange),
}

/// So many times of so many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chance {
    /// How many times.
    pub times: u32,
    /// Of how many; not 0.
    pub of: u32,
}

impl Chance {
    /// From 0 to 1.
    #[must_use]
    pub fn share(self) -> f64 {
        f64::from(self.times) / f64::from(self.of)
    }
}

/// A target that no rule of Weir's has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForeignTarget {
    /// As the dump has it.
    pub text: String,
    /// What it does.
    pub does: Does,
}

/// What a target does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Does {
    /// `DNAT`, `dnat to`.
    Dnat(NewDestination),
    /// `SNAT`, `MASQUERADE`: the new source, where the rule says one.
    Snat(Option<IpAddr>),
    /// A mark changes.
    ChangeMark(MarkChange),
    /// What the first case says that fits, for each of the keys of a map; the next rule is asked where none does.
    Cases(Vec<Case>),
    /// All of these, until one decides.
    InTurn(Vec<Target>),
    /// One of these by chance, or in turn, each so many times; what is left over goes to the next rule.
    Split {
        /// All times together.
        of: u32,
        /// Each with its times.
        ways: Vec<(u32, Target)>,
    },
}

/// Where DNAT leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewDestination {
    /// First and last of the addresses that the kernel chooses from; none where the address stays.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// The port; none where it stays.
    pub port: Option<u16>,
}

/// One entry of a map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// Its key.
    pub when: Vec<Match>,
    /// What it leads to.
    pub then: Target,
}

/// How a mark changes: `(mark & keep) ^ flip ^ (the other mark & take)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MarkChange {
    /// Whether it is the connection's; then the other one is the packet's.
    pub of_connection: bool,
    /// Bits that stay.
    pub keep: u32,
    /// Bits that are turned then.
    pub flip: u32,
    /// Bits that come from the other mark.
    pub take: u32,
}

impl MarkChange {
    /// What the mark then is.
    #[must_use]
    pub fn apply(self, mark: u32, other: u32) -> u32 {
        (mark & self.keep) ^ self.flip ^ (other & self.take)
    }
}
