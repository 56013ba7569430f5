//! Look-ups in the journey: each in words, and the names by which later connections were found.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::SystemTime;

use model::event::LookUp;

use super::layout::{Line, Tone, elapsed};

/// Addresses remembered; beyond it all are forgotten, and only later connections have a name.
const REMEMBERED_MAX: usize = 4096;

/// The name that each address was last looked up by, and when.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<IpAddr, (Box<str>, SystemTime)>);

impl Names {
    /// Remembers what was found.
    pub(super) fn learn(&mut self, look_up: &LookUp, at: SystemTime) {
        if self.0.len() > REMEMBERED_MAX {
            self.0.clear();
        }
        for &address in &look_up.addresses {
            self.0.insert(address, (look_up.name.clone(), at));
        }
    }

    /// The hop that says by which name a connection's destination was found.
    pub(super) fn hop(&self, address: IpAddr, now: SystemTime) -> Option<Line> {
        let (name, at) = self.0.get(&address)?;
        let since = now.duration_since(*at).unwrap_or_default();
        Some(Line::hop(
            "name",
            format!("{name}, looked up {} before", elapsed(since)),
        ))
    }
}

/// One look-up.
pub(super) fn line(look_up: &LookUp) -> Line {
    let found = match look_up.records.len() {
        0 if look_up.code == "NOERROR" => String::from("no such record"),
        0 => look_up.code.to_string(),
        shown => {
            let more = match look_up.records_count - shown {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            look_up.records.join(", ") + &more
        }
    };
    let service = look_up.service.iter().map(|name| format!("service {name}"));
    let resolver = look_up.resolver.iter().map(|at| format!("resolver {}", at.ip()));
    let by: Vec<String> = service.chain(resolver).collect();
    let by = match by.is_empty() {
        true => String::from("no resolver answered"),
        false => by.join(", "),
    };
    let cut = if look_up.is_truncated { ", truncated" } else { "" };
    let tone = match &*look_up.code {
        "NOERROR" | "NXDOMAIN" => Tone::Plain,
        _ => Tone::Bad,
    };
    Line::hop(
        look_up.kind.clone(),
        format!("{}: {found} ({by}{cut})", look_up.name),
    )
    .tone(tone)
    .at(look_up.took)
}
