//! `weir verify`: whether a namespace is captured as was asked, shown by packets that are sent through it. Comes
//! in: what was asked for, or where the rules keep it. Goes out: a [`Report`]. Acts on the namespace of the calling
//! thread, leaves nothing in it, and sends nothing out of it.
//!
//! What should hold comes from the flags alone: they make the plan, the plan makes the rules that there should
//! be, and from these come the packets, at least one for each rule, and where each should go. What is installed
//! says only which rule did it.

mod candidates;
mod cause;
mod choice;
mod journeys;
mod judge;
mod proxy;
mod report;
mod roundtrip;
mod send;

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use netsys::probe::{Addresses, Tap, Wire, can_be};
use netsys::rules::{Session, look};
use netsys::{links, netlink};
use rules::intent::Place;
use rules::plan::Stack;
use rules::{Facts, Family, Installed, Intent, Mentions, Plan, Ruleset, asked};
use runtime::random::Random;

pub use self::report::{Finding, Outcome, Report};
use crate::verify::candidates::Ground;
use crate::verify::cause::Cause;
use crate::verify::choice::{Probe, choose};
use crate::verify::judge::Ears;
use crate::verify::proxy::Proxies;

/// What is to be verified.
#[derive(Clone, Debug)]
pub struct Question {
    /// What was asked for; without it, what the rules keep of it.
    pub intent: Option<Intent>,
    /// Whether no proxy is meant to run yet, so that its absence is no finding.
    pub before_proxy: bool,
    /// How long an answer may take.
    pub patience: Duration,
}

