//! The signals of a process that stands in for another: received one by one instead of acted upon.

use std::io;

use rustix::process::Signal;

use crate::sys::process::{SignalSet, default_action};

/// Tells the keeper that its parent is gone or has no more use for it. Power failure: nobody else sends it.
pub(super) const ABANDON: Signal = Signal::POWER;

/// Sent on to the command, or left to it where the terminal sent them to everybody.
const PASSED: [libc::c_int; 8] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTSTP,
    libc::SIGWINCH,
];

/// The blocked signals of this process.
pub struct Signals(SignalSet);

/// One that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Received {
    /// A child ended or stopped.
    Child,
    /// The kernel sent it to the whole process group (Ctrl-C, Ctrl-Z): the command has it already.
    FromTerminal,
    /// A process sent it to us alone, as far as we can know.
    ForCommand(Signal),
    /// The process we stand in for is gone, or wants us gone.
    Abandon,
}

impl Signals {
    /// Blocks them in the calling thread; threads started from now on inherit that. A thread in the
    /// background of a terminal may then write to it (SIGTTOU is blocked too): a report of ours never stops us.
    ///
    /// # Errors
    /// None in practice.
    pub fn block() -> io::Result<Self> {
        // An inherited "ignore" would make the kernel reap our children by itself.
        default_action(libc::SIGCHLD);
        SignalSet::of(&[libc::SIGTTOU]).block()?;
        let mut all = PASSED.to_vec();
        all.extend([libc::SIGCHLD, ABANDON.as_raw()]);
        let set = SignalSet::of(&all);
        set.block()?;
        Ok(Self(set))
    }

    /// Lets them through again: a program that is executed inherits what is blocked, and one that only
    /// finishes its work should end by them.
    ///
    /// # Errors
    /// None in practice.
    pub fn unblock(&self) -> io::Result<()> {
        SignalSet::of(&[libc::SIGTTOU]).unblock()?;
        self.0.unblock()
    }

    /// What ended this process already, had its signals not been blocked: to be asked before a command is
    /// started, which would never hear of it.
    #[must_use]
    pub fn ended_before(&self) -> Option<super::Ended> {
        SignalSet::of(&[libc::SIGINT, libc::SIGTERM, libc::SIGQUIT, libc::SIGHUP])
            .take()
            .map(super::Ended::Killed)
    }

    pub(super) fn next(&self) -> io::Result<Received> {
        loop {
            let (signal, code) = match self.0.wait() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if signal == libc::SIGCHLD {
                return Ok(Received::Child);
            }
            if signal == ABANDON.as_raw() {
                return Ok(Received::Abandon);
            }
            if code == libc::SI_KERNEL {
                return Ok(Received::FromTerminal);
            }
            if let Some(signal) = Signal::from_named_raw(signal) {
                return Ok(Received::ForCommand(signal));
            }
        }
    }
}
