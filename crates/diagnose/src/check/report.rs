//! What was found: a table for people, the worst first, and the same as JSON.

use std::fmt::Write;

use model::{ErrorName, Severity};
use serde::Serialize;

use crate::tables::{Row, Shape, as_table};

/// One thing that is wrong, or worth knowing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// How bad: an error breaks capture, a warning breaks something sooner or later, a note is good to know.
    pub severity: Severity,
    /// Its name: `weir explain WEIR-...` says more.
    pub name: ErrorName,
    /// What was looked at.
    pub subject: String,
    /// What was found there.
    pub found: String,
    /// Why it matters.
    pub why: String,
    /// What to do.
    pub fix: String,
}

/// What could not be looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Skipped {
    /// What.
    pub subject: String,
    /// Why, and what would help.
    pub why: String,
}

/// What was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Looked {
    /// What.
    pub subject: &'static str,
    /// What was seen, in a few words.
    pub saw: String,
}

/// Everything.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Report {
    /// The worst first.
    pub findings: Vec<Finding>,
    /// What was looked at, in that order.
    pub looked_at: Vec<Looked>,
    /// What could not be.
    pub not_looked_at: Vec<Skipped>,
}

/// What it comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing was found, and everything looked at; notes do not count.
    Clean,
    /// At least one error.
    Errors,
    /// Warnings, and no error.
    Warnings,
    /// Nothing was found, but not everything could be looked at.
    Incomplete,
}

impl Report {
    /// What it comes to.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let any = |severity| self.findings.iter().any(|finding| finding.severity == severity);
        match () {
            () if any(Severity::Error) => Verdict::Errors,
            () if any(Severity::Warning) => Verdict::Warnings,
            () if self.not_looked_at.is_empty() => Verdict::Clean,
            () => Verdict::Incomplete,
        }
    }

    pub(super) fn looked(&mut self, subject: &'static str, saw: impl Into<String>) {
        let saw = saw.into();
        self.looked_at.push(Looked { subject, saw });
    }

    pub(super) fn skipped(&mut self, subject: impl Into<String>, why: impl Into<String>) {
        self.not_looked_at.push(Skipped {
            subject: subject.into(),
            why: why.into(),
        });
    }

    pub(super) fn sort(&mut self) {
        self.findings.sort_by_key(|finding| finding.severity);
    }

    /// The findings as a table, what could not be looked at, and a last line with the sum; with `all`, also what
    /// was looked at.
    #[must_use]
    pub fn text(&self, terminal: Option<usize>, all: bool) -> String {
        let is_wide = true;
        let shape = Shape { is_wide, terminal };
        let mut parts = vec![];
        if !self.findings.is_empty() {
            parts.push(as_table(&self.findings, shape));
        }
        if !self.not_looked_at.is_empty() {
            parts.push(as_table(&self.not_looked_at, shape));
        }
        if all {
            parts.push(as_table(&self.looked_at, shape));
        }
        parts.push(self.sum());
        parts.join("\n")
    }

    /// All of it as JSON.
    ///
    /// # Errors
    /// Where it cannot be written, which does not happen.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// The same as YAML.
    ///
    /// # Errors
    /// Where it cannot be written, which does not happen.
    pub fn yaml(&self) -> Result<String, serde_saphyr::ser::Error> {
        serde_saphyr::to_string(self)
    }

    fn sum(&self) -> String {
        let count = |severity| {
            let those = self
                .findings
                .iter()
                .filter(|finding| finding.severity == severity);
            those.count()
        };
        let mut found: Vec<_> = Severity::ALL
            .into_iter()
            .filter(|severity| count(*severity) > 0)
            .map(|severity| plural(count(severity), severity.as_str()))
            .collect();
        if found.is_empty() {
            found.push("nothing found".to_owned());
        }
        let mut text = found.join(", ");
        if let Some(first) = text.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        // Writing to a string cannot fail.
        let _ = write!(text, "; looked at {}", plural(self.looked_at.len(), "thing"));
        if !self.not_looked_at.is_empty() {
            let _ = write!(text, ", could not look at {}", self.not_looked_at.len());
        }
        text + ".\n"
    }
}

/// `1 server`, `2 servers`.
pub(super) fn plural(count: usize, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {what}{s}")
}

impl Row for Finding {
    const COLUMNS: &'static [&'static str] = &["SEVERITY", "WHAT", "FOUND"];
    const WRAPS_LAST: bool = true;

    fn cells(&self) -> Vec<String> {
        let Self {
            name,
            found,
            why,
            fix,
            ..
        } = self;
        vec![
            self.severity.as_str().to_owned(),
            self.subject.clone(),
            format!("{found} [{name}]\nWhy: {why}\nFix: {fix}"),
        ]
    }
}

impl Row for Skipped {
    const COLUMNS: &'static [&'static str] = &["NOT LOOKED AT", "WHY"];
    const WRAPS_LAST: bool = true;

    fn cells(&self) -> Vec<String> {
        vec![self.subject.clone(), self.why.clone()]
    }
}

impl Row for Looked {
    const COLUMNS: &'static [&'static str] = &["LOOKED AT", "SAW"];
    const WRAPS_LAST: bool = true;

    fn cells(&self) -> Vec<String> {
        vec![self.subject.to_owned(), self.saw.clone()]
    }
}
