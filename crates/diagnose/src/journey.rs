//! The journey of each connection, as it happens: comes in [`Event`]s of a proxy, goes out text for a
//! terminal. One block a connection, requests indented below it; look-ups in blocks of their own. Callers: `weir run --journey`, `weir demo`.
//!
//! Connections that run side by side are kept apart: one of them *has the floor* and is printed line by
//! line; the others wait until it ends, ends a request, or is silent, and a block that goes on after
//! another one says so in its heading.

mod chain;
mod layout;
mod names;
mod print;
mod rule;
mod story;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use model::event::{Event, Step};
use model::{Direction, OrigDst, Remote};

pub use chain::{Hop, chain};
pub use layout::{Style, elapsed};
pub use print::{Printer, start};
pub use rule::{MadeBy, from_dump};

use layout::{Line, heading};
use names::Names;

/// How long the connection that has the floor may be silent while others wait.
const SILENCE: Duration = Duration::from_millis(150);
/// Connections remembered; beyond it the oldest silent one is forgotten (its next line counts from zero).
const REMEMBERED_MAX: usize = 4096;

/// The number in events that are of no connection.
const LOOK_UPS: u64 = 0;

/// Says which rule of the installed set sent a connection to the proxy: one clause, for people.
pub type RuleOf = Box<dyn Fn(Direction, Remote, OrigDst) -> String + Send>;

/// All connections and look-ups that are being told.
pub struct Journey {
    style: Style,
    rule_of: RuleOf,
    connections: BTreeMap<u64, Connection>,
    /// The connection whose lines are printed at once.
    floor: Option<u64>,
    /// The connection whose block is the last on the screen.
    last: Option<u64>,
    /// Connections told of so far.
    told: u64,
    names: Names,
}

/// What is known of one connection.
struct Connection {
    /// Counts from 1 in the order in which they came; the proxy's own numbers leave gaps.
    number: u64,
    start: SystemTime,
    title: String,
    waiting: Vec<Line>,
    /// Whether its heading has been printed.
    begun: bool,
    latest: SystemTime,
    /// Whether it carries requests that are told one by one.
    in_request: bool,
    phase: Phase,
}

impl Journey {
    /// Nothing told yet.
    #[must_use]
    pub fn new(style: Style, rule_of: RuleOf) -> Self {
        Self {
            style,
            rule_of,
            connections: BTreeMap::new(),
            floor: None,
            last: None,
            told: 0,
            names: Names::default(),
        }
    }

    /// Takes one step and answers what is to be printed now.
    #[must_use]
    pub fn step(&mut self, event: &Event) -> String {
        let id = event.connection;
        let connection = self.connections.entry(id).or_insert_with(|| {
            if id == LOOK_UPS {
                return Connection::look_ups(event);
            }
            self.told += 1;
            Connection::new(self.told, event)
        });
        connection.latest = event.at;
        if let Step::LookedUp(look_up) = &event.step {
            self.names.learn(look_up, event.at);
            connection.waiting.push(names::line(look_up));
        }
        if let Step::Captured {
            direction,
            source,
            original_dst,
            published,
        } = event.step
        {
            connection.title = story::title(direction, source, original_dst);
            connection
                .waiting
                .extend(self.names.hop(original_dst.ip(), event.at));
            let rule = story::rule(published, || (self.rule_of)(direction, source, original_dst));
            connection.waiting.push(rule);
        }
        connection.in_request |= matches!(event.step, Step::Request { .. });
        let in_request = connection.in_request;
        let since = event.at.duration_since(connection.start).unwrap_or_default();
        connection.waiting.extend(
            story::lines(&event.step, in_request)
                .into_iter()
                .map(|line| line.at(since)),
        );
        connection.phase = Phase::after(&event.step);
        let in_the_middle = connection.phase == Phase::Open;
        let mut text = String::new();
        if *self.floor.get_or_insert(id) == id {
            self.print(id, &mut text);
            if !in_the_middle {
                self.pass_floor(&mut text);
            }
        }
        self.forget();
        text
    }

