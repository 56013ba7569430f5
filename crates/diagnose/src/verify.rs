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
mod wanted;

use std::net::IpAddr;

use netsys::links;
use netsys::probe::{Addresses, Tap, Wire, can_be};
use netsys::rules::{Session, look};
use rules::{Family, Installed, Mentions};
use runtime::random::Random;

pub use self::report::{Finding, Outcome, Report};
pub use self::wanted::{Error, Question};
use crate::verify::candidates::Ground;
use crate::verify::cause::Cause;
use crate::verify::choice::{Probe, choose};
use crate::verify::journeys::Scene;
use crate::verify::judge::Ears;
use crate::verify::proxy::Proxies;
use crate::verify::wanted::Wanted;

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
            &|port| proxies.is_running(port),
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
        let scene = Scene {
            wire: &self.wire,
            wanted: self.wanted,
            proxies: &proxies,
            patience: self.question.patience,
        };
        let (journeys, notes) = journeys::all(&scene, &shown, &beyond, &mut random)?;
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
