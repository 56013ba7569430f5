//! All that the packet filter of a namespace holds, whoever wrote it and by whichever back-end, with counters, in
//! the order in which the kernel asks it. Made from dumps ([`crate::dumps`]); evaluated for a packet.

use std::borrow::Cow;
use std::fmt;

use crate::cgroup::Membership;
use crate::evaluate::{At, ByPacket, Fate, Ground, Hooked, Known, Packet, Telling, Verdict, follow};
use crate::family::Family;
use crate::hook::Base;
use crate::ruleset::{Chain, Rule};

/// Every table of every back-end.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Installed {
    /// A table of both families is there twice.
    pub tables: Vec<HeldTable>,
}

/// One table, as one family of packets sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldTable {
    /// By what it is shown, and so was written.
    pub by: Writer,
    /// Which packets see it.
    pub family: Family,
    /// As that shows it: `nat`; for nftables with the table's own family, `inet weir`.
    pub name: String,
    /// Its chains. One that the kernel asks is built in.
    pub chains: Vec<Chain>,
    /// For each chain, when the kernel asks it; none where it is only jumped to.
    pub bases: Vec<Option<Base>>,
    /// For each chain and rule, what a dump says beyond the rule itself.
    pub notes: Vec<Vec<Note>>,
}

/// What a dump says of a rule.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Note {
    /// Its number in the chain as the program lists it, from 1: a table of both families also has rules that packets
    /// of this one never meet.
    pub number: usize,
    /// The rule in the language of its back-end, without its counter.
    pub text: String,
    /// What it has counted, where it counts.
    pub counter: Option<Counter>,
}

/// Packets that a rule fitted. NAT sees the first one of a connection alone.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counter {
    /// How many.
    pub packets: u64,
    /// Of how many bytes in all.
    pub bytes: u64,
}

/// What shows a table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Writer {
    /// `iptables-legacy`, or its IPv6 twin.
    IptablesLegacy,
    /// `iptables-nft`, or its IPv6 twin.
    IptablesNft,
    /// One of the two: a dump does not always say which.
    Iptables,
    /// `nft`.
    Nft,
}

impl Writer {
    /// The program: `ip6tables-legacy`.
    #[must_use]
    pub fn program(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::IptablesLegacy, Family::V4) => "iptables-legacy",
            (Self::IptablesLegacy, Family::V6) => "ip6tables-legacy",
            (Self::IptablesNft, Family::V4) => "iptables-nft",
            (Self::IptablesNft, Family::V6) => "ip6tables-nft",
            (Self::Iptables, Family::V4) => "iptables",
            (Self::Iptables, Family::V6) => "ip6tables",
            (Self::Nft, _) => "nft",
        }
    }
}

impl Installed {
    /// Whether there is any rule, or policy that drops, for packets of that family.
    #[must_use]
    pub fn has_rules(&self, family: Family) -> bool {
        self.of(family).any(|table| table.chains.iter().any(has_effect))
    }

    /// The tables that packets of that family see.
    pub fn of(&self, family: Family) -> impl Iterator<Item = &HeldTable> {
        self.tables.iter().filter(move |table| table.family == family)
    }

    /// Every rule, in no matter which table.
    pub fn rules_mut(&mut self) -> impl Iterator<Item = &mut Rule> {
        let chains = self.tables.iter_mut().flat_map(|table| &mut table.chains);
        chains.flat_map(|chain| &mut chain.rules)
    }

    /// The rule at a place.
    #[must_use]
    pub fn rule(&self, at: At) -> Option<&Rule> {
        self.tables
            .get(at.table)?
            .chains
            .get(at.chain)?
            .rules
            .get(at.rule)
    }

    /// What the dump says of the rule at a place.
    #[must_use]
    pub fn note(&self, at: At) -> Option<&Note> {
        self.tables.get(at.table)?.notes.get(at.chain)?.get(at.rule)
    }

    /// Follows a packet through the tables of its family in the order in which the kernel asks them.
    ///
    /// Of two chains at one point and of one priority, the kernel asks the one first that was made last, and does
    /// not tell which that is. Where it matters the answer is [`Fate::Unknown`].
    #[must_use]
    pub fn evaluate(&self, packet: &Packet) -> Verdict {
        self.evaluate_from(packet, &Membership::default())
    }

    /// As [`Self::evaluate`], for a packet of a process whose cgroups are known.
    #[must_use]
    pub fn evaluate_from(&self, packet: &Packet, cgroups: &Membership) -> Verdict {
        self.evaluate_in(packet, cgroups, &ByPacket(packet))
    }

    /// As [`Self::evaluate_from`], in a namespace of which more is known than the packet says.
    #[must_use]
    pub fn evaluate_in(&self, packet: &Packet, cgroups: &Membership, ground: &dyn Ground) -> Verdict {
        let family = Family::of(packet.destination);
        let known = Known { cgroups, ground };
        let mut hooked = self.hooked(family);
        let one = follow(self.hooked(family), packet, known, Telling::All);
        hooked.reverse();
        let other = follow(hooked, packet, known, Telling::Path);
        let ends = |verdict: &Verdict| -> Vec<(u32, Fate)> {
            let ways = verdict.ways.iter();
            ways.map(|way| (way.millionths, way.verdict.fate)).collect()
        };
        if one.fate == other.fate && ends(&one) == ends(&other) {
            return one;
        }
        // The rule that is named is the one that the other order does not come to.
        Verdict {
            fate: Fate::Unknown,
            ..one
        }
    }

    fn hooked(&self, family: Family) -> Vec<Hooked<'_>> {
        let mine = |(_, table): &(usize, &HeldTable)| table.family == family;
        let tables = self.tables.iter().enumerate().filter(mine);
        let hooked = tables.flat_map(|(number, table)| {
            let bases = table.bases.iter().enumerate();
            bases.filter_map(move |(chain, base)| {
                Some(Hooked {
                    base: (*base)?,
                    table: (number, Cow::Owned(table.name.clone())),
                    chain,
                    chains: &table.chains,
                })
            })
        });
        hooked.collect()
    }

    /// Pairs of tables that have a chain at one point and of one priority, both with rules: which of them is asked
    /// first depends on which was made last.
    #[must_use]
    pub fn ties(&self, family: Family) -> Vec<(&HeldTable, &HeldTable)> {
        let mut ties = vec![];
        let mine: Vec<_> = self.of(family).collect();
        for (index, one) in mine.iter().enumerate() {
            for other in &mine[index + 1..] {
                if one
                    .bases_with_rules()
                    .any(|base| other.bases_with_rules().any(|its| its == base))
                {
                    ties.push((*one, *other));
                }
            }
        }
        ties
    }
}

impl HeldTable {
    fn bases_with_rules(&self) -> impl Iterator<Item = Base> {
        let chains = self.chains.iter().zip(&self.bases);
        chains.filter_map(|(chain, base)| base.filter(|_| has_effect(chain)))
    }
}

fn has_effect(chain: &Chain) -> bool {
    use crate::ruleset::{ChainKind, Policy};
    !chain.rules.is_empty() || chain.kind == ChainKind::Builtin(Policy::Drop)
}

/// `iptables-legacy nat`, `nft inet weir`.
impl fmt::Display for HeldTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.by.program(self.family), self.name)
    }
}
