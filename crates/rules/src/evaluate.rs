//! What a rule set, rendered or dumped, does with a packet, and by which rules.
//! Asked by the tools that explain, and by tests that hold it against the kernel.
//!
//! It knows what [`crate::ruleset::Test`] and [`crate::ruleset::Target`] name, and answers [`Fate::Unknown`] where a rule that could
//! decide is beyond that: never a guess. Where chance decides it tells every way ([`Fate::Split`]).

mod ground;
mod targets;
mod verdict;
mod view;
mod walk;
mod ways;

use std::borrow::Cow;
use std::net::IpAddr;

pub(crate) use self::ground::ByPacket;
pub use self::ground::{AddressKind, Ground};
pub use self::verdict::{Asked, At, Fate, Met, Step, Tests, Verdict, Way};
pub(crate) use self::view::Known;
pub(crate) use self::walk::{Hooked, Telling};
pub(crate) use self::ways::follow;
use crate::cgroup::Membership;
use crate::hook::base_of;
use crate::ruleset::{ChainKind, IpProtocol, Ruleset};

/// A packet: in most questions the first one of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Where it starts.
    pub origin: Origin,
    /// What is in its IP header.
    pub protocol: IpProtocol,
    /// Source address.
    pub source: IpAddr,
    /// Source port; 0 where the protocol has none.
    pub source_port: u16,
    /// Destination address.
    pub destination: IpAddr,
    /// Destination port; 0 where the protocol has none.
    pub destination_port: u16,
    /// The device that it leaves or comes in by, as routing says before any rule: `lo` for an address
    /// of the namespace's own.
    pub device: String,
    /// What conntrack makes of it.
    pub state: State,
    /// The mark of its connection.
    pub connection_mark: u32,
    /// Whether a transparent socket of the namespace has its connection: one that TPROXY brought.
    pub transparent: bool,
    /// Whether the DNS proxy has given a sign of life lately.
    pub dns_answers: bool,
}

/// What conntrack makes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum State {
    /// The one that opens a connection.
    #[default]
    New,
    /// Of an open connection, the first one that conntrack sees: it was not looking when the connection began.
    /// NAT is asked about it too.
    PickedUp,
    /// Of a connection that both sides have spoken in.
    Established,
    /// It opens no connection, and no socket here has one that it could be of: it completes a handshake that the
    /// kernel keeps in a SYN cookie, or is a stray. Conntrack takes it for the first one of a connection.
    Stray,
    /// Of a connection that both sides have spoken in, and that no socket here has by the addresses that it comes
    /// with: it is passed on, or its addresses are translated, or all that was said so far is in a SYN cookie.
    Passing,
    /// Of no connection, and none begins with it.
    Invalid,
    /// None of its business: a rule has said so, or it is said of the packet.
    Untracked,
}

impl State {
    /// Whether NAT is asked.
    fn is_first(self) -> bool {
        matches!(self, Self::New | Self::PickedUp | Self::Stray)
    }

    fn name(self) -> &'static str {
        match self {
            Self::New | Self::PickedUp | Self::Stray => "NEW",
            Self::Established | Self::Passing => "ESTABLISHED",
            Self::Invalid => "INVALID",
            Self::Untracked => "UNTRACKED",
        }
    }
}

/// Where a packet starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A socket of the namespace.
    Socket {
        /// User id of the process that made it.
        uid: u32,
        /// Group id of that process.
        gid: u32,
        /// Its `SO_MARK`.
        mark: u32,
    },
    /// Another machine or namespace.
    Remote,
}
/// Follows a packet through the chains in the order in which the kernel asks them.
#[must_use]
pub fn evaluate(ruleset: &Ruleset, packet: &Packet) -> Verdict {
    evaluate_from(ruleset, packet, &Membership::default())
}

/// As [`evaluate`], for a packet of a process whose cgroups are known.
#[must_use]
pub fn evaluate_from(ruleset: &Ruleset, packet: &Packet, cgroups: &Membership) -> Verdict {
    let tables = ruleset.tables.iter().enumerate();
    let mut hooked = vec![];
    for (number, table) in tables {
        for (chain, hook) in table.chains.iter().enumerate() {
            let base = match hook.kind {
                ChainKind::Builtin(_) => base_of(table.name, &hook.name),
                ChainKind::User => None,
            };
            hooked.extend(base.map(|base| Hooked {
                base,
                table: (number, Cow::Borrowed(table.name.as_str())),
                chain,
                chains: &table.chains,
            }));
        }
    }
    let ground = &ByPacket(packet);
    follow(hooked, packet, Known { cgroups, ground }, Telling::Path)
}
