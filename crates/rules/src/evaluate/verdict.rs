//! What evaluating says: the end of a packet's way, and the rules that it met.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use crate::ruleset::{PURPOSE, Rule};

/// What becomes of the packet, and the rules that fitted it on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The end.
    pub fate: Fate,
    /// Its mark then; what is routed by marks goes by this one.
    pub mark: u32,
    /// The mark of its connection then.
    pub connection_mark: u32,
    /// Whether conntrack knows of it then.
    pub is_tracked: bool,
    /// The zone in which conntrack knows it; 0 where no rule says.
    pub zone: u16,
    /// Whether it is remembered as a sign of life of the DNS proxy.
    pub is_remembered: bool,
    /// Every rule that fitted, in order; the jump to a chain comes before what is in it.
    pub path: Vec<Step>,
    /// Which of the path decided; none where the packet passed every chain to its end.
    pub(crate) decided: Option<usize>,
    /// Every rule that was asked, in order, where [`crate::Installed::evaluate`] was.
    pub asked: Vec<Asked>,
    /// Where chance decides, each way that it may take; the rest then tells of the first one.
    pub ways: Vec<Way>,
}

/// One of several ways between which chance decides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Way {
    /// How many of a million packets take it.
    pub millionths: u32,
    /// What becomes of those.
    pub verdict: Verdict,
}

/// A rule that was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Which it is.
    pub at: At,
    /// Those of its tests that do not hold.
    pub failed: Tests,
    /// Those of its tests of which nothing can be said.
    pub unknown: Tests,
    /// What the packet was like when it was asked.
    pub met: Met,
}

/// Some of a rule's tests.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tests(u128);

impl Tests {
    /// A rule of iptables has fewer; what one had beyond would count as the last.
    const MOST: usize = 127;

    pub(super) fn add(&mut self, number: usize) {
        self.0 |= 1 << number.min(Self::MOST);
    }

    /// Whether it is none of them.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Their numbers in the rule, from 0.
    pub fn numbers(self) -> impl Iterator<Item = usize> {
        (0..=Self::MOST).filter(move |number| self.0 & (1 << number) != 0)
    }
}

/// A rule's place in what is evaluated, as numbers from 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct At {
    /// The table: in the list of a [`crate::Ruleset`], or of an [`crate::Installed`].
    pub table: usize,
    /// The chain in it.
    pub chain: usize,
    /// The rule in that.
    pub rule: usize,
}

/// What of a packet changes on its way through the rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Met {
    /// Its destination; none where it is whatever address the device has.
    pub destination: Option<IpAddr>,
    /// Its destination port.
    pub destination_port: u16,
    /// Its mark.
    pub mark: u32,
    /// Whether it is on its way in.
    pub is_inward: bool,
    /// Whether the rule can do no more than change its source.
    pub is_about_source: bool,
}

/// The end of a packet's way through the rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// To a listener of the namespace.
    Redirect {
        /// Its port.
        port: u16,
    },
    /// To a transparent listener of the namespace, with its destination as it is.
    Tproxy {
        /// Its port.
        port: u16,
    },
    /// To another address than it was going to.
    Dnat {
        /// The address.
        to: IpAddr,
        /// The port.
        port: u16,
    },
    /// By one of several ways that come to different ends, as chance will have it.
    Split,
    /// To where it was going.
    Direct,
    /// It vanishes.
    Drop,
    /// It vanishes, and the sender is told.
    Reject,
    /// The last rule of the path could decide, and it cannot be said how.
    Unknown,
}

/// A rule that fitted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Its table: `nat`; one of nftables with its family, `inet weir`.
    pub table: Cow<'static, str>,
    /// Its chain.
    pub chain: String,
    /// Its number there, from 1, as `iptables -L --line-numbers` counts.
    pub number: usize,
    /// The rule.
    pub rule: Rule,
    /// Its place in what was evaluated.
    pub at: At,
}

impl Step {
    /// What the rule is for: its comment, without the prefix of ours; empty where it has none.
    #[must_use]
    pub fn purpose(&self) -> &str {
        let comment = self.rule.comment().unwrap_or_default();
        comment.strip_prefix(PURPOSE).unwrap_or(comment)
    }
}

/// `nat WEIR_OUTPUT 3: -p tcp -j REDIRECT --to-ports 15001`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}:{}", self.table, self.chain, self.number, self.rule)
    }
}

impl Verdict {
    /// Of a packet that no rule is asked about.
    pub(super) fn nothing() -> Self {
        Self {
            fate: Fate::Direct,
            mark: 0,
            connection_mark: 0,
            is_tracked: true,
            zone: 0,
            is_remembered: false,
            path: vec![],
            decided: None,
            asked: vec![],
            ways: vec![],
        }
    }

    /// The rule that decided; none where no rule did and the packet passed every chain to its end.
    #[must_use]
    pub fn decided_by(&self) -> Option<&Step> {
        self.decided.and_then(|index| self.path.get(index))
    }
}
