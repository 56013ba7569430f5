//! An explanation as text for a terminal: the outcome first, then what is in the way, then the decisions.

use std::fmt::Write as _;

use super::{AskedRule, Explanation, Finding, Outcome};
use crate::journey::Style;

/// How much is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detail {
    /// What an engineer on call reads in ten seconds.
    Short,
    /// Every rule that was asked, too.
    All,
}

/// Width of a label, and of what stands before a text.
const LABEL: usize = 9;
const MARGIN: usize = 2 + LABEL + 1;
/// Near misses that are shown in short, where they may be what is looked for.
const NEAR_SHOWN: usize = 2;

/// The explanation of a connection to what `title` names.
#[must_use]
pub fn text(title: &str, told: &Explanation, detail: Detail, style: &Style) -> String {
    let mut out = headline(title, told, style);
    if let Some(finding) = &told.finding {
        in_the_way(&mut out, style, finding);
    }
    for remark in &told.remarks {
        paragraph(&mut out, style, "note", remark);
    }
    out.push('\n');
    paragraph(&mut out, style, "client", &told.client);
    for step in &told.steps {
        paragraph(&mut out, style, step.stage, &step.says);
    }
    match detail {
        // Elsewhere it was not for want of a rule.
        Detail::Short if told.outcome != Outcome::Bypasses => {}
        Detail::Short => {
            for near in told.near_misses.iter().take(NEAR_SHOWN) {
                paragraph(&mut out, style, "near miss", &near_text(near));
            }
        }
        Detail::All => all_rules(&mut out, style, told),
    }
    out
}

/// The outcome, and that in a sentence.
#[must_use]
pub fn headline(title: &str, told: &Explanation, style: &Style) -> String {
    let mut out = heading(told.outcome, title, style);
    paragraph(&mut out, style, "", &told.headline);
    out
}

/// Of a name that leads nowhere, or that nobody can be asked for.
#[must_use]
pub fn nameless(title: &str, headline: &str, finding: &Finding, style: &Style) -> String {
    let mut out = heading(Outcome::Fails, title, style);
    paragraph(&mut out, style, "", headline);
    in_the_way(&mut out, style, finding);
    out
}

fn heading(outcome: Outcome, title: &str, style: &Style) -> String {
    let word = outcome.as_str();
    let painted = match outcome {
        Outcome::Works => style.good(word),
        Outcome::Passes | Outcome::Unknown => style.title(word),
        Outcome::Bypasses | Outcome::Fails => style.bad(word),
    };
    format!("{painted}  {}\n", style.title(title))
}

fn in_the_way(out: &mut String, style: &Style, finding: &Finding) {
    paragraph(out, style, "side", finding.side.as_str());
    paragraph(out, style, "because", &finding.what);
    paragraph(out, style, "fix", &finding.fix);
}

fn all_rules(out: &mut String, style: &Style, told: &Explanation) {
    out.push('\n');
    // Writing to a string cannot fail.
    let _ = writeln!(out, "  {}", style.title("Rules asked, in order"));
    for asked in &told.asked {
        let mark = if asked.fits { "fits" } else { "no" };
        let because = match asked.because.is_empty() {
            true => String::new(),
            false => format!("  [{}]", asked.because.join("; ")),
        };
        paragraph(
            out,
            style,
            mark,
            &format!("{}: {}{because}", asked.rule.place(), asked.rule.says()),
        );
    }
    if told.asked.is_empty() {
        paragraph(out, style, "", "none");
    }
    if !told.near_misses.is_empty() {
        out.push('\n');
        let heading = "Near misses: one test more, and they would have decided";
        let _ = writeln!(out, "  {}", style.title(heading));
        for near in &told.near_misses {
            paragraph(out, style, "", &near_text(near));
        }
    }
}

fn near_text(near: &AskedRule) -> String {
    format!(
        "{}: {} [{}]",
        near.rule.place(),
        near.rule.text,
        near.because.join("; ")
    )
}

fn paragraph(out: &mut String, style: &Style, label: &str, text: &str) {
    for (index, line) in style.wrap(text, MARGIN).into_iter().enumerate() {
        let label = if index == 0 { label } else { "" };
        let _ = writeln!(out, "  {} {line}", style.quiet(&format!("{label:<LABEL$}")));
    }
}
