//! Rules as they are shown: where they are, by which program, what they have counted, and for those that did not
//! fit, which test failed.

use std::net::SocketAddr;

use rules::evaluate::{Asked, At, Step};
use rules::installed::{HeldTable, Writer};
use rules::ruleset::{Does, ForeignTarget, ForeignTest, Holds, Match, Rule, Target, Test};
use rules::{Family, Fate, Installed, Packet, Verdict};
use serde::Serialize;

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RuleStep {
    /// The program that shows it: `iptables-nft`, `nft`.
    pub program: &'static str,
    /// Its table: `nat`, `inet weir`.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// Its number there, from 1.
    pub number: usize,
    /// In the program's language.
    pub text: String,
    /// Packets that it has counted, where it counts.
    pub packets: Option<u64>,
}

impl RuleStep {
    /// The one at a place.
    pub(super) fn at(installed: &Installed, at: At) -> Option<Self> {
        let table = installed.tables.get(at.table)?;
        let note = installed.note(at)?;
        Some(Self {
            program: table.by.program(table.family),
            table: table.name.clone(),
            chain: table.chains.get(at.chain)?.name.clone(),
            number: note.number,
            text: note.text.clone(),
            packets: note.counter.map(|counter| counter.packets),
        })
    }

    /// Where it is: `iptables-nft nat OUTPUT 3`.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{} {} {} {}", self.program, self.table, self.chain, self.number)
    }

    /// `-p tcp -j DROP, 12 packets`.
    #[must_use]
    pub fn says(&self) -> String {
        match self.packets {
            Some(1) => format!("{} (1 packet)", self.text),
            Some(packets) => format!("{} ({packets} packets)", self.text),
            None => self.text.clone(),
        }
    }
}

/// The command that takes a rule out, for people to run.
pub(super) fn removal(installed: &Installed, at: At) -> String {
    let Some((table, rule)) = installed.tables.get(at.table).zip(RuleStep::at(installed, at)) else {
        return String::new();
    };
    match table.by {
        Writer::Nft => format!(
            "`nft -a list chain {} {}` shows its handle, `nft delete rule {} {} handle HANDLE` takes it out",
            rule.table, rule.chain, rule.table, rule.chain
        ),
        _ => format!(
            "`{} -t {} -D {} {}` takes it out",
            rule.program, rule.table, rule.chain, rule.number
        ),
    }
}

/// Whether a rule is Weir's own.
pub(super) fn is_ours(table: &HeldTable, chain: &str, rule: &Rule) -> bool {
    let says_so = rule
        .comment()
        .is_some_and(|text| text.starts_with(rules::ruleset::PURPOSE));
    says_so || chain.starts_with(rules::ruleset::OWN_CHAIN_PREFIX) || table.name.ends_with(" weir")
}

/// A rule that a packet was asked about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AskedRule {
    /// The rule.
    #[serde(flatten)]
    pub rule: RuleStep,
    /// Whether every test of it held.
    pub fits: bool,
    /// Why it did not fit, or cannot be said to; empty where it did.
    pub because: Vec<String>,
}

/// All of them, in order.
pub(super) fn asked(installed: &Installed, packet: &Packet, verdict: &Verdict) -> Vec<AskedRule> {
    let all = verdict.asked.iter();
    all.filter_map(|asked| one(installed, packet, asked)).collect()
}

fn one(installed: &Installed, packet: &Packet, asked: &Asked) -> Option<AskedRule> {
    let rule = installed.rule(asked.at)?;
    let failed = asked
        .failed
        .numbers()
        .filter_map(|number| rule.matches.get(number));
    let unknown = asked
        .unknown
        .numbers()
        .filter_map(|number| rule.matches.get(number));
    let chances = rule.matches.iter().filter_map(|found| match &found.test {
        Test::Foreign(ForeignTest {
            holds: Holds::ByChance(chance),
            ..
        }) => Some(match found.negated {
            true => 1.0 - chance.share(),
            false => chance.share(),
        }),
        _ => None,
    });
    let because: Vec<_> = failed
        .map(|found| format!("{}, but {}", written(found), met(found, packet, asked)))
        .chain(unknown.map(|found| format!("{} is not known here", written(found))))
        .chain(chances.map(|chance| format!("by chance, {:.1} %", 100.0 * chance)))
        .collect();
    Some(AskedRule {
        rule: RuleStep::at(installed, asked.at)?,
        fits: asked.failed.is_empty() && asked.unknown.is_empty(),
        because,
    })
}

/// Rules that failed by one test alone and would have decided otherwise.
pub(super) fn near_misses(installed: &Installed, packet: &Packet, verdict: &Verdict) -> Vec<AskedRule> {
    let near = |asked: &&Asked| {
        let by_one =
            !asked.met.is_about_source && asked.unknown.is_empty() && asked.failed.numbers().count() == 1;
        let target = installed.rule(asked.at).map(|rule| &rule.target);
        // What is asked about opens a connection, always.
        let is_other_kind = installed.rule(asked.at).is_some_and(|rule| {
            let failed = asked
                .failed
                .numbers()
                .filter_map(|number| rule.matches.get(number));
            failed.map(|found| &found.test).any(|test| *test == Test::Opens)
        });
        by_one && !is_other_kind && target.is_some_and(|target| decides_otherwise(target, verdict.fate))
    };
    let all = verdict.asked.iter().filter(near);
    all.filter_map(|asked| one(installed, packet, asked)).collect()
}

