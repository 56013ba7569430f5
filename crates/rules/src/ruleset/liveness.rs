//! How rules remember the DNS proxy's sign of life ([`model::liveness`]), in each language: `xt_recent` with a mask
//! that makes one entry of all addresses, or a set of nftables that has an element for each family.

use model::liveness::HELD_FOR;

use crate::family::Family;

/// What remembers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// `-m recent`, in the rules of this family.
    Recent(Family),
    /// A set of nftables.
    Set,
}

/// The list of `xt_recent`, and `/proc/net/xt_recent/…`.
pub const LIST: &str = "WEIR_DNS";
/// The set of nftables.
pub const SET: &str = "dns-answers";

impl Memory {
    /// The test whether it remembers one.
    pub(crate) fn asked(self) -> String {
        match self {
            Self::Recent(family) => format!(
                "--rcheck --seconds {} --name {LIST} --mask {} --rsource",
                HELD_FOR.as_secs(),
                any(family)
            ),
            Self::Set => format!("meta nfproto @{SET}"),
        }
    }

    /// The statement by which it remembers one.
    pub(crate) fn told(self) -> String {
        match self {
            Self::Recent(family) => format!("--set --name {LIST} --mask {} --rsource", any(family)),
            Self::Set => format!("update @{SET} {{ meta nfproto timeout {}s }}", HELD_FOR.as_secs()),
        }
    }

    /// That which is asked, or told, in these words of a dump.
    pub(crate) fn recent(words: &str, wanted: fn(Self) -> String) -> Option<Self> {
        let each = Family::ALL.map(Self::Recent);
        each.into_iter().find(|memory| wanted(*memory) == words)
    }
}

/// The mask under which all addresses are one.
fn any(family: Family) -> &'static str {
    match family {
        Family::V4 => "0.0.0.0",
        Family::V6 => "::",
    }
}
