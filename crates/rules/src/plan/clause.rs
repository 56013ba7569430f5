//! The words of a plan: when something holds for a packet, and what becomes of it then.

use std::net::SocketAddr;

use ipnet::IpNet;

use crate::cgroup::{Cgroup, ClassId};
use crate::intent::SocketMark;
use crate::ruleset::IpProtocol;

/// One decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Clause {
    /// All must hold; none holds for everything.
    pub when: Vec<Condition>,
    /// Then this, and no later clause is asked.
    pub then: Action,
    /// Why, in a few words for people.
    pub purpose: &'static str,
}

/// Something about a packet. A list holds where any of its members does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Condition {
    /// The protocol.
    Protocol(IpProtocol),
    /// Leaves by the loopback device, which is how any packet to an address of its own goes.
    OverLoopback,
    /// Leaves by one of these devices; a trailing `+` stands for any ending.
    LeavesBy(Vec<String>),
    /// Came in by one of these devices.
    CameBy(Vec<String>),
    /// Comes from one of these networks, as [`Condition::To`].
    From(Vec<IpNet>),
    /// Goes to one of these networks. Those of the other family do not count; with none left it never holds.
    To(Vec<IpNet>),
    /// Goes to none of these networks.
    NotTo(Vec<IpNet>),
    /// Goes to one of these TCP or UDP ports.
    ToPort(Vec<u16>),
    /// Goes to one of these addresses, at its TCP port.
    ToService(Vec<SocketAddr>),
    /// Goes to none of these TCP ports.
    NotToPorts(Vec<u16>),
    /// Comes from this TCP or UDP port.
    FromPort(u16),
    /// The DNS proxy has given a sign of life lately.
    DnsAnswers,
    /// Its connection is of this zone of conntrack, which it was given while the DNS proxy answered.
    InZone(Zone),
    /// The socket has one of these signs.
    SocketHas(Vec<Sign>),
    /// The socket is of none of these groups.
    SocketLacks(Vec<u32>),
    /// Conntrack can make nothing of it.
    Invalid,
    /// It opens no TCP connection, but goes on with one.
    Continues,
    /// Its connection has this mark.
    ConnectionHas(SocketMark),
    /// It goes the way in which its connection was opened, and not back.
    FromOpener,
    /// Conntrack has known its connection for longer, or is kept from it.
    IsKnown,
    /// A socket of the namespace has its connection. Nftables need not ask, as its `tproxy` looks for itself; to
    /// iptables a listener on one address, rather than all, is such a socket too.
    HasSocket,
    /// A transparent socket of the namespace has its connection.
    Transparent,
}

/// One sign of a socket.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Sign {
    /// The user id of its maker.
    Uid(u32),
    /// The group id of its maker.
    Gid(u32),
    /// Its mark.
    Mark(SocketMark),
    /// The class id of the cgroup that it was made in.
    Class(ClassId),
    /// It was made in this cgroup, or in one below it.
    Cgroup(Cgroup),
}

/// A zone of conntrack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Zone {
    /// Its number.
    pub number: u16,
    /// The mark that packets have from the rule that gives them the zone to those that ask for it, in a language that
    /// cannot ask. No sign of the proxy's is like it.
    pub mark: u32,
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// To the proxy's listener on this port.
    Redirect(u16),
    /// Goes where it was going.
    Leave,
    /// Refused, and the sender told at once.
    Reject,
    /// Vanishes.
    Drop,
    /// To the proxy's transparent socket that has its connection, or else to the transparent listener on this
    /// port, with its destination as it is.
    Tproxy {
        /// The port.
        port: u16,
        /// The mark that it then has, and the listener's socket for its connection takes over.
        mark: Option<u32>,
        /// The mark that its connection has from now on.
        connection: Option<u32>,
    },
    /// Goes where it was going, with this mark.
    Mark(u32),
    /// Goes where it was going, and its connection has its mark from now on.
    SaveMark,
    /// Goes where its connection's mark, which it then has, leads it.
    RestoreMark,
    /// Goes where it was going, and conntrack leaves it alone.
    Untrack,
    /// Goes where it was going, and conntrack knows it in this zone only.
    Zone(Zone),
    /// Goes where it was going, and is remembered as a sign of life of the DNS proxy.
    Remember,
}