/// Why nothing could be verified.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody says what should hold.
    #[error(
        "nothing is captured here: there is no rule of Weir's in this namespace; to have it verified against flags of \
         weir init, give them after `--`: weir verify -- --sidecar"
    )]
    NothingInstalled,
    /// The rules do not say what they are for.
    #[error(
        "Weir's rules are here, but what they were made from is not, or was written by another version; give the flags \
         of weir init after `--`: weir verify -- --sidecar"
    )]
    NothingAsked,
    /// The flags ask for nothing.
    #[error("nothing is to be captured by these flags, so there is nothing to verify")]
    NothingWanted,
    /// It cannot be done here.
    #[error("{0}")]
    Mistaken(String),
    /// The rules could not be read.
    #[error("cannot read the rules")]
    Rules(#[from] netsys::rules::Error),
    /// The wire could not be laid.
    #[error(
        "cannot lay the probes' wire: that needs CAP_NET_ADMIN and CAP_NET_RAW here (securityContext.capabilities.add: \
         [NET_ADMIN, NET_RAW]), and a kernel with veth"
    )]
    Wire(#[from] netlink::Error),
    /// A socket failed.
    #[error("cannot send or see packets: that needs CAP_NET_ADMIN and CAP_NET_RAW")]
    Socket(#[from] io::Error),
}

/// Sends the probes and says what became of them.
///
/// # Errors
/// Where nothing could be verified; what is found to be broken is no error.
pub fn verify(question: &Question) -> Result<Report, Error> {
    // Without the rights for it, rules would not be seen either.
    Tap::open(Addresses::CHOICES[0])?;
    // Nobody changes the rules meanwhile.
    let session = Session::open(None)?;
    let wanted = Wanted::find(question, &session)?;
    let own = links::addresses()?;
    let local = candidates::local(&wanted.intent, &own);
    let wire = Wire::lay(wanted.addresses(), &wanted.families, &local)?;
    let run = Run {
        question,
        wanted: &wanted,
        session: &session,
        tap: Tap::open(wire.addresses)?,
        own,
        local,
        wire,
    };
    run.all()
}

/// What should hold here.
struct Wanted {
    intent: Intent,
    plan: Plan,
    /// A rule for each member of a list, whatever the back-end.
    rules: Vec<Ruleset>,
    /// Those that the namespace speaks.
    families: Vec<Family>,
    asked: String,
    asked_by: String,
    notes: Vec<String>,
}

impl Wanted {
    fn find(question: &Question, session: &Session) -> Result<Self, Error> {
        let mut notes = vec![];
        let (mut intent, asked_by) = match &question.intent {
            Some(intent) => (intent.clone(), "by the flags given here".to_owned()),
            None => (kept(session, &mut notes)?, "kept with the rules".to_owned()),
        };
        let asked = asked::words(&intent).unwrap_or_default();
        // It is looked at and not changed.
        intent.place = Place::Host;
        if intent.captures_nothing() {
            return Err(Error::NothingWanted);
        }
        let facts = Facts {
            cgroups: netsys::cgroups::facts(&intent),
            ..session.facts(&intent)?
        };
        let plan = rules::plan(&intent, &facts).map_err(|mistakes| {
            let all: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
            Error::Mistaken(all.join("; "))
        })?;
        let speaks = |family: &&Family| **family == Family::V4 || facts.ipv6 != Stack::Off;
        let families = plan.families.iter().filter(speaks).copied().collect();
        notes.extend(plan.notes.iter().cloned());
        Ok(Self {
            rules: rules::render(&plan),
            asked,
            intent,
            plan,
            families,
            asked_by,
            notes,
        })
    }

    fn rules(&self, family: Family) -> Option<&Ruleset> {
        self.rules.iter().find(|ruleset| ruleset.family == family)
    }

    /// Addresses for the wire that the flags do not leave alone.
    fn addresses(&self) -> Addresses {
        let excluded = &self.intent.outbound.exclude_cidrs;
        let is_plain = |addresses: &Addresses| {
            Family::ALL.iter().all(|family| {
                let ends = [addresses.near(*family), addresses.far(*family)];
                let sources = &self.intent.inbound.exclude_sources;
                let mut nets = excluded.iter().chain(sources);
                !nets.any(|net| ends.iter().any(|ip| net.contains(ip)))
            })
        };
        let mut choices = Addresses::CHOICES.into_iter();
        choices.find(is_plain).unwrap_or(Addresses::CHOICES[0])
    }
}

/// What was asked for when the rules were written.
fn kept(session: &Session, notes: &mut Vec<String>) -> Result<Intent, Error> {
    let own = session.own();
    if own.rules.is_empty() {
        return Err(Error::NothingInstalled);
    }
    let words = own.rules.iter().find_map(|(_, ruleset)| asked::kept(ruleset));
    let (flags, has_services) = words
        .as_deref()
        .and_then(asked::flags)
        .ok_or(Error::NothingAsked)?;
    let mut intent = flags.intent().map_err(|_| Error::NothingAsked)?;
    if has_services {
        intent.outbound.services = Some(cause::services(&own.rules));
        notes.push(
            "which services are captured is taken from the rules themselves, as the flags do not say"
                .to_owned(),
        );
    }
    Ok(intent)
}

/// One verification.
struct Run<'a> {
    question: &'a Question,
    wanted: &'a Wanted,
    session: &'a Session,
    wire: Wire,
    tap: Tap,
    own: Vec<IpAddr>,
    /// Addresses that are the namespace's own to packets of the wire.
    local: Vec<IpAddr>,
}

/// What is sent for one family.
struct Batch {
    family: Family,
    probes: Vec<Probe>,
    untold: Vec<String>,
}

