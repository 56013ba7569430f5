//! Whether the kernel and the programs can do what the plan takes, by doing it in a namespace that is made for it and
//! vanishes: no feature is believed because a version or a module's name says so.

use std::collections::BTreeSet;

use model::{ErrorName, Severity};
use netsys::netns::Netns;
use netsys::rules::{Backend, Error, Lack, Missing, Session, lacking};
use rules::intent::{Families, InboundMode};
use rules::plan::Stack;
use rules::{Facts, Family, Intent, Mistake, Plan};

use super::ground::{Ground, chain};
use super::{Finding, Report};

pub(super) fn look(ground: &Ground, report: &mut Report) {
    if let InboundMode::Tproxy(_) = ground.intent.inbound.mode {
        report.findings.push(privilege());
    }
    match rules::plan(&ground.intent, &ground.facts) {
        Ok(_) => {}
        Err(mistakes) => {
            report.findings.extend(mistakes.iter().map(refused));
            return;
        }
    }
    if ground.choices.is_empty() {
        // Said where the rules could not be read, or refused above.
        return;
    }
    let mut tried = vec![];
    for backend in backends(ground) {
        let families: Vec<_> = ground
            .choices
            .iter()
            .filter(|choice| choice.backend == backend)
            .map(|choice| choice.family)
            .collect();
        match attempt(ground, backend, &families) {
            Ok(()) => tried.push(format!("{backend} takes the rules for {}", list(&families))),
            Err(Trial::NoNamespace(why)) => report.skipped(
                format!("whether {backend} takes the rules"),
                format!("trying it takes a network namespace of its own, which this process may not make ({why}): run as root"),
            ),
            Err(Trial::Refused(error, lacks)) => {
                let works = others(ground, backend, &families);
                report.findings.push(does_not_work(backend, &error, &lacks, &works));
            }
        }
    }
    if !tried.is_empty() {
        report.looked("back-end, tried in a namespace of its own", tried.join("; "));
    }
}

/// Each that would be used, once.
fn backends(ground: &Ground) -> Vec<Backend> {
    let mut all: Vec<Backend> = vec![];
    for choice in &ground.choices {
        if !all.contains(&choice.backend) {
            all.push(choice.backend);
        }
    }
    all
}

/// Why rules are not in.
enum Trial {
    NoNamespace(String),
    /// And the pieces that are refused, where it is a matter of these.
    Refused(Error, Vec<Lack>),
}

/// Puts the rules into a fresh namespace by that back-end, as `weir init` does.
fn attempt(ground: &Ground, backend: Backend, families: &[Family]) -> Result<(), Trial> {
    let netns = Netns::create().map_err(|error| Trial::NoNamespace(error.to_string()))?;
    let installed = netns.run(|| {
        let whole = |error| Trial::Refused(error, vec![]);
        let session = Session::open(Some(backend)).map_err(whole)?;
        let facts = session.facts(&ground.intent).map_err(whole)?;
        let plan = plan_for(ground, families, facts).map_err(whole)?;
        session.install(&plan).map(drop).map_err(|error| {
            let rulesets = match backend {
                Backend::Nft => rules::nft::render(&plan),
                _ => rules::render(&plan),
            };
            let lacks = lacking(backend, &rulesets);
            Trial::Refused(error, lacks)
        })
    });
    installed.unwrap_or_else(|error| Err(Trial::NoNamespace(error.to_string())))
}

/// What is wanted, for these families, of a namespace that is like this.
fn plan_for(ground: &Ground, families: &[Family], found: Facts) -> Result<Plan, Error> {
    let of = |family, stack| match families.contains(&family) {
        true => stack,
        false => Stack::Off,
    };
    let facts = Facts {
        ipv4: of(Family::V4, found.ipv4),
        ipv6: of(Family::V6, found.ipv6),
        cgroups: ground.facts.cgroups.clone(),
        ..found
    };
    let intent = Intent {
        families: Families::InUse,
        ..ground.intent.clone()
    };
    rules::plan(&intent, &facts).map_err(|mistakes| {
        let lines: Vec<_> = mistakes.iter().map(Mistake::to_string).collect();
        Error::Unusable(lines.join("; "))
    })
}