fn decides_otherwise(target: &Target, fate: Fate) -> bool {
    match target {
        Target::Redirect(port) => fate != Fate::Redirect { port: *port },
        Target::Tproxy { port, .. } => fate != Fate::Tproxy { port: *port },
        Target::Drop => fate != Fate::Drop,
        Target::Reject(_) => fate != Fate::Reject,
        Target::Accept | Target::Return => fate != Fate::Direct,
        Target::Jump(_) | Target::Goto(_) => fate == Fate::Direct,
        Target::Foreign(ForeignTarget {
            does: Does::Dnat(_), ..
        }) => !matches!(fate, Fate::Dnat { .. }),
        _ => false,
    }
}

fn written(found: &Match) -> String {
    let not = if found.negated { "! " } else { "" };
    format!("{not}{}", found.test)
}

/// What the packet has instead.
fn met(found: &Match, packet: &Packet, asked: &Asked) -> String {
    use rules::Origin;
    let owner = match packet.origin {
        Origin::Socket { uid, gid, .. } if !asked.met.is_inward => Some((uid, gid)),
        _ => None,
    };
    match &found.test {
        Test::Source(_) | Test::Sources(_) => format!("it comes from {}", packet.source),
        Test::Destination(_) | Test::Destinations(_) => format!("it goes to {}", destination(asked)),
        Test::InInterface(_) if !asked.met.is_inward => String::from("it is on its way out"),
        Test::OutInterface(_) if asked.met.is_inward => String::from("it is on its way in"),
        Test::InInterface(_) | Test::OutInterface(_) => format!("the device is {}", packet.device),
        Test::Protocol(_) => format!("it is {}", packet.protocol),
        Test::SourcePort(_) => format!("its source port is {}", packet.source_port),
        Test::DestinationPort(_) | Test::DestinationPorts(_) => {
            format!("the port is {}", asked.met.destination_port)
        }
        Test::DestinationServices(_) => match asked.met.destination {
            Some(to) => format!("it goes to {}", SocketAddr::new(to, asked.met.destination_port)),
            None => format!("it goes to port {} here", asked.met.destination_port),
        },
        Test::Uid(..) | Test::Uids(_) => owner.map_or_else(no_owner, |(uid, _)| format!("the uid is {uid}")),
        Test::Gid(..) | Test::Gids(_) => owner.map_or_else(no_owner, |(_, gid)| format!("the gid is {gid}")),
        Test::Mark(_) => format!("its mark is {:#x}", asked.met.mark),
        Test::ConnectionMark(_) => format!("its connection's mark is {:#x}", packet.connection_mark),
        Test::Opens => String::from("it opens a connection"),
        Test::State(_) => String::from("it opens a connection, which is NEW"),
        Test::Foreign(test) => met_by_others(&test.holds, packet, asked),
        _ => String::from("it does not hold"),
    }
}

/// The same of tests that only others' rules have.
fn met_by_others(holds: &Holds, packet: &Packet, asked: &Asked) -> String {
    match holds {
        Holds::SourceKind(_) => format!("it comes from {}, which is none", packet.source),
        Holds::DestinationKind(_) => format!("it goes to {}, which is none", destination(asked)),
        Holds::SourcePort(_) => format!("its source port is {}", packet.source_port),
        Holds::Flags { .. } => String::from("it opens a connection: SYN alone"),
        Holds::Owned => no_owner(),
        Holds::OriginalDestination(_) => format!("its connection is made to {}", packet.destination),
        Holds::OriginalPort(_) => format!("its connection is made to port {}", packet.destination_port),
        Holds::OneOf(rows) => match rows.iter().flatten().next() {
            None => String::from("there is none in it"),
            Some(_) => {
                let mut each: Vec<String> = vec![];
                for found in rows.first().into_iter().flatten() {
                    let one = met(found, packet, asked);
                    if !each.contains(&one) {
                        each.push(one);
                    }
                }
                each.join(" and ")
            }
        },
        Holds::Always | Holds::ByChance(_) => String::from("it does not hold"),
    }
}

/// Where it was going when the rule was asked.
fn destination(asked: &Asked) -> String {
    let to = asked.met.destination;
    to.map_or_else(
        || String::from("an address of this namespace"),
        |to| to.to_string(),
    )
}

fn no_owner() -> String {
    String::from("nobody here has made it")
}

/// Whether anything of that family is captured at all: redirected, or taken by TPROXY.
pub(super) fn captures(installed: &Installed, family: Family) -> bool {
    let rules = installed
        .of(family)
        .flat_map(|table| &table.chains)
        .flat_map(|chain| &chain.rules);
    rules
        .map(|rule| &rule.target)
        .any(|target| matches!(target, Target::Redirect(_) | Target::Tproxy { .. }))
}

/// What an expression of a deciding step is in words: `nft inet weir nat-output 5: …`.
pub(super) fn told(installed: &Installed, step: &Step) -> String {
    match RuleStep::at(installed, step.at) {
        Some(rule) => format!("{}: {}", rule.place(), rule.says()),
        None => step.to_string(),
    }
}
