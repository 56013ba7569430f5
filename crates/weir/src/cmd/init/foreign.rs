//! What `weir init` says of rules that are not Weir's, once its own are in: each that decides otherwise about what was
//! asked for, as `weir check` finds them, and what nobody can read. Nothing is said of those that change nothing.

use diagnose::check::{Finding, foreign};
use model::{ErrorName, Severity};
use netsys::rules::{Choice, Session, look};
use rules::{Intent, Plan};

use crate::errors;

/// Each that stands in the way.
pub(super) fn in_the_way(
    session: &Session,
    intent: &Intent,
    plan: &Plan,
    choices: &[Choice],
) -> Vec<Finding> {
    let mut found: Vec<_> = session.hidden().into_iter().map(hidden).collect();
    if !session.has_foreign() {
        return found;
    }
    match look() {
        Ok(seen) => found.extend(foreign(intent, plan, choices, &seen.installed)),
        Err(error) => errors::print(
            "weir: warning: rules of others could not be looked at",
            &error.into(),
        ),
    }
    found
}

fn hidden(found: String) -> Finding {
    Finding {
        severity: Severity::Warning,
        name: ErrorName::RulesHidden,
        subject: "the packet filter".to_owned(),
        found,
        why: "those rules may decide before Weir's".to_owned(),
        fix: "install the package iptables, and run weir init again".to_owned(),
    }
}

/// Prints those that were not told before.
pub(super) fn warn(findings: &[Finding], told: &[Finding]) {
    for finding in findings {
        let is_told = |told: &Finding| (&told.subject, &told.found) == (&finding.subject, &finding.found);
        if told.iter().any(is_told) {
            continue;
        }
        let Finding {
            name,
            subject,
            found,
            why,
            fix,
            ..
        } = finding;
        eprintln!("weir: warning: {subject}: {found} [{name}]\n  Why: {why}\n  Fix: {fix}");
    }
}
