//! One request through several proxies, hop by hop: what each of them told, in the order in which it
//! happened, with the place beside it. Caller: `weir demo`.

use std::fmt::Write as _;
use std::time::SystemTime;

use model::event::{Event, Step};

use super::layout::{Line, Style};
use super::{RuleOf, names, story};

/// With fewer columns a place gets a line of its own instead of a column.
const COLUMNS_FOR_PLACES: usize = 72;

/// One hop at one place.
#[derive(Debug)]
pub struct Hop {
    at: SystemTime,
    place: String,
    line: Line,
}

impl Hop {
    /// A hop that no proxy told: what an application did.
    pub fn new(at: SystemTime, place: &str, label: &'static str, text: impl Into<String>) -> Self {
        Self {
            at,
            place: place.to_owned(),
            line: Line::hop(label, text),
        }
    }

    /// What the proxy of a place told in one event; `rule_of` knows the rules there.
    #[must_use]
    pub fn told(place: &str, event: &Event, rule_of: &RuleOf) -> Vec<Self> {
        let mut lines = vec![];
        if let Step::Captured {
            direction,
            source,
            original_dst,
            published,
        } = event.step
        {
            lines.push(story::rule(published, || {
                rule_of(direction, source, original_dst)
            }));
            lines.push(Line::hop("dst was", format!("{original_dst}, from {source}")));
        }
        if let Step::LookedUp(look_up) = &event.step {
            lines.push(names::line(look_up));
        }
        lines.extend(story::lines(&event.step, false).into_iter().map(Line::outdent));
        let hop = |line| Self {
            at: event.at,
            place: place.to_owned(),
            line,
        };
        lines.into_iter().map(hop).collect()
    }
}

/// Tells the hops in the order of their time, counted from the first.
#[must_use]
pub fn chain(style: &Style, mut hops: Vec<Hop>) -> String {
    hops.sort_by_key(|hop| hop.at);
    let mut text = String::new();
    let Some(start) = hops.first().map(|hop| hop.at) else {
        return text;
    };
    let width = hops.iter().map(|hop| hop.place.chars().count()).max();
    let mut last = String::new();
    for hop in hops {
        let moved = hop.place != last;
        let line = hop.line.at(hop.at.duration_since(start).unwrap_or_default());
        if style.columns() < COLUMNS_FOR_PLACES {
            if moved {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{}", style.title(&format!("@ {}", hop.place)));
            }
            line.render(style, &mut text);
        } else {
            let place = if moved { &hop.place } else { "" };
            line.render_at(style, (place, width.unwrap_or(0)), &mut text);
        }
        last = hop.place;
    }
    text
}
