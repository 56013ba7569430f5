//! What a report comes to, and how it is printed.

use model::{ErrorName, Severity};

use super::{Finding, Report, Verdict};

fn finding(severity: Severity, name: ErrorName) -> Finding {
    Finding {
        severity,
        name,
        subject: "port 15001".to_owned(),
        found: "nc (pid 7) listens on 0.0.0.0:15001".to_owned(),
        why: "the proxy cannot listen there".to_owned(),
        fix: "end it".to_owned(),
    }
}

#[test]
fn the_worst_comes_first_and_notes_do_not_count() {
    let mut report = Report::default();
    assert_eq!(report.verdict(), Verdict::Clean);
    report.looked("listeners", "1 of TCP");
    assert_eq!(report.text(None, false), "Nothing found; looked at 1 thing.\n");
    report
        .findings
        .push(finding(Severity::Note, ErrorName::TproxyPrivilege));
    assert_eq!(report.verdict(), Verdict::Clean);
    report.skipped("the rules", "no right to read them");
    assert_eq!(report.verdict(), Verdict::Incomplete);
    report
        .findings
        .push(finding(Severity::Warning, ErrorName::PortRange));
    assert_eq!(report.verdict(), Verdict::Warnings);
    report
        .findings
        .push(finding(Severity::Error, ErrorName::PortInUse));
    assert_eq!(report.verdict(), Verdict::Errors);
    report.sort();
    let names: Vec<_> = report.findings.iter().map(|finding| finding.name).collect();
    assert_eq!(
        names,
        [
            ErrorName::PortInUse,
            ErrorName::PortRange,
            ErrorName::TproxyPrivilege
        ]
    );
    report.findings.truncate(1);
    assert_eq!(
        report.text(Some(70), false),
        "\
SEVERITY   WHAT         FOUND
error      port 15001   nc (pid 7) listens on 0.0.0.0:15001
                        [WEIR-PORT-IN-USE]
                        Why: the proxy cannot listen there
                        Fix: end it

NOT LOOKED AT   WHY
the rules       no right to read them

1 error; looked at 1 thing, could not look at 1.
"
    );
}
