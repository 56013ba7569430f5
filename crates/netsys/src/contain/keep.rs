//! Living a child's life: waiting for it, passing signals on, stopping when it stops. Both the keeper
//! (for the command) and the caller (for the keeper) do it with [`follow`].

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

use super::signals::{Received, Signals};
use crate::sys::process::{SignalSet, default_action};

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It exited with a code.
    Exited(u8),
    /// A signal ended it.
    Killed(i32),
    /// It was ended because nobody stands behind it any more.
    Abandoned,
}

impl Ended {
    /// Ends this process in the same way, so that whoever waits for it sees what the command did.
    pub fn imitate(self) -> ! {
        match self {
            Self::Exited(code) => std::process::exit(code.into()),
            Self::Killed(signal) => die_by(signal),
            Self::Abandoned => std::process::exit(1),
        }
    }
}

/// Waits for `child` to end. Other children are reaped by the way.
pub(super) fn follow(child: Pid, signals: &Signals) -> io::Result<Ended> {
    loop {
        match signals.next()? {
            Received::Child => {
                if let Some(ended) = reap(child)? {
                    return Ok(ended);
                }
            }
            Received::FromTerminal => {}
            // It may just have ended: then there is nobody to tell.
            Received::ForCommand(signal) => drop(kill_process(child, signal)),
            Received::Abandon => return Ok(Ended::Abandoned),
        }
    }
}

fn reap(child: Pid) -> io::Result<Option<Ended>> {
    loop {
        match waitpid(None, WaitOptions::NOHANG | WaitOptions::UNTRACED) {
            Ok(Some((pid, status))) if pid == child => {
                if let Some(ended) = ended(status) {
                    return Ok(Some(ended));
                }
                if status.stopped() {
                    // The shell that waits for us must see a stop; all our threads stop with this.
                    let _ = kill_process(rustix::process::getpid(), Signal::STOP);
                    let _ = kill_process(child, Signal::CONT);
                }
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn ended(status: WaitStatus) -> Option<Ended> {
    let exited = status.exit_status().map(|code| Ended::Exited(code as u8));
    exited.or_else(|| status.terminating_signal().map(Ended::Killed))
}

/// Ends every process below this one, which must be their subreaper, and reaps them all.
pub(super) fn end_all() {
    loop {
        let mut left = children(rustix::process::getpid());
        while let Some(process) = left.pop() {
            left.extend(children(process));
            let _ = kill_process(process, Signal::KILL);
        }
        // Those of a child that just ended are ours from then on, new ones too: look again after each.
        if matches!(waitpid(None, WaitOptions::empty()), Err(Errno::CHILD)) {
            return;
        }
    }
}

/// The children of a process, whichever of its threads made them. None of one that is gone.
fn children(of: Pid) -> Vec<Pid> {
    let threads = fs::read_dir(format!("/proc/{}/task", of.as_raw_nonzero()))
        .into_iter()
        .flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| {
            let pids = list
                .split_whitespace()
                .filter_map(|word| Pid::from_raw(word.parse().ok()?));
            pids.collect::<Vec<_>>()
        })
        .collect()
}

/// Ends this process by a signal, without a core of its own: the command has left one if there is one.
fn die_by(signal: i32) -> ! {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = rustix::process::setrlimit(Resource::Core, none);
    default_action(signal);
    if let Some(signal) = Signal::from_named_raw(signal) {
        let _ = kill_process(rustix::process::getpid(), signal);
    }
    let _ = SignalSet::of(&[signal]).unblock();
    // A signal that does not end a process by default: the shell's way of saying it.
    std::process::exit(128 + signal);
}
