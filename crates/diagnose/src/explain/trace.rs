//! What was explained beside what the kernel did with one connection: rules of nftables by its trace, those of
//! legacy iptables by their counters before and after.

use std::fmt::Write as _;

use netsys::rules::Traced;
use rules::Installed;
use serde::Serialize;

use super::{Explanation, Outcome, RuleStep, Step};
use crate::journey::elapsed;

/// How the two compare.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Compared {
    /// Whether it went the way that was explained, as far as the kernel tells.
    pub agrees: bool,
    /// In words.
    pub says: String,
    /// The rules that it met.
    pub met: Vec<String>,
}

/// Adds what the kernel did, and that it did otherwise, where it did. `after` is as for [`compare`].
pub fn add_trace(told: &mut Explanation, traced: &Traced, after: &Installed) {
    let compared = compare(told, traced, after);
    told.steps.push(Step {
        stage: "trace",
        says: compared.says.clone(),
    });
    if !compared.met.is_empty() {
        let says = compared.met.join(", ");
        told.steps.push(Step { stage: "met", says });
    }
    if !compared.agrees {
        told.outcome = Outcome::Unknown;
        told.headline = String::from("the kernel does otherwise than is explained: see the trace");
    }
    told.trace = Some(compared);
}

/// Compares. `after` is what is installed after the connection was made.
#[must_use]
fn compare(told: &Explanation, traced: &Traced, after: &Installed) -> Compared {
    let explained: Vec<&RuleStep> = told
        .asked
        .iter()
        .filter(|asked| asked.fits)
        .map(|asked| &asked.rule)
        .collect();
    let mut wrong = vec![];
    let mut met = vec![];
    match &traced.met {
        Ok(events) => {
            met.extend(
                events
                    .iter()
                    .map(|met| format!("{} {} {}", met.table, met.chain, met.number)),
            );
            let is = |rule: &RuleStep, event: &netsys::rules::Met| {
                let table = event.table.as_str();
                let same_table =
                    rule.table == table || table.split_once(' ').is_some_and(|(_, name)| rule.table == name);
                same_table && rule.chain == event.chain && rule.number == event.number
            };
            let by_nft = explained.iter().filter(|rule| !rule.program.ends_with("-legacy"));
            // Where chance decides, it takes one way alone.
            let must_be_met = by_nft.clone().filter(|_| told.ways.is_empty());
            for rule in must_be_met.filter(|rule| !events.iter().any(|event| is(rule, event))) {
                wrong.push(format!("it did not meet {}", rule.place()));
            }
            for event in events {
                if !by_nft.clone().any(|rule| is(rule, event)) {
                    wrong.push(format!("it met {} {} {}", event.table, event.chain, event.number));
                }
            }
        }
        Err(why) => met.push(format!(
            "the kernel could not be asked ({why}); counters alone were looked at"
        )),
    }
    let is_traced = traced.met.is_ok();
    for rule in &explained {
        if told.ways.is_empty() && (rule.program.ends_with("-legacy") || !is_traced) {
            match (rule.packets, packets(after, rule)) {
                (Some(before), Some(now)) if now > before => {
                    met.push(format!("{} has counted it", rule.place()));
                }
                (Some(_), Some(_)) => wrong.push(format!("{} has not counted it", rule.place())),
                _ => {}
            }
        }
    }
    let mut says = match &traced.connected {
        Ok(took) => format!("one connection was made in {}", elapsed(*took)),
        Err(error) => format!("one connection was tried: {error}"),
    };
    let is_open = told.outcome == Outcome::Unknown;
    let end = match wrong.is_empty() {
        _ if is_open => {
            String::from("this is what the kernel did with it, which could not be said beforehand")
        }
        true => String::from("the kernel did with it what is explained"),
        false => format!("the kernel did otherwise: {}", wrong.join("; ")),
    };
    // Writing to a string cannot fail.
    let _ = write!(says, "; {end}");
    Compared {
        agrees: wrong.is_empty() || is_open,
        says,
        met,
    }
}

fn packets(installed: &Installed, rule: &RuleStep) -> Option<u64> {
    let mut tables = installed.tables.iter();
    let table =
        tables.find(|table| table.by.program(table.family) == rule.program && table.name == rule.table)?;
    let chain = table.chains.iter().position(|chain| chain.name == rule.chain)?;
    let mut notes = table.notes.get(chain)?.iter();
    let note = notes.find(|note| note.number == rule.number)?;
    note.counter.map(|counter| counter.packets)
}
