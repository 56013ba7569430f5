//! What a session has to do about one back-end: whether it is needed, what may be done beside it, and how it is taken
//! back where another one fails.

use std::panic::resume_unwind;
use std::thread::{self, ScopedJoinHandle};

use rules::Ruleset;
use rules::diff::changes;

use super::native::{self, Native};
use super::program::{Backend, Programs};
use super::{Error, apply, table};

/// What is to be done about one back-end.
pub(super) enum Step<'a> {
    Iptables {
        programs: &'a Programs,
        held: &'a Ruleset,
        wanted: Ruleset,
    },
    Native {
        native: &'a Native,
        wanted: Vec<Ruleset>,
    },
}

impl Step<'_> {
    pub(super) fn is_needed(&self) -> bool {
        match self {
            Self::Iptables { held, wanted, .. } => {
                !changes(held, wanted).is_empty() || !table::made_and_unwanted(held, wanted).is_empty()
            }
            Self::Native { native, wanted } => !native.holds(wanted),
        }
    }

    pub(super) fn only_removes(&self) -> bool {
        match self {
            Self::Iptables { wanted, .. } => wanted.tables.iter().all(table::has_no_use),
            Self::Native { wanted, .. } => wanted.is_empty(),
        }
    }

    /// The two families of iptables-nft. The programs of iptables-legacy wait for each other's lock, some for a second.
    pub(super) fn may_be_beside(&self, other: &Self) -> bool {
        let is_nft = |step: &Self| matches!(step, Self::Iptables { programs, .. } if programs.backend == Backend::IptablesNft);
        is_nft(self) && is_nft(other) && self.only_removes() == other.only_removes()
    }

    pub(super) fn take(&self) -> Result<(), Error> {
        match self {
            Self::Iptables {
                programs,
                held,
                wanted,
            } => {
                let is_whole = programs.backend == Backend::IptablesNft && self.only_removes();
                if is_whole && table::remove_whole(programs.family, held).map_err(Error::Table)? {
                    return Ok(());
                }
                apply(programs, held, wanted)?;
                remove_tables(programs, held, wanted)
            }
            Self::Native { native, wanted } => native.apply(wanted),
        }
    }

    /// Puts back what was there before.
    pub(super) fn take_back(&self) -> Result<(), Error> {
        match self {
            Self::Iptables { programs, held, .. } => {
                let now = super::dump(programs)?;
                let wanted = held.own();
                apply(programs, &now, &wanted)?;
                remove_tables(programs, &now, &wanted)
            }
            Self::Native { native, .. } => {
                let now = Native::read(&native::tables())?;
                match now.holds(native.held()) {
                    true => Ok(()),
                    false => now.apply(native.held()),
                }
            }
        }
    }
}

/// What earlier runs made for themselves goes with the last rule of ours in it.
fn remove_tables(programs: &Programs, held: &Ruleset, wanted: &Ruleset) -> Result<(), Error> {
    let names = table::made_and_unwanted(held, wanted);
    if names.is_empty() {
        return Ok(());
    }
    table::remove_unused(programs.family, &names).map_err(Error::Table)
}

/// The first that fails is told, once all have ended.
pub(super) fn take_side_by_side(steps: &[Step<'_>]) -> Result<(), Error> {
    let [step] = steps else {
        return thread::scope(|scope| {
            let steps: Vec<_> = steps.iter().map(|step| scope.spawn(|| step.take())).collect();
            let ended: Vec<_> = steps.into_iter().map(finish).collect();
            ended.into_iter().collect()
        });
    };
    step.take()
}

/// Waits for a thread, and panics where it did.
pub(super) fn finish<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}
