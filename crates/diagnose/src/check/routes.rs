//! Routing by marks and tables of others, held against those that Weir uses.

use model::{ErrorName, Severity};
use netsys::policies::{Policy, TableEntry, apart, by_marks};
use rules::Family;
use rules::intent::{Intent, SocketMark, Tproxy};

use super::ground::Ground;
use super::{Finding, Report};

pub(super) fn look(ground: &Ground, report: &mut Report) {
    match by_marks().and_then(|policies| Ok((policies, apart()?))) {
        Ok((policies, entries)) => {
            report.findings.extend(judge(&ground.intent, &policies, &entries));
            let saw = format!(
                "{} rules by marks, {} routes in tables apart",
                policies.len(),
                entries.len()
            );
            report.looked("policy routing", saw);
        }
        Err(error) => report.skipped("policy routing", format!("netlink was refused: {error}")),
    }
}

/// What clashes with what TPROXY uses here, or would with what it uses elsewhere.
fn judge(intent: &Intent, policies: &[Policy], entries: &[TableEntry]) -> Vec<Finding> {
    let wanted = intent.inbound.tproxy();
    let used = wanted.unwrap_or(Tproxy::USUAL);
    let severity = if wanted.is_some() {
        Severity::Error
    } else {
        Severity::Warning
    };
    let marks = [used.mark, Tproxy::SELF_CALL, Tproxy::CLIENT];
    let foreign = policies.iter().filter(|policy| !policy.is_ours);
    let mut found = vec![];
    for policy in foreign {
        let takes = |mark: &SocketMark| mark.value & policy.mask == policy.mark;
        if !marks.iter().any(takes) {
            continue;
        }
        let delivers = entries.iter().any(|entry| {
            (entry.family, entry.table, entry.delivers_all) == (policy.family, policy.table, true)
        });
        let is_the_same = wanted.is_some() && policy.table == used.table && delivers;
        if !is_the_same {
            found.push(by_mark(policy, severity, wanted.is_some()));
        }
    }
    for family in Family::ALL {
        let is_in = |entry: &&TableEntry| (entry.family, entry.table) == (family, used.table);
        let others = entries
            .iter()
            .filter(is_in)
            .filter(|entry| !entry.is_ours && !entry.delivers_all)
            .count();
        if wanted.is_some() && others > 0 {
            found.push(in_table(family, used.table, others));
        }
    }
    found
}

fn by_mark(policy: &Policy, severity: Severity, is_tproxy: bool) -> Finding {
    let Policy {
        family,
        priority,
        mark,
        mask,
        table,
        ..
    } = policy;
    let mark = SocketMark {
        value: *mark,
        mask: *mask,
    };
    let option = if *family == Family::V4 { "" } else { " -6" };
    let why = match is_tproxy {
        true => {
            "Weir marks what goes between the proxy and its application with it, and that would be routed elsewhere"
        }
        false => {
            "Weir does not mark packets without TPROXY, but whoever made the rule does, and may still divert \
                  packets here; with TPROXY it would clash"
        }
    };
    Finding {
        severity,
        name: ErrorName::ForeignRoute,
        subject: format!("ip{option} rule {priority}"),
        found: format!(
            "what has the mark {mark} is routed by table {table} ({family}), and Weir did not make that rule"
        ),
        why: why.to_owned(),
        fix: format!(
            "if it is a remainder: ip{option} rule del pref {priority}; ip{option} route flush table {table}; else give \
             Weir another mark (-t)"
        ),
    }
}

fn in_table(family: Family, table: u32, count: usize) -> Finding {
    let option = if family == Family::V4 { "" } else { " -6" };
    Finding {
        severity: Severity::Error,
        name: ErrorName::ForeignRoute,
        subject: format!("routing table {table}"),
        found: format!("{count} routes of others are in it ({family})"),
        why: "answers to the proxy's calls are led by this table to the proxy, and a closer route leads them elsewhere"
            .to_owned(),
        fix: format!("ip{option} route flush table {table}, or give Weir another table (-r)"),
    }
}
