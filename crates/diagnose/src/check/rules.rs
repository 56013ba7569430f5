//! Firewall rules of others, held against ours: packets are followed through what would be there, ours beside theirs,
//! and through ours alone; where the two differ, the rule that decided is named. Rules of other meshes are known by
//! the names of their chains and tables.

use std::fmt::Write;

use model::{ErrorName, Severity};
use netsys::rules::{Backend, Choice};
use rules::beside::{beside, is_own_rule, is_own_table};
use rules::evaluate::At;
use rules::installed::{HeldTable, Writer};
use rules::ruleset::{ChainKind, Policy};
use rules::{Fate, Installed, Intent, Plan, Ruleset, Verdict};

use super::ground::{Ground, ways};
use super::journeys::{Journey, Traffic, journeys};
use super::{Finding, Report};

/// Whose chains and tables begin, or are called, so.
const MESHES: [(&str, &str); 8] = [
    ("ISTIO_", "Istio"),
    ("istio-proxy-", "Istio"),
    ("PROXY_INIT_", "Linkerd"),
    ("linkerd", "Linkerd"),
    ("KUMA_", "Kuma"),
    ("MESH_", "Kuma"),
    ("CONSUL_", "Consul"),
    ("CILIUM_", CILIUM),
];
const CILIUM: &str = "Cilium";

pub(super) fn look(ground: &Ground, report: &mut Report) {
    let Some(installed) = &ground.installed else {
        // Said where they could not be read.
        return;
    };
    for hidden in &ground.hidden {
        report.findings.push(Finding {
            severity: Severity::Warning,
            name: ErrorName::RulesHidden,
            subject: "the packet filter".to_owned(),
            found: hidden.clone(),
            why: "what those rules do with captured traffic cannot be told".to_owned(),
            fix: "install the program, and check again".to_owned(),
        });
    }
    report.findings.extend(meshes(installed));
    let rules = installed.tables.iter().flat_map(|table| &table.chains);
    let count: usize = rules.map(|chain| chain.rules.len()).sum();
    let Ok(plan) = rules::plan(&ground.intent, &ground.facts) else {
        // Said where it is tried.
        return;
    };
    let journeys = journeys(Traffic {
        intent: &ground.intent,
        families: &ground.families(),
        ways: &ground.ways,
        installed,
    });
    let wanted = wanted(&ground.choices, &plan);
    let conflicts = conflicts(&beside(installed, &wanted), &wanted, &journeys);
    // Those of a mesh have been said once for the whole of it.
    let others = conflicts.into_iter().filter(|conflict| !conflict.is_of_mesh);
    report.findings.extend(others.map(|conflict| conflict.finding));
    let saw = format!("{count} rules; {} packets followed through them", journeys.len());
    report.looked("firewall rules", saw);
}

/// Rules of others that decide about what was asked for, in the calling thread's namespace, which holds the plan's
/// rules already; `installed` is all that is there. The kernel is asked for routes alone.
#[must_use]
pub fn foreign(intent: &Intent, plan: &Plan, choices: &[Choice], installed: &Installed) -> Vec<Finding> {
    let ways = ways();
    let journeys = journeys(Traffic {
        intent,
        families: &plan.families,
        ways: &ways,
        installed,
    });
    let conflicts = conflicts(installed, &wanted(choices, plan), &journeys);
    conflicts.into_iter().map(|conflict| conflict.finding).collect()
}

/// The plan's rules with what would write them.
fn wanted(choices: &[Choice], plan: &Plan) -> Vec<(Writer, Ruleset)> {
    let (by_iptables, by_nft) = (rules::render(plan), rules::nft::render(plan));
    let of = |choice: &Choice| {
        let (writer, rendered) = match choice.backend {
            Backend::Nft => (Writer::Nft, &by_nft),
            Backend::IptablesNft => (Writer::IptablesNft, &by_iptables),
            Backend::IptablesLegacy => (Writer::IptablesLegacy, &by_iptables),
            Backend::Iptables => (Writer::Iptables, &by_iptables),
        };
        let ruleset = rendered.iter().find(|ruleset| ruleset.family == choice.family)?;
        Some((writer, ruleset.clone()))
    };
    choices.iter().filter_map(of).collect()
}

/// Which mesh's a name is.
fn mesh_of(name: &str) -> Option<&'static str> {
    let is = |(start, _): &&(&str, &str)| name.starts_with(start);
    MESHES.iter().find(is).map(|(_, mesh)| *mesh)
}

