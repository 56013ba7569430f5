//! Whether the kernel and the programs can do what the plan takes, by doing it in a namespace that is made for it and
//! vanishes: no feature is believed because a version or a module's name says so.

use model::{ErrorName, Severity};
use netsys::netns::Netns;
use netsys::rules::{Backend, Error, Session};
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
            Err(Trial::Refused(error)) => {
                let works = others(ground, backend, &families);
                report.findings.push(does_not_work(backend, &error, &works));
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
    Refused(Error),
}

/// Puts the rules into a fresh namespace by that back-end, as `weir init` does.
fn attempt(ground: &Ground, backend: Backend, families: &[Family]) -> Result<(), Trial> {
    let netns = Netns::create().map_err(|error| Trial::NoNamespace(error.to_string()))?;
    let installed = netns.run(|| {
        let session = Session::open(Some(backend))?;
        let plan = plan_for(ground, families, session.facts(&ground.intent)?)?;
        session.install(&plan).map(drop)
    });
    match installed {
        Err(error) => Err(Trial::NoNamespace(error.to_string())),
        Ok(Err(error)) => Err(Trial::Refused(error)),
        Ok(Ok(())) => Ok(()),
    }
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

fn does_not_work(backend: Backend, error: &Error, works: &[Backend]) -> Finding {
    let name = match error {
        Error::Unusable(_) | Error::Start { .. } => ErrorName::Backend,
        Error::Policy(_) => ErrorName::PolicyRoute,
        Error::Address(_) => ErrorName::PassthroughAddress,
        Error::Cgroups(_) => ErrorName::Privilege,
        Error::NotHeld { .. } => ErrorName::RulesNotHeld,
        _ => ErrorName::RulesRefused,
    };
    let fix = match works.first() {
        Some(other) => {
            format!("use weir init --backend {other}, which takes them here; or do what the message says")
        }
        None => "do what the message says: install the program, or load the module".to_owned(),
    };
    Finding {
        severity: Severity::Error,
        name,
        subject: format!("back-end {backend}"),
        found: chain(error),
        why: "weir init would fail here, and the pod would not start".to_owned(),
        fix,
    }
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
