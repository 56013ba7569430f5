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
mod lookups;
mod proxy;
mod report;
mod roundtrip;
mod seats;
mod send;
mod wanted;

use std::collections::BTreeSet;
use std::net::IpAddr;

use netsys::links;
use netsys::probe::{Addresses, Owner, Tap, Wire, can_be};
use netsys::rules::{Seen, Session, look};
use rules::{Family, Installed, Intent, Mentions};
use runtime::random::Random;

pub use self::report::{Finding, Outcome, Report};
pub use self::wanted::{Error, Question};
use crate::verify::candidates::Ground;
use crate::verify::cause::Cause;
use crate::verify::choice::{Probe, choose};
use crate::verify::journeys::Scene;
use crate::verify::judge::Ears;
use crate::verify::proxy::Proxies;
use crate::verify::seats::Seat;
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
    let before = look()?;
    let beyond = beyond(&wanted, &before.installed);
    let mut wire = Wire::lay(wanted.addresses(), &wanted.families, &local)?;
    let (seats, mut lacking) = seats::find(&wanted.intent);
    lacking.extend(lead_by_devices(&mut wire, &wanted.intent, &beyond));
    let run = Run {
        question,
        wanted: &wanted,
        session: &session,
        tap: Tap::open(wire.addresses)?,
        before,
        beyond,
        own,
        local,
        seats,
        lacking,
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
    /// Everybody's rules before the first probe.
    before: Seen,
    /// What these speak of and the flags do not.
    beyond: Mentions,
    own: Vec<IpAddr>,
    /// Addresses that are the namespace's own to packets of the wire.
    local: Vec<IpAddr>,
    /// Cgroups to send from.
    seats: Vec<Seat>,
    /// What nothing can be sent by or from, with the reason.
    lacking: Vec<String>,
}

/// What is sent for one family.
struct Batch {
    family: Family,
    probes: Vec<Probe>,
    untold: Vec<String>,
}

impl Run<'_> {
    fn all(&self) -> Result<Report, Error> {
        let before = &self.before;
        let mut random = Random::from_system();
        let proxies = Proxies::find(self.wanted, &self.seats)?;
        let by_rule = by_rule(&before.installed);
        let batches = self.batches(&by_rule, &proxies, &mut random);
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
        let (journeys, notes) = journeys::all(&scene, &shown, &self.beyond, &mut random)?;
        let look_ups = match proxies.dns_answers {
            true => lookups::all(&proxies, &shown, self.question.patience, &mut random),
            false => vec![],
        };
        findings.extend(journeys.into_iter().chain(look_ups));
        findings.extend(proxies.findings(self.question.before_proxy));
        let is_broken = findings.iter().any(|finding| finding.verdict == Outcome::Broken);
        findings.extend(causes.differences(is_broken));
        for batch in &batches {
            let is_answered = lookups::is_answered(&findings, batch.family);
            let is_said = |rule: &&String| match is_answered {
                true => lookups::decides_about_answers(rule),
                false => proxies.lacks_dns() && is_about_dns(rule),
            };
            let rules = batch.untold.iter().filter(|rule| !is_said(rule));
            let rules: Vec<_> = rules.map(|rule| untold(batch.family, rule)).collect();
            findings.extend(rules);
        }
        findings.extend(before.hidden.iter().map(|hidden| cause::unread(hidden)));
        findings.extend(self.lacking.iter().map(|what| cause::lacking(what)));
        Ok(Report {
            remedy: causes.remedy(),
            ..Report::new(
                self.wanted.asked.clone(),
                self.wanted.asked_by.clone(),
                findings,
                self.wanted.notes.iter().cloned().chain(notes).collect(),
            )
        })
    }

    fn batches(&self, by_rule: &[Mentions], proxies: &Proxies, random: &mut Random) -> Vec<Batch> {
        let mut ports = proxies.free_ports(random, &self.beyond, &self.wanted.intent);
        let families = self.wanted.families.iter();
        families
            .filter_map(|&family| {
                let wanted = self.wanted.rules(family)?;
                let ground = Ground {
                    intent: &self.wanted.intent,
                    addresses: self.wire.addresses,
                    own: &self.own,
                    local: &self.local,
                    beyond: &self.beyond,
                    by_rule,
                    devices: self.wire.devices(),
                    seats: &self.seats,
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

/// What is spoken of by rules that are there and not by those that should be.
fn beyond(wanted: &Wanted, installed: &Installed) -> Mentions {
    let expected: String = wanted.rules.iter().map(ToString::to_string).collect();
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

/// Has probes come and leave by the devices that rules speak of. Answers those that none can, with the reason. Those
/// that the flags name and that are not there yet are made; what a rule of others is about may never be there.
fn lead_by_devices(wire: &mut Wire, intent: &Intent, beyond: &Mentions) -> Vec<String> {
    let named = intent
        .devices
        .excluded
        .iter()
        .chain(&intent.devices.virtual_machines);
    let named: BTreeSet<_> = named.filter(|name| *name != "lo").collect();
    let foreign = beyond.devices.iter().filter(|name| !named.contains(name));
    let foreign = foreign.map(|name| (name, false));
    let all = named.iter().map(|name| (*name, true)).chain(foreign);
    let mut lacking = vec![];
    for (name, is_asked_for) in all {
        let whose = match is_asked_for {
            true => "rules",
            false => "rules that Weir has not made",
        };
        match wire.lead_by(name, is_asked_for) {
            Ok(device) => {
                let what = |lack| format!("{whose} speak of the device {name}, and nothing shows {lack}");
                lacking.extend(device.lacks.iter().map(what));
            }
            Err(why) => lacking.push(format!(
                "{whose} speak of the device {name}, and no probe comes or leaves by it: {why}"
            )),
        }
    }
    lacking
}

/// What each rule speaks of that Weir has not made and that asks for more than one thing.
fn by_rule(installed: &Installed) -> Vec<Mentions> {
    let notes = installed
        .tables
        .iter()
        .flat_map(|table| table.notes.iter().flatten());
    let foreign = notes.filter(|note| !note.text.contains(rules::ruleset::PURPOSE));
    let mentions = foreign.map(|note| Mentions::of(&note.text));
    let asks = |mentions: &Mentions| mentions.kinds() > 1 || !mentions.devices.is_empty();
    mentions.filter(asks).collect()
}

/// Whether it decides about look-ups alone, which the finding about the DNS proxy speaks for.
fn is_about_dns(rule: &str) -> bool {
    rule.contains("weir: DNS") || rule.contains("DNS proxy") || rule.starts_with("raw OUTPUT -p udp") || {
        rule.starts_with("raw WEIR_OUTPUT") && rule.contains("-p udp")
    }
}

/// A rule that no probe told of.
fn untold(family: Family, rule: &str) -> Finding {
    const SOMEBODY: Owner = Owner {
        uid: 65_534,
        gid: 65_534,
        mark: 0,
    };
    let is_about_owners = rule.contains("--uid-owner") || rule.contains("--gid-owner");
    let why = if rule.contains("weir: DNS without its proxy") {
        "it decides only while no DNS proxy answers, and one does"
    } else if rule.starts_with("raw WEIR_OUTPUT -p udp") {
        "it decides only about conntrack's zone, which no probe sees"
    } else if is_about_owners && !can_be(SOMEBODY) {
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
