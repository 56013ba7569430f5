//! Rules in the language of nftables: a plan's rule sets to one transaction for `nft -f -`, and what
//! `nft list table` prints back to rule sets. All is in a table of our own, called [`TABLE`], which the
//! transaction replaces whole; nobody else's table is named.
//!
//! One table of the family `inet` holds both families: a rule that both have alike is written once. Where
//! the kernel has no NAT in `inet` (before 5.2), or one family alone is captured, each has a table.

mod listing;
mod parse;
mod print;
mod signs;

use std::fmt;

pub use self::listing::listing;
pub use self::parse::parse;
pub use self::print::{replacement, transaction};
pub use self::signs::{Sign, signs};
use crate::family::Family;
use crate::plan::Plan;
use crate::render::{Dialect, render_for};
use crate::ruleset::{Ruleset, TableName};

/// The name of every table of ours.
pub const TABLE: &str = "weir";

/// The family of a table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TableFamily {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
}

impl TableFamily {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ip, Self::Ip6, Self::Inet];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
        }
    }

    /// The families of packets that its rules see.
    #[must_use]
    pub fn sees(self) -> &'static [Family] {
        match self {
            Self::Ip => &[Family::V4],
            Self::Ip6 => &[Family::V6],
            Self::Inet => &Family::ALL,
        }
    }
}

impl From<Family> for TableFamily {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => Self::Ip,
            Family::V6 => Self::Ip6,
        }
    }
}

impl fmt::Display for TableFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One rule set a family of the plan, with sets for lists.
#[must_use]
pub fn render(plan: &Plan) -> Vec<Ruleset> {
    render_for(Dialect::Nft, plan)
}

/// What a hook of the kernel is called in iptables and in nftables, and the chain's type and priority, so
/// that a table's chains are asked when iptables would ask them.
struct Hook {
    table: TableName,
    builtin: &'static str,
    kind: &'static str,
    hook: &'static str,
    priority: i32,
}

const fn hook(
    table: TableName,
    builtin: &'static str,
    kind: &'static str,
    hook: &'static str,
    priority: i32,
) -> Hook {
    Hook {
        table,
        builtin,
        kind,
        hook,
        priority,
    }
}

/// The hooks that plans have rules for, and those that they may come to have.
const HOOKS: [Hook; 10] = [
    hook(TableName::Raw, "PREROUTING", "filter", "prerouting", -300),
    hook(TableName::Raw, "OUTPUT", "filter", "output", -300),
    hook(TableName::Mangle, "PREROUTING", "filter", "prerouting", -150),
    hook(TableName::Mangle, "INPUT", "filter", "input", -150),
    hook(TableName::Mangle, "OUTPUT", "route", "output", -150),
    hook(TableName::Nat, "PREROUTING", "nat", "prerouting", -100),
    hook(TableName::Nat, "OUTPUT", "nat", "output", -100),
    hook(TableName::Filter, "INPUT", "filter", "input", 0),
    hook(TableName::Filter, "FORWARD", "filter", "forward", 0),
    hook(TableName::Filter, "OUTPUT", "filter", "output", 0),
];

impl Hook {
    fn of(table: TableName, builtin: &str) -> Option<&'static Self> {
        HOOKS
            .iter()
            .find(|hook| hook.table == table && hook.builtin == builtin)
    }

    /// `nat-output`.
    fn chain(&self) -> String {
        format!("{}-{}", self.table.as_str(), self.hook)
    }
}

/// A chain of ours that is no hook: `nat-WEIR_X`, as one table holds what are several for iptables.
fn user_chain(table: TableName, name: &str) -> String {
    format!("{}-{name}", table.as_str())
}
