//! Who runs in the namespace, as far as can be seen from here.

use std::io;

use netsys::netns::Netns;
use netsys::process::{self, Ids};

use super::Report;

/// A process of the namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) pid: u32,
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Whether it is a proxy of Weir's.
    pub(super) is_proxy: bool,
}

/// Who runs in the calling thread's namespace, this process apart.
pub(super) struct Processes {
    /// Those that can be seen.
    pub(super) found: Vec<Found>,
    /// The ids of those that do not say where they are.
    pub(super) silent: Vec<Ids>,
    /// Whether there can be no others.
    pub(super) are_all: bool,
}

impl Processes {
    pub(super) fn find(report: &mut Report) -> Self {
        let mut processes = Self {
            found: vec![],
            silent: vec![],
            are_all: process::sees_all(),
        };
        if let Err(error) = processes.read() {
            report.skipped("processes", format!("/proc cannot be read: {error}"));
        }
        processes
    }

    fn read(&mut self) -> io::Result<()> {
        let (_, here) = Netns::current()?.id()?;
        let me = std::process::id();
        for pid in process::all()?.into_iter().filter(|pid| *pid != me) {
            if process::netns_of(pid) == Some(here) {
                self.found.extend(found(pid));
            } else if process::is_hidden(pid) {
                self.silent.extend(process::ids(pid));
            }
        }
        Ok(())
    }
}

/// None of one of the kernel's, which has no words, or one that has ended, which has no ids.
fn found(pid: u32) -> Option<Found> {
    let words = process::words(pid);
    let ids = process::ids(pid).ok().filter(|_| !words.is_empty())?;
    Some(Found {
        pid,
        name: process::name(pid).unwrap_or_default(),
        uid: ids.uid,
        gid: ids.gid,
        is_proxy: is_proxy(&words),
    })
}

fn is_proxy(words: &[String]) -> bool {
    let program = words.first().and_then(|word| word.rsplit('/').next());
    let command = words.get(1).map(String::as_str);
    // A program that was started by a descriptor has the descriptor's name.
    let is_weir =
        program.is_some_and(|program| program == "weir" || program.bytes().all(|b| b.is_ascii_digit()));
    is_weir && command == Some("proxy")
}
