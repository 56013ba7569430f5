//! What was found out, as a table for people and as JSON for programs.

use std::cmp::Reverse;

use serde::Serialize;

use crate::tables::{Row, Shape, as_table};

/// What a probe, or all of them together, came to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It fared as it should.
    Proven,
    /// It could not be sent, or what was seen does not decide.
    NotProbed,
    /// It fared otherwise.
    Broken,
}

impl Outcome {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::NotProbed => "NOT PROBED",
            Self::Broken => "BROKEN",
        }
    }
}

/// One thing that was tried.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What it is about: `TCP out`.
    pub probe: String,
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// Who sent it, and to where: `uid 0 to 100.64.255.2:40000`.
    pub sent: String,
    /// Where it arrived.
    pub arrived: String,
    /// The rule that decided, by what is installed; empty where none did.
    pub rule: String,
    /// Whether that rule's counter rose; none where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counted: Option<bool>,
    /// What it came to.
    pub verdict: Outcome,
    /// Where not all is well: what should have been, the rule that is missing or in the way, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// All that was found out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What it came to.
    pub verdict: Outcome,
    /// What should hold: the flags of `weir init`.
    pub asked: String,
    /// Where that is known from.
    pub asked_by: String,
    /// Every probe.
    pub findings: Vec<Finding>,
    /// The command that makes the rules as they should be, where they are not; for a shell beside `weir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// What else there is to know.
    pub notes: Vec<String>,
}

impl Report {
    pub(super) fn new(asked: String, asked_by: String, findings: Vec<Finding>, notes: Vec<String>) -> Self {
        let worst = findings.iter().map(|finding| finding.verdict).max();
        Self {
            verdict: worst.unwrap_or(Outcome::NotProbed),
            asked,
            asked_by,
            findings,
            remedy: None,
            notes,
        }
    }

    /// How many came to that.
    #[must_use]
    pub fn count(&self, verdict: Outcome) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.verdict == verdict)
            .count()
    }

    /// The sum, what was asked for, each finding in a row with what is not proven first, and the reasons of that. Where all
    /// is proven, rows only with `is_all`.
    #[must_use]
    pub fn text(&self, shape: Shape, is_all: bool) -> String {
        let mut text = format!("{}Asked for ({}): {}\n", self.sum(), self.asked_by, self.asked);
        if is_all || self.verdict != Outcome::Proven {
            let mut findings = self.findings.clone();
            findings.sort_by_key(|finding| Reverse(finding.verdict));
            text.push_str(&format!("\n{}", as_table(&findings, shape)));
        }
        let reasons = self.reasons();
        match reasons.is_empty() {
            true => text,
            false => format!("{text}\n{reasons}"),
        }
    }

    /// What is wrong, and the sum.
    #[must_use]
    pub fn conclusion(&self) -> String {
        self.reasons() + &self.sum()
    }

    /// Of all that is not proven, what else there is to know, and what puts the rules right.
    fn reasons(&self) -> String {
        let mut text = String::new();
        for finding in self
            .findings
            .iter()
            .filter(|finding| finding.verdict != Outcome::Proven)
        {
            let Finding {
                probe,
                family,
                sent,
                arrived,
                verdict,
                why,
                ..
            } = finding;
            let verdict = verdict.as_str();
            let why = why.as_deref().unwrap_or_default();
            text.push_str(&match sent.is_empty() {
                true => format!("{verdict}: {probe}, {family}: {why}\n"),
                false => format!("{verdict}: {probe}, {family}, {sent}: arrived: {arrived}; {why}\n"),
            });
        }
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        if let Some(remedy) = &self.remedy {
            text.push_str(&format!("Put the rules back with: {remedy}\n"));
        }
        text
    }

    fn sum(&self) -> String {
        let [proven, broken, not_probed] =
            [Outcome::Proven, Outcome::Broken, Outcome::NotProbed].map(|verdict| self.count(verdict));
        match self.verdict {
            Outcome::Proven => format!("Capture is proven: {proven} findings, each as it should be.\n"),
            Outcome::Broken => {
                let found = self.findings.len();
                match not_probed {
                    0 => format!("Capture is BROKEN: {broken} of {found} findings.\n"),
                    _ => {
                        format!("Capture is BROKEN: {broken} of {found} findings; {not_probed} not probed.\n")
                    }
                }
            }
            Outcome::NotProbed => format!(
                "Nothing is broken, but not all is proven: {proven} findings as they should be, {not_probed} not probed.\n"
            ),
        }
    }
}

impl Row for Finding {
    const COLUMNS: &'static [&'static str] = &["PROBE", "FAMILY", "SENT", "ARRIVED", "VERDICT", "RULE"];

    fn cells(&self) -> Vec<String> {
        let counted = if self.counted == Some(true) { " +" } else { "" };
        vec![
            self.probe.clone(),
            self.family.clone(),
            self.sent.clone(),
            self.arrived.clone(),
            self.verdict.as_str().to_owned(),
            format!("{}{counted}", self.rule),
        ]
    }
}