/// Other back-ends that do take the rules. Legacy iptables is not tried: that would load its modules into the
/// kernel, for everybody on the machine.
fn others(ground: &Ground, refused: Backend, families: &[Family]) -> Vec<Backend> {
    let candidates = [Backend::Nft, Backend::IptablesNft].into_iter();
    let others = candidates.filter(|backend| *backend != refused);
    others
        .filter(|backend| attempt(ground, *backend, families).is_ok())
        .collect()
}

fn list(families: &[Family]) -> String {
    let names: Vec<_> = families.iter().map(Family::to_string).collect();
    names.join(" and ")
}

fn does_not_work(backend: Backend, error: &Error, lacks: &[Lack], works: &[Backend]) -> Finding {
    let name = match error {
        Error::Unusable(_) | Error::Start { .. } => ErrorName::Backend,
        Error::Policy(_) => ErrorName::PolicyRoute,
        Error::Address(_) => ErrorName::PassthroughAddress,
        Error::Cgroups(_) => ErrorName::Privilege,
        Error::NotHeld { .. } => ErrorName::RulesNotHeld,
        _ => ErrorName::RulesRefused,
    };
    let mend = match lacks.is_empty() {
        true => "do what the message says".to_owned(),
        false => mend(lacks),
    };
    let fix = match works.first() {
        Some(other) => format!("{mend}; or use weir init --backend {other}, which takes the rules here"),
        None => mend,
    };
    Finding {
        severity: Severity::Error,
        name,
        subject: format!("back-end {backend}"),
        found: match lacks.is_empty() {
            true => chain(error),
            false => lacked(lacks),
        },
        why: "weir init would fail here, and the pod would not start".to_owned(),
        fix,
    }
}

/// `match owner is refused for IPv4 and IPv6 (iptables-nft-restore: ..)`: what it is, and what was said of the first.
fn lacked(lacks: &[Lack]) -> String {
    let mut names: Vec<&str> = lacks.iter().map(|lack| lack.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let one = |name: &&str| {
        let those = lacks.iter().filter(|lack| lack.name == *name);
        let families: Vec<_> = those.map(|lack| lack.family).collect();
        format!("{name} ({})", list(&families))
    };
    let all: Vec<_> = names.iter().map(one).collect();
    let is = if all.len() == 1 { "is" } else { "are" };
    let said = lacks.first().map_or("", |lack| lack.said.as_str());
    format!("{} {is} refused, each tried by itself: {said}", all.join(", "))
}

/// What brings them.
fn mend(lacks: &[Lack]) -> String {
    let (mut modules, mut packages) = (BTreeSet::new(), BTreeSet::new());
    for lack in lacks {
        match &lack.by {
            Missing::Module(module) => modules.insert(module.clone()),
            Missing::Extension(file) => packages.insert(format!("iptables again, which lacks {file}")),
            Missing::Program(program) => packages.insert((*program).to_owned()),
        };
    }
    let modules = join(modules).map(|modules| {
        format!(
            "load {modules} on the machine (modprobe; a file in /etc/modules-load.d does it at each start)"
        )
    });
    let packages = join(packages).map(|packages| format!("install the package {packages}"));
    let ways: Vec<_> = modules.into_iter().chain(packages).collect();
    ways.join("; ")
}

fn join(all: BTreeSet<String>) -> Option<String> {
    let all: Vec<_> = all.into_iter().collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// What `weir init` would refuse before it wrote anything.
fn refused(mistake: &Mistake) -> Finding {
    Finding {
        severity: Severity::Error,
        name: mistake.name,
        subject: mistake.flag.clone(),
        found: mistake.problem.clone(),
        why: "weir init would refuse".to_owned(),
        fix: mistake.name.explained().fix.to_owned(),
    }
}

fn privilege() -> Finding {
    Finding {
        severity: Severity::Note,
        name: ErrorName::TproxyPrivilege,
        subject: "-m TPROXY".to_owned(),
        found: "the proxy needs CAP_NET_ADMIN".to_owned(),
        why: "transparent sockets and marks take it; without it the proxy does not start".to_owned(),
        fix: "give it to the proxy's container, or use REDIRECT".to_owned(),
    }
}
