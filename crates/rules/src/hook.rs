//! Where on a packet's way, and in which turn, the kernel asks a chain.

use crate::ruleset::TableName;

/// Where on a packet's way a chain is asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum HookPoint {
    /// As it arrives.
    Prerouting,
    /// Before it is delivered here.
    Input,
    /// On its way through.
    Forward,
    /// As it is made here.
    Output,
    /// As it leaves.
    Postrouting,
}

impl HookPoint {
    /// Every one, as nftables calls it.
    pub const ALL: [(&'static str, Self); 5] = [
        ("prerouting", Self::Prerouting),
        ("input", Self::Input),
        ("forward", Self::Forward),
        ("output", Self::Output),
        ("postrouting", Self::Postrouting),
    ];
}

/// When a chain is asked: of those at one point the one of the lowest priority first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Base {
    /// Where.
    pub point: HookPoint,
    /// In which turn.
    pub priority: i32,
    /// Whether only the first packet of a connection comes to it.
    pub is_nat: bool,
}

/// When iptables has its built-in chains asked (`linux/netfilter_ipv4.h`); none for any other chain.
#[must_use]
pub fn base_of(table: TableName, chain: &str) -> Option<Base> {
    let point = match chain {
        "PREROUTING" => HookPoint::Prerouting,
        "INPUT" => HookPoint::Input,
        "FORWARD" => HookPoint::Forward,
        "OUTPUT" => HookPoint::Output,
        "POSTROUTING" => HookPoint::Postrouting,
        _ => return None,
    };
    let is_source = matches!(point, HookPoint::Input | HookPoint::Postrouting);
    let priority = match table {
        TableName::Raw => -300,
        TableName::Mangle => -150,
        TableName::Nat if is_source => 100,
        TableName::Nat => -100,
        TableName::Filter => 0,
        TableName::Security => 50,
    };
    Some(Base {
        point,
        priority,
        is_nat: table == TableName::Nat,
    })
}
