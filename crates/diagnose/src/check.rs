//! `weir check`: what would break capture, or breaks it, found before anybody's traffic does. Comes in: a
//! [`Question`]. Goes out: a [`Report`]. Looks at the namespace of the calling thread and changes nothing there; what
//! has to be tried is tried in a namespace that is made for it and goes with its last descriptor, however this ends.
//!
//! Each area is a file: one function that looks, by way of `netsys`, and pure ones that judge what was seen. What could
//! not be looked at is said, and never counts as fine.

mod dns;
mod ebpf;
mod ground;
mod ids;
mod journeys;
mod kernel;
mod manifests;
mod ports;
mod processes;
mod proxy;
mod report;
mod routes;
mod rules;
#[cfg(test)]
mod tests;
mod trial;

use std::path::PathBuf;

use ::rules::Intent;
use model::Problem;
use netsys::rules::Backend;
use registry::Dump;

use self::ground::Ground;
pub use self::report::{Finding, Report, Skipped, Verdict};
pub use self::rules::foreign;

/// What is to be checked.
#[derive(Clone, Debug)]
pub struct Question {
    /// What is to be captured, and how; without it what the rules in the namespace were made from, else everything.
    pub intent: Option<Intent>,
    /// What is to write the rules; without it what `weir init` would choose.
    pub backend: Option<Backend>,
    /// The process whose namespace it is, where it was named by one: its files and limits are looked at.
    pub process: Option<u32>,
    /// The resolver's configuration; without it the one of the process, else `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
    /// Whether a namespace of `weir run`'s could be made, tried while the process had one thread.
    pub contained: Result<(), String>,
    /// The manifests, where some are to be looked at.
    pub manifests: Option<Manifests>,
}

/// A folder of manifests, read.
#[derive(Clone, Debug)]
pub struct Manifests {
    /// What a proxy would make of it.
    pub dump: Dump,
    /// What is wrong with it by itself.
    pub problems: std::sync::Arc<[Problem]>,
}

/// Looks at everything.
#[must_use]
pub fn check(question: &Question) -> Report {
    let mut report = Report::default();
    let ground = Ground::find(question, &mut report);
    rules::look(&ground, &mut report);
    trial::look(&ground, &mut report);
    routes::look(&ground, &mut report);
    ebpf::look(&ground, &mut report);
    ids::look(&ground, &mut report);
    ports::look(&ground, &mut report);
    proxy::look(&ground, &mut report);
    kernel::look(question, &ground, &mut report);
    dns::look(question, &ground, &mut report);
    if let Some(manifests) = &question.manifests {
        manifests::look(manifests, &mut report);
    }
    report.sort();
    report
}
