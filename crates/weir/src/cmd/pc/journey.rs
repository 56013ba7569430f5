//! `weir pc journey`: the steps of connections as a proxy tells them, for as long as somebody watches.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::Result;
use diagnose::journey::{self, Journey, Style};
use model::ErrorName;
use model::event::{Event, Step};
use netsys::terminal;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::Form;
use super::ask::Found;
use crate::errors::{OrNamed, fail, say};

/// Where the steps are told.
const PATH: &str = "/journey";
/// Steps that may wait to be printed.
const ROOM: usize = 1024;
/// Connections that are remembered; the oldest are forgotten first.
const REMEMBERED_MAX: usize = 4096;

/// A line of the answer.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Lost { lost: u64 },
    Event(Event),
}

/// Prints until the proxy ends or nobody reads.
pub(super) fn follow(found: &Found, filter: Filter, form: Option<Form>) -> Result<ExitCode> {
    let mut lines = found.stream(PATH)?;
    let mut kept = Kept::new(filter);
    let mut show: Box<dyn FnMut(Event) -> io::Result<()>> = match form {
        None | Some(Form::Table) => blocks()?,
        Some(Form::Json) => Box::new(|event| {
            let mut out = io::stdout().lock();
            writeln!(out, "{}", serde_json::to_string(&event)?)?;
            out.flush()
        }),
        Some(Form::Wide | Form::Yaml) => fail!(Usage, "a journey has the forms table and json"),
    };
    while let Some(line) = lines.line()? {
        if line.is_empty() {
            continue;
        }
        let read = serde_json::from_str(&line);
        match read.or_named(ErrorName::BadAnswer, "this is no step that this version knows")? {
            Line::Lost { lost } => say(&format!(
                "weir: {lost} steps are left out: there are more than can be told"
            )),
            Line::Event(event) => {
                for event in kept.step(event) {
                    show(event).or_named(ErrorName::Output, "cannot print")?;
                }
            }
        }
    }
    say("weir: the proxy has ended");
    Ok(ExitCode::SUCCESS)
}

/// A printer of blocks for people, as `weir run --journey` has it, on standard output.
fn blocks() -> Result<Box<dyn FnMut(Event) -> io::Result<()>>> {
    let out = io::stdout();
    let columns = terminal::columns(&out);
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let style = Style::new(columns, columns.is_some() && !no_colour);
    let rule_of = |_, _, _| String::from("not looked at from here; `weir explain` tells which");
    let (steps, events) = mpsc::channel(ROOM);
    journey::start(Journey::new(style, Box::new(rule_of)), events, out)?;
    Ok(Box::new(move |event| {
        // The printer ends where nobody reads.
        steps
            .blocking_send(event)
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }))
}

/// Which connections are told.
#[derive(Debug, Default)]
pub(super) struct Filter {
    /// Only from or to this address.
    pub(super) address: Option<IpAddr>,
    /// Only of services whose host name contains this.
    pub(super) service: Option<String>,
}

/// What has been decided of connections, and what waits for that.
struct Kept {
    filter: Filter,
    connections: BTreeMap<u64, Verdict>,
}

enum Verdict {
    /// Its steps so far; the service is not known yet.
    Waiting(Vec<Event>),
    Told,
    Dropped,
}

impl Kept {
    fn new(filter: Filter) -> Self {
        Self {
            filter,
            connections: BTreeMap::new(),
        }
    }

    /// What is to be told now.
    fn step(&mut self, event: Event) -> Vec<Event> {
        let Filter { address, service } = &self.filter;
        if address.is_none() && service.is_none() {
            return vec![event];
        }
        if let Step::LookedUp(look_up) = &event.step {
            let is_address = address.is_none_or(|address| look_up.addresses.contains(&address));
            let is_service = service
                .as_ref()
                .is_none_or(|service| look_up.name.contains(service.as_str()));
            return if is_address && is_service {
                vec![event]
            } else {
                vec![]
            };
        }
        if self.connections.len() >= REMEMBERED_MAX {
            self.connections.pop_first();
        }
        let id = event.connection;
        let verdict = self.connections.remove(&id);
        let (verdict, told) = match (verdict, &event.step) {
            (
                _,
                Step::Captured {
                    source, original_dst, ..
                },
            ) if address.is_some_and(|it| it != source.ip() && it != original_dst.ip()) => {
                (Verdict::Dropped, vec![])
            }
            (_, Step::Captured { .. }) if service.is_some() => (Verdict::Waiting(vec![event]), vec![]),
            (_, Step::Captured { .. }) | (Some(Verdict::Told), _) => (Verdict::Told, vec![event]),
            (Some(Verdict::Waiting(mut steps)), Step::Decided { service: of, .. }) => {
                let of = of.as_deref().unwrap_or_default();
                if service
                    .as_ref()
                    .is_some_and(|service| of.contains(service.as_str()))
                {
                    steps.push(event);
                    (Verdict::Told, steps)
                } else {
                    (Verdict::Dropped, vec![])
                }
            }
            (Some(Verdict::Waiting(mut steps)), _) => {
                steps.push(event);
                (Verdict::Waiting(steps), vec![])
            }
            // It was there before anybody looked, or is not asked for.
            (None | Some(Verdict::Dropped), _) => (Verdict::Dropped, vec![]),
        };
        self.connections.insert(id, verdict);
        told
    }
}