/// The mesh that a table, or a chain in it, belongs to.
fn mesh_at(table: &HeldTable, chain: usize) -> Option<&'static str> {
    let plain = table.name.rsplit(' ').next().unwrap_or_default();
    mesh_of(plain).or_else(|| table.chains.get(chain).and_then(|chain| mesh_of(&chain.name)))
}

/// One finding for each other mesh.
fn meshes(installed: &Installed) -> Vec<Finding> {
    let mut found: Vec<(&str, Vec<String>, bool)> = vec![];
    for table in &installed.tables {
        for (number, chain) in table.chains.iter().enumerate() {
            let Some(mesh) = mesh_at(table, number) else {
                continue;
            };
            let jumps = table.chains.iter().flat_map(|chain| &chain.rules);
            let is_in_use = table.bases[number].is_some()
                || jumps
                    .filter_map(|rule| rule.target.chain())
                    .any(|to| to == chain.name);
            let place = format!("{table} {}", chain.name);
            match found.iter_mut().find(|(known, ..)| *known == mesh) {
                Some((_, places, any)) => {
                    places.push(place);
                    *any |= is_in_use;
                }
                None => found.push((mesh, vec![place], is_in_use)),
            }
        }
    }
    found
        .into_iter()
        .map(|(mesh, places, used)| other_mesh(mesh, &places, used))
        .collect()
}

fn other_mesh(mesh: &str, places: &[String], is_in_use: bool) -> Finding {
    let (first, others) = (
        places.first().map_or("", String::as_str),
        places.len().saturating_sub(1),
    );
    let mut found = format!("{mesh} has rules here: {first}");
    if others > 0 {
        // Writing to a string cannot fail.
        let _ = write!(found, " and {others} more");
    }
    let (why, fix) = match mesh {
        CILIUM => (
            "where Cilium balances services in its socket hook, a connection has its endpoint's address before any \
             rule sees it",
            "set socketLB.hostNamespaceOnly=true in Cilium, so that the addresses of services reach Weir",
        ),
        _ if is_in_use => (
            "two meshes would capture the same connections, and whichever rule comes first has them",
            "make the pod anew without the other mesh, or take its rules out (iptables-save names them; flush and \
             delete each of its chains and the jumps to it, or delete its nft tables)",
        ),
        _ => (
            "nothing leads to these chains now, but its tools take them for an installation and may act on them",
            "delete the chains (iptables -t TABLE -F CHAIN; -X CHAIN), or make the pod anew",
        ),
    };
    let severity = if is_in_use && mesh != CILIUM {
        Severity::Error
    } else {
        Severity::Warning
    };
    Finding {
        severity,
        name: ErrorName::OtherMesh,
        subject: format!("rules of {mesh}"),
        found,
        why: why.to_owned(),
        fix: fix.to_owned(),
    }
}

/// A rule of others that makes a difference.
struct Conflict {
    is_of_mesh: bool,
    finding: Finding,
}

/// One for each such rule; `together` is ours beside theirs.
fn conflicts(together: &Installed, wanted: &[(Writer, Ruleset)], journeys: &[Journey]) -> Vec<Conflict> {
    let alone = beside(&Installed::default(), wanted);
    let theirs = beside(together, &[]);
    let mut found: Vec<(Option<At>, Vec<&Journey>, Fate, Verdict)> = vec![];
    for journey in journeys {
        let meant = alone.evaluate(&journey.packet).fate;
        let verdict = together.evaluate(&journey.packet);
        if verdict.fate == meant {
            continue;
        }
        // What others forbid anyway is their business, and not in Weir's way.
        let is_dropped = |fate| matches!(fate, Fate::Drop | Fate::Reject);
        let without = journey
            .without
            .as_ref()
            .map(|packet| theirs.evaluate(packet).fate);
        if is_dropped(verdict.fate) && without.is_some_and(is_dropped) {
            continue;
        }
        let at = verdict.decided_by().map(|step| step.at);
        match found.iter_mut().find(|(known, ..)| *known == at) {
            Some((_, others, ..)) => others.push(journey),
            None => found.push((at, vec![journey], meant, verdict)),
        }
    }
    found
        .into_iter()
        .filter_map(|(at, journeys, meant, verdict)| conflict(together, at, &journeys, meant, &verdict))
        .collect()
}