impl Run<'_> {
    fn all(&self) -> Result<Report, Error> {
        let before = look()?;
        let mut random = Random::from_system();
        let proxies = Proxies::find(self.wanted)?;
        let beyond = self.beyond(&before.installed);
        let by_rule = by_rule(&before.installed);
        let batches = self.batches(&beyond, &by_rule, &proxies, &mut random);
        let sent: Vec<Probe> = batches.iter().flat_map(|batch| batch.probes.clone()).collect();
        let observed = send::send(
            &self.wire,
            &self.tap,
            &sent,
            random.bits() as u32,
            self.question.patience,
        )?;
        let after = look()?;
        let listens = |to| proxies.listens(to);
        let ears = Ears {
            listens: &listens,
            by_tproxy: self.wanted.intent.inbound.tproxy().is_some(),
        };
        let causes = Cause::new(&before.installed, &after.installed, self.wanted, self.session);
        let mut findings = vec![];
        for (probe, observed) in sent.iter().zip(&observed) {
            let arrival = judge::arrival(probe, observed, &ears);
            findings.push(causes.finding(probe, &arrival, &proxies));
        }
        let shown: Vec<_> = sent.iter().zip(&findings).collect();
        let (journeys, notes) = journeys::all(self, &proxies, &shown, &beyond, &mut random)?;
        findings.extend(journeys);
        findings.extend(proxies.findings(self.question.before_proxy));
        let is_broken = findings.iter().any(|finding| finding.verdict == Outcome::Broken);
        findings.extend(causes.differences(is_broken));
        for batch in &batches {
            let is_said = |rule: &&String| proxies.lacks_dns() && is_about_dns(rule);
            let rules = batch.untold.iter().filter(|rule| !is_said(rule));
            findings.extend(rules.map(|rule| untold(batch.family, rule)));
        }
        findings.extend(before.hidden.iter().map(|hidden| cause::unread(hidden)));
        findings.extend(beyond.devices.iter().map(|name| cause::of_device(name)));
        Ok(Report::new(
            self.wanted.asked.clone(),
            self.wanted.asked_by.clone(),
            findings,
            self.wanted.notes.iter().cloned().chain(notes).collect(),
        ))
    }

    /// What is spoken of by rules that are there and not by those that should be.
    fn beyond(&self, installed: &Installed) -> Mentions {
        let expected: String = self.wanted.rules.iter().map(ToString::to_string).collect();
        let notes = installed
            .tables
            .iter()
            .flat_map(|table| table.notes.iter().flatten());
        let texts: Vec<_> = notes.map(|note| note.text.as_str()).collect();
        let mut beyond = Mentions::of(&texts.join("\n")).beyond(&Mentions::of(&expected));
        // These are what every packet here is like.
        beyond.devices.retain(|name| name != "lo" && name != Wire::DEVICE);
        beyond
    }

    fn batches(
        &self,
        beyond: &Mentions,
        by_rule: &[Mentions],
        proxies: &Proxies,
        random: &mut Random,
    ) -> Vec<Batch> {
        let mut ports = proxies.free_ports(random, beyond, &self.wanted.intent);
        let families = self.wanted.families.iter();
        families
            .filter_map(|&family| {
                let wanted = self.wanted.rules(family)?;
                let ground = Ground {
                    intent: &self.wanted.intent,
                    addresses: self.wire.addresses,
                    own: &self.own,
                    local: &self.local,
                    beyond,
                    by_rule,
                    dns_answers: proxies.dns_answers,
                    free: [ports.next()?, ports.next()?],
                    can_be,
                };
                let chosen = choose(wanted, &candidates::of_family(&ground, family), &self.local);
                let mut probes = chosen.probes;
                // Each from a port of its own: what conntrack knows of one connection is not told of another.
                for probe in &mut probes {
                    if probe.packet.source_port == ground.free[1] {
                        probe.packet.source_port = ports.next()?;
                    }
                }
                Some(Batch {
                    family,
                    probes,
                    untold: chosen.untold,
                })
            })
            .collect()
    }
}

/// What each rule speaks of that Weir has not made and that asks for more than one thing.
fn by_rule(installed: &Installed) -> Vec<Mentions> {
    let notes = installed
        .tables
        .iter()
        .flat_map(|table| table.notes.iter().flatten());
    let foreign = notes.filter(|note| !note.text.contains(rules::ruleset::PURPOSE));
    let mentions = foreign.map(|note| Mentions::of(&note.text));
    mentions.filter(|mentions| mentions.kinds() > 1).collect()
}

/// Whether it decides about look-ups alone, which the finding about the DNS proxy speaks for.
fn is_about_dns(rule: &str) -> bool {
    rule.contains("weir: DNS") || rule.contains("DNS proxy") || rule.starts_with("raw OUTPUT -p udp") || {
        rule.starts_with("raw WEIR_OUTPUT") && rule.contains("-p udp")
    }
}

/// A rule that no probe told of.
fn untold(family: Family, rule: &str) -> Finding {
    let why = if rule.contains("--uid-owner") || rule.contains("--gid-owner") {
        "no packet could be sent that it decides about; for those of other users CAP_SETUID and CAP_SETGID are needed"
    } else {
        "no packet could be sent that it decides about"
    };
    Finding {
        probe: "a rule".to_owned(),
        family: family.to_string(),
        sent: String::new(),
        arrived: String::new(),
        rule: rule.to_owned(),
        counted: None,
        verdict: Outcome::NotProbed,
        why: Some(format!("{rule}: {why}")),
    }
}
