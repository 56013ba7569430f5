//! Which rule did it, and what is wrong with the rules where a probe went wrong: by what is installed, and by the
//! difference between that and what should be.

use std::net::SocketAddr;

use netsys::probe::Wire;
use netsys::rules::{Backend, Session};
use rules::ruleset::Ruleset;
use rules::{Family, Fate, Installed, Origin, asked, evaluate::Step};

use super::choice::Probe;
use super::judge::{self, Arrival};
use super::proxy::Proxies;
use super::report::{Finding, Outcome};
use super::wanted::Wanted;

/// What is known of the rules.
pub(super) struct Cause<'a> {
    before: &'a Installed,
    after: &'a Installed,
    wanted: &'a Wanted,
    /// What is not as it should be, by family.
    differences: Vec<(Family, String)>,
}

impl<'a> Cause<'a> {
    /// `before` and `after` were read around the probes.
    pub(super) fn new(
        before: &'a Installed,
        after: &'a Installed,
        wanted: &'a Wanted,
        session: &Session,
    ) -> Self {
        let own = session.own();
        let families = wanted.plan.families.iter();
        let mut differences: Vec<_> = families
            .flat_map(|&family| {
                let of_family = own.rules.iter().filter(|(_, held)| held.family == family);
                let mut held = of_family.peekable();
                if held.peek().is_none() && wanted.rules(family).is_some_and(|rules| !rules.tables.is_empty())
                {
                    return vec![(family, "no rule of Weir's is installed".to_owned())];
                }
                held.flat_map(|(backend, held)| differences(*backend, held, wanted))
                    .map(|text| (family, text))
                    .collect()
            })
            .collect();
        let routes = wanted.plan.policy_routes.iter();
        let missing = routes.filter(|route| !own.policy_routes.contains(route));
        differences.extend(missing.map(|route| (route.family, format!("not Weir's, or missing: {route}"))));
        Self {
            before,
            after,
            wanted,
            differences,
        }
    }

    /// What a probe came to.
    pub(super) fn finding(&self, probe: &Probe, arrival: &Arrival, proxies: &Proxies) -> Finding {
        let installed = self.before.evaluate_from(&probe.packet, &probe.cgroups());
        let step = installed.decided_by();
        let counted = step.and_then(|step| self.counted(step));
        let (verdict, problem) = match judge::judge(probe, arrival) {
            // What was seen may be either; the rule that should decide says that it did, or another one does.
            (Outcome::NotProbed, _) if *arrival == Arrival::Ambiguous && counted == Some(true) => {
                match installed.fate == probe.expected.fate {
                    true => (Outcome::Proven, None),
                    false => (
                        Outcome::Broken,
                        Some(format!("should go {}", judge::expected(&probe.expected.fate))),
                    ),
                }
            }
            // It is captured; that no DNS proxy runs is a finding of its own.
            (Outcome::Broken, _) if is_led_to_dns(probe, arrival, proxies) => (Outcome::Proven, None),
            judged => judged,
        };
        let why = problem.map(|problem| match verdict {
            Outcome::Broken => format!("{problem}. {}", self.cause(probe, &installed.fate, step)),
            _ => problem,
        });
        let family = Family::of(probe.packet.destination);
        Finding {
            probe: probe.name().to_owned(),
            family: family.to_string(),
            sent: sent(probe),
            arrived: arrival.text(|port| proxies.name(family, port)),
            rule: step.map(|step| self.name(step)).unwrap_or_default(),
            counted,
            verdict,
            why,
        }
    }

    fn cause(&self, probe: &Probe, installed: &Fate, step: Option<&Step>) -> String {
        if *installed == probe.expected.fate {
            return "By the rules it should; look for another filter (eBPF programs, tc), at the routes (ip rule), and \
                    at what listens"
                .to_owned();
        }
        match step {
            Some(step) if !is_ours(step) => {
                format!("In the way, and not Weir's: {}:{}", self.name(step), step.rule)
            }
            _ => match probe.expected.decided_by() {
                Some(rule) => format!("What should decide is not there, or comes too late: {rule}"),
                None => "A rule decides where none should".to_owned(),
            },
        }
    }

    /// `iptables-nft nat WEIR_OUTPUT 5 (everything else)`.
    fn name(&self, step: &Step) -> String {
        let by = self.before.tables.get(step.at.table);
        let program = by.map_or("", |table| table.by.program(table.family));
        let purpose = match step.purpose() {
            "" => String::new(),
            purpose => format!(" ({purpose})"),
        };
        format!("{program} {} {} {}{purpose}", step.table, step.chain, step.number)
    }

    fn counted(&self, step: &Step) -> Option<bool> {
        let of = |installed: &Installed| Some(installed.note(step.at)?.counter?.packets);
        Some(of(self.after)? > of(self.before)?)
    }