fn conflict(
    together: &Installed,
    at: Option<At>,
    journeys: &[&Journey],
    meant: Fate,
    verdict: &Verdict,
) -> Option<Conflict> {
    let table = at.and_then(|at| Some((together.tables.get(at.table)?, at)));
    let decided = verdict.decided_by().zip(table);
    let (subject, rule) = match decided {
        Some((step, (table, at))) => {
            let text = together
                .note(at)
                .map(|note| note.text.as_str())
                .filter(|text| !text.is_empty());
            let text = text.map_or_else(|| format!("{}", step.rule).trim().to_owned(), str::to_owned);
            (format!("{table} {} rule {}", step.chain, step.number), text)
        }
        None => dropping_policy(together, verdict)?,
    };
    let whose = at.is_some_and(|at| is_own_rule(together, at));
    let first = journeys.first().map_or("", |journey| journey.what.as_str());
    let more = match journeys.len() {
        0 | 1 => String::new(),
        2 => " (1 other packet fares the same)".to_owned(),
        many => format!(" ({} other packets fare the same)", many - 1),
    };
    let name = match verdict.fate {
        Fate::Unknown => ErrorName::RuleUnknown,
        _ => ErrorName::ForeignRule,
    };
    let (severity, why) = match verdict.fate {
        Fate::Unknown if whose => (
            Severity::Warning,
            format!("whether another rule comes before it cannot be told for {first}{more}"),
        ),
        Fate::Unknown => (
            Severity::Warning,
            format!("it cannot be told what it does with {first}{more}"),
        ),
        fate => (
            Severity::Error,
            format!("{first} should {}, and {}{more}", should(meant), does(fate)),
        ),
    };
    Some(Conflict {
        is_of_mesh: table.is_some_and(|(table, at)| is_mesh_rule(table, at)),
        finding: Finding {
            severity,
            name,
            subject,
            found: rule,
            why,
            fix: fix(verdict.fate).to_owned(),
        },
    })
}

fn is_mesh_rule(table: &HeldTable, at: At) -> bool {
    let chain = table.chains.get(at.chain);
    let target = chain
        .and_then(|chain| chain.rules.get(at.rule))
        .and_then(|rule| rule.target.chain());
    mesh_at(table, at.chain).is_some() || target.is_some_and(|to| mesh_of(to).is_some())
}

/// A chain of others at whose end packets are dropped: which of several it was is not told.
fn dropping_policy(together: &Installed, verdict: &Verdict) -> Option<(String, String)> {
    if verdict.fate != Fate::Drop {
        return None;
    }
    let tables = together.tables.iter().filter(|table| !is_own_table(table));
    let mut drops = tables.flat_map(|table| {
        let chains = table.chains.iter();
        let dropping = chains.filter(|chain| chain.kind == ChainKind::Builtin(Policy::Drop));
        dropping.map(move |chain| format!("{table} {}", chain.name))
    });
    let first = drops.next()?;
    Some((first, "its policy is to drop what no rule accepts".to_owned()))
}

fn should(fate: Fate) -> String {
    match fate {
        Fate::Redirect { port } | Fate::Tproxy { port } => format!("reach the proxy on port {port}"),
        Fate::Dnat { to, port } => format!("reach {to}, port {port}"),
        Fate::Direct => "pass".to_owned(),
        Fate::Drop | Fate::Reject => "be dropped".to_owned(),
        Fate::Split | Fate::Unknown => "be decided".to_owned(),
    }
}

fn does(fate: Fate) -> String {
    match fate {
        Fate::Redirect { port } | Fate::Tproxy { port } => format!("goes to port {port}"),
        Fate::Dnat { to, port } => format!("is sent to {to}, port {port}"),
        Fate::Split => "goes one of several ways, by chance".to_owned(),
        Fate::Direct => "goes past it".to_owned(),
        Fate::Drop => "is dropped".to_owned(),
        Fate::Reject => "is refused".to_owned(),
        Fate::Unknown => "nobody knows".to_owned(),
    }
}

fn fix(fate: Fate) -> &'static str {
    match fate {
        Fate::Drop | Fate::Reject => {
            "accept TCP to the proxy's ports, 15001 and 15006 (after the redirect they are the destination), and what the \
             proxy itself sends"
        }
        Fate::Unknown => {
            "look at the rule; once Weir's rules are in, `weir verify` sends the packets and sees"
        }
        _ => {
            "take the rule out, put it behind Weir's (add it after weir init), or exclude that traffic from capture knowingly (-x, -o, -d)"
        }
    }
}