    /// Time has passed: whoever waits gets the floor from one that is silent.
    #[must_use]
    pub fn tick(&mut self, now: SystemTime) -> String {
        let mut text = String::new();
        let silent =
            |connection: &Connection| now.duration_since(connection.latest).unwrap_or_default() > SILENCE;
        if let Some(id) = self.floor
            && self.connections.get(&id).is_none_or(silent)
        {
            self.pass_floor(&mut text);
        }
        text
    }

    /// No more will come: prints what waits.
    #[must_use]
    pub fn finish(&mut self) -> String {
        let mut text = String::new();
        for id in self.waiting() {
            self.print(id, &mut text);
        }
        if self.told == 0 {
            let none = "No connection came to the proxy: what stays inside, at localhost or an own address, does not.";
            for line in self.style.wrap(none, 0) {
                text.push_str(&self.style.quiet(line));
                text.push('\n');
            }
        }
        text
    }

    /// Those with something to print, in the order in which they came.
    fn waiting(&self) -> Vec<u64> {
        let mut waiting: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| !connection.waiting.is_empty())
            .map(|(&id, connection)| (connection.number, id))
            .collect();
        waiting.sort_unstable();
        waiting.into_iter().map(|(_, id)| id).collect()
    }

    /// Prints those that wait with a whole request or their end; the first that is in the middle of
    /// something gets the floor.
    fn pass_floor(&mut self, text: &mut String) {
        self.floor = None;
        let is_open = |journey: &Self, id| {
            let connection = journey.connections.get(&id);
            connection.is_some_and(|connection| connection.phase == Phase::Open)
        };
        let (open, whole): (Vec<_>, Vec<_>) = self.waiting().into_iter().partition(|&id| is_open(self, id));
        for id in whole {
            self.print(id, text);
        }
        if let Some(&next) = open.first() {
            self.floor = Some(next);
            self.print(next, text);
        }
    }

    /// Prints what waits of one connection.
    fn print(&mut self, id: u64, text: &mut String) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.waiting.is_empty() {
            return;
        }
        if self.last != Some(id) {
            if self.last.is_some() {
                text.push('\n');
            }
            let more = if connection.begun { " (goes on)" } else { "" };
            let number = match id {
                LOOK_UPS => String::new(),
                _ => format!("#{}  ", connection.number),
            };
            let title = format!("{number}{}{more}", connection.title);
            heading(&self.style, &title, connection.start, text);
            connection.begun = true;
            self.last = Some(id);
        }
        for line in connection.waiting.drain(..) {
            line.render(&self.style, text);
        }
        if connection.phase == Phase::Over {
            self.connections.remove(&id);
        }
    }

    fn forget(&mut self) {
        if self.connections.len() <= REMEMBERED_MAX {
            return;
        }
        let silent = self
            .connections
            .iter()
            .filter(|(id, connection)| connection.waiting.is_empty() && Some(**id) != self.floor);
        if let Some((&oldest, _)) = silent.min_by_key(|(_, connection)| connection.latest) {
            self.connections.remove(&oldest);
        }
    }
}

impl Connection {
    /// What stands for all look-ups.
    fn look_ups(event: &Event) -> Self {
        Self {
            title: String::from("look-ups"),
            ..Self::new(0, event)
        }
    }

    fn new(number: u64, event: &Event) -> Self {
        Self {
            number,
            start: event.at,
            title: String::from("a connection that was open already"),
            waiting: Vec::new(),
            begun: false,
            latest: event.at,
            in_request: false,
            phase: Phase::Open,
        }
    }
}

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// In the middle of something.
    Open,
    /// Between two requests.
    Resting,
    /// Closed.
    Over,
}

impl Phase {
    fn after(step: &Step) -> Self {
        match step {
            Step::LookedUp(_) => Self::Resting,
            Step::Ended(record) if record.http.is_some() => Self::Resting,
            Step::Ended(_) => Self::Over,
            _ => Self::Open,
        }
    }
}

#[cfg(test)]
mod tests;