    /// The command that makes the rules as they should be, where they are not.
    pub(super) fn remedy(&self) -> Option<String> {
        (!self.differences.is_empty()).then(|| self.wanted.remedy.clone())
    }

    /// What differs from what should be, each a finding: something is wrong where a probe has shown it, and else it
    /// makes a difference that no probe could show.
    pub(super) fn differences(&self, is_broken: bool) -> Vec<Finding> {
        let finding = |(family, what): &(Family, String)| Finding {
            probe: "the rules".to_owned(),
            family: family.to_string(),
            sent: String::new(),
            arrived: String::new(),
            rule: String::new(),
            counted: None,
            verdict: if is_broken {
                Outcome::Broken
            } else {
                Outcome::NotProbed
            },
            why: Some(what.clone()),
        };
        self.differences.iter().map(finding).collect()
    }
}

/// Whether it is led to where the DNS proxy would listen, as it should be, and nobody does.
fn is_led_to_dns(probe: &Probe, arrival: &Arrival, proxies: &Proxies) -> bool {
    match (probe.expected.fate, arrival) {
        (Fate::Redirect { port }, Arrival::Closed(at)) => port == *at && proxies.is_dns(port),
        _ => false,
    }
}

/// Whether it is a rule of Weir's.
fn is_ours(step: &Step) -> bool {
    let is_of_iptables = step.chain.starts_with(rules::ruleset::OWN_CHAIN_PREFIX) || step.rule.is_own();
    is_of_iptables || step.table.ends_with(&format!(" {}", rules::nft::TABLE))
}

/// Rules that are not there, and rules that should not be.
fn differences(backend: Backend, held: &Ruleset, wanted: &Wanted) -> Vec<String> {
    let rendered = match backend {
        Backend::Nft => rules::nft::render(&wanted.plan),
        _ => rules::render(&wanted.plan),
    };
    let Some(expected) = rendered.iter().find(|ruleset| ruleset.family == held.family) else {
        return vec![];
    };
    let missing = beyond(expected, held).map(|rule| format!("missing: {rule}"));
    let surplus = beyond(held, expected).map(|rule| format!("nobody asked for: {rule}"));
    missing.chain(surplus).collect()
}

/// Rules of the one that the other has not.
fn beyond<'a>(one: &'a Ruleset, other: &'a Ruleset) -> impl Iterator<Item = String> + 'a {
    one.tables.iter().flat_map(move |table| {
        let chains = table.chains.iter().filter(|chain| chain.name != asked::CHAIN);
        chains.flat_map(move |chain| {
            let there = other
                .table(table.name)
                .and_then(|table| table.chain(&chain.name))
                .map_or(&[][..], |chain| &chain.rules);
            let lacking = chain.rules.iter().filter(|rule| !there.contains(rule));
            lacking.map(move |rule| format!("{} {}{rule}", table.name.as_str(), chain.name))
        })
    })
}

/// Who sends it to where.
fn sent(probe: &Probe) -> String {
    let packet = &probe.packet;
    let by = match packet.device.as_str() {
        "lo" | Wire::DEVICE => String::new(),
        name => format!(" by {name}"),
    };
    let who = match packet.origin {
        Origin::Remote => format!("from {}", packet.source),
        Origin::Socket { uid, gid, mark } => {
            let mark = if mark == 0 {
                String::new()
            } else {
                format!(" mark {mark:#x}")
            };
            let source = match packet.source {
                ip if ip == model::ports::PASSTHROUGH_V4 || ip == model::ports::PASSTHROUGH_V6 => {
                    format!(" from {ip}")
                }
                _ => String::new(),
            };
            let gid = if gid == uid {
                String::new()
            } else {
                format!(" gid {gid}")
            };
            let seat = match &probe.seat {
                Some(seat) => format!(" in {}", seat.name),
                None => String::new(),
            };
            format!("uid {uid}{gid}{mark}{seat}{source}")
        }
    };
    let to = SocketAddr::new(packet.destination, packet.destination_port);
    format!("{who}{by} to {to}")
}

fn not_probed(why: String) -> Finding {
    Finding {
        probe: "the rules".to_owned(),
        family: "IPv4, IPv6".to_owned(),
        sent: String::new(),
        arrived: String::new(),
        rule: String::new(),
        counted: None,
        verdict: Outcome::NotProbed,
        why: Some(why),
    }
}

/// Rules that could not be read.
pub(super) fn unread(why: &str) -> Finding {
    not_probed(format!(
        "{why}; what these rules do to other packets than the probes is not known"
    ))
}

/// What nothing could be sent by or from, with the reason.
pub(super) fn lacking(what: &str) -> Finding {
    not_probed(what.to_owned())
}
