//! A manifests folder as the source of the registry: read at the start, watched from then on. Comes in: a
//! path. Goes out: a channel of snapshots. The binary's compositions call it.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io::{self, PipeReader, PipeWriter};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use model::{ErrorName, ObjectName};
use registry::{Changed, Snapshot, Table};
use tokio::sync::watch;

use crate::catalog::Catalog;
use crate::folder::{Folder, Look, SETTLE};
use crate::watch::{Heard, Watch};
use model::problem::{Place, Problem, Severity};

/// How often the folder is looked at although nothing was heard: links may lead to files elsewhere, and
/// network file systems tell nothing.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// For how long a short-lived owner is spared the watch, and how often the folder is looked at meanwhile. To
/// take a watch away costs 4 to 20 ms (the kernel waits for whoever may be telling of a change), which a
/// command that ends at once would pay at its end.
const UNWATCHED: Duration = Duration::from_secs(1);
const LOOK_UNWATCHED: Duration = Duration::from_millis(100);

/// How long changes are gathered before they are looked at together.
const GATHER: Duration = Duration::from_millis(20);

/// Why a manifests folder cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there or not a directory we may read.
    #[error("cannot read the manifests folder {path}; give a directory with *.yaml or *.json files")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its changes cannot be heard of.
    #[error(
        "cannot watch the manifests folder {path}; look at fs.inotify.max_user_instances and max_user_watches"
    )]
    Watch {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its thread cannot be made.
    #[error("cannot start the thread that watches the manifests; look at ulimit -u")]
    Thread {
        /// What the system said.
        source: io::Error,
    },
}

/// The running source. Dropped, it stops.
#[derive(Debug)]
pub struct Handle {
    problems: watch::Receiver<Arc<[Problem]>>,
    /// Closed to stop the thread; `None` once that was done.
    running: Option<(PipeWriter, JoinHandle<()>)>,
}

impl Handle {
    /// Everything that is wrong with the manifests now, or worth knowing.
    #[must_use]
    pub fn problems(&self) -> Arc<[Problem]> {
        Arc::clone(&self.problems.borrow())
    }

    /// The same, as it changes.
    #[must_use]
    pub fn watch_problems(&self) -> watch::Receiver<Arc<[Problem]>> {
        self.problems.clone()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            if thread.join().is_err() {
                tracing::error!(see = %ErrorName::Defect, "the manifests thread panicked; please report this");
            }
        }
    }
}

/// Reads a folder and keeps watching it, for the proxy of `own`. The first snapshot is complete when this
/// returns. A mistake in a manifest is logged and leaves the rest working.
///
/// # Errors
/// Where the folder cannot be read or watched at all.
pub fn start_manifests(
    dir: PathBuf,
    own: Option<ObjectName>,
) -> Result<(watch::Receiver<Arc<Snapshot>>, Handle), Error> {
    start(dir, own, Duration::ZERO)
}

/// The same for an owner that may end soon: the folder is looked at often, and watched only when a second has
/// passed.
///
/// # Errors
/// As [`start_manifests`]; that it cannot be watched is logged when it is known.
pub fn start_manifests_briefly(
    dir: PathBuf,
    own: Option<ObjectName>,
) -> Result<(watch::Receiver<Arc<Snapshot>>, Handle), Error> {
    start(dir, own, UNWATCHED)
}

fn start(
    dir: PathBuf,
    own: Option<ObjectName>,
    unwatched: Duration,
) -> Result<(watch::Receiver<Arc<Snapshot>>, Handle), Error> {
    let mut source = Source::new(dir.clone(), own);
    let watch_from = Instant::now() + unwatched;
    // The watch comes first, so that nothing is missed between the two.
    let watch = match unwatched {
        Duration::ZERO => Watch::new(&dir),
        _ => Watch::later(&dir),
    };
    source.look(None).map_err(|source| Error::Folder {
        path: dir.clone(),
        source,
    })?;
    let watch = watch.map_err(|source| Error::Watch { path: dir, source })?;
    let snapshots = source.snapshots.subscribe();
    let problems = source.problems.subscribe();
    let thread_error = |source| Error::Thread { source };
    let (stopped, stop) = io::pipe().map_err(thread_error)?;
    let thread = thread::Builder::new()
        .name("manifests".to_owned())
        .spawn(move || source.run(watch, watch_from, &stopped))
        .map_err(thread_error)?;
    let handle = Handle {
        problems,
        running: Some((stop, thread)),
    };
    Ok((snapshots, handle))
}

struct Source {
    folder: Folder,
    catalog: Catalog,
    table: Table,
    snapshots: watch::Sender<Arc<Snapshot>>,
    problems: watch::Sender<Arc<[Problem]>>,
    /// Why the folder could not be read at the last look, if so.
    away: Option<String>,
    /// Whether it was said that the folder cannot be watched.
    is_deaf: bool,
}

impl Source {
    fn new(dir: PathBuf, own: Option<ObjectName>) -> Self {
        let mut table = Table::new(own);
        Self {
            folder: Folder::new(dir),
            catalog: Catalog::default(),
            snapshots: watch::Sender::new(table.snapshot()),
            table,
            problems: watch::Sender::new(Arc::default()),
            away: None,
            is_deaf: false,
        }
    }

    /// Brings everything up to the folder.
    fn look(&mut self, watch: Option<&Watch>) -> io::Result<Look> {
        let look = self.folder.look(&mut self.catalog, watch)?;
        if self.away.take().is_some() {
            tracing::info!("the manifests folder {} is back", self.folder.path().display());
            self.tell_problems();
        }
        if look.changed {
            let updates = self.catalog.updates();
            let mut changed = Changed::No;
            for update in updates {
                if self.table.apply(update) == Changed::Yes {
                    changed = Changed::Yes;
                }
            }
            self.tell_problems();
            if changed == Changed::Yes {
                let snapshot = self.table.snapshot();
                tracing::info!(
                    version = snapshot.version,
                    services = snapshot.services.len(),
                    workloads = snapshot.workloads.len(),
                    "manifests loaded"
                );
                self.snapshots.send_replace(snapshot);
            }
        }
        Ok(look)
    }

    /// Logs what is new; what was said already is not said again.
    fn tell_problems(&self) {
        let mut now = self.catalog.problems();
        now.extend(self.away.as_ref().map(|error| Problem {
            file: self.folder.path().to_string_lossy().into(),
            place: Place::default(),
            field: String::new(),
            severity: Severity::Error,
            name: ErrorName::ManifestFolder,
            message: format!("the manifests folder cannot be read: {error}; what it held stays in force"),
        }));
        let before = self.problems.borrow().clone();
        let said: BTreeSet<&Problem> = before.iter().collect();
        for problem in now.iter().filter(|problem| !said.contains(problem)) {
            match problem.severity {
                Severity::Error => tracing::error!("{problem}"),
                Severity::Warning => tracing::warn!("{problem}"),
                Severity::Note => tracing::info!("{problem}"),
            }
        }
        if *now != *before {
            self.problems.send_replace(now.into());
        }
    }

    fn run(mut self, mut watch: Watch, watch_from: Instant, stopped: &PipeReader) {
        let mut next = Instant::now() + SETTLE;
        loop {
            match watch.wait(stopped, next.saturating_duration_since(Instant::now())) {
                Ok(Heard::Stop) => return,
                Ok(Heard::Changes) => {
                    // More is likely to follow at once.
                    next = next.min(Instant::now() + GATHER);
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                    next = self.turn(&mut watch, watch_from);
                }
                Ok(Heard::Nothing) => next = self.turn(&mut watch, watch_from),
                Err(error) => {
                    // Looking every few seconds still works.
                    tracing::warn!(
                        see = %ErrorName::ManifestFolder,
                        "cannot hear of changes in {}: {error}",
                        self.folder.path().display()
                    );
                    thread::sleep(LOOK_EVERY);
                    next = Instant::now();
                }
            }
        }
    }

    /// Looks at the folder; says when to do so again, whatever is heard.
    fn turn(&mut self, watch: &mut Watch, watch_from: Instant) -> Instant {
        if Instant::now() < watch_from {
            return Instant::now() + self.look_or_say(watch).min(LOOK_UNWATCHED);
        }
        let is_new = watch.renew().unwrap_or_else(|error| {
            // That the folder is away, the look says.
            if error.kind() != io::ErrorKind::NotFound && !self.is_deaf {
                tracing::warn!(
                    see = %ErrorName::ManifestFolder,
                    "cannot watch {}: {error}; it is looked at every {LOOK_EVERY:?} (see fs.inotify.max_user_watches)",
                    self.folder.path().display()
                );
                self.is_deaf = true;
            }
            false
        });
        let wait = self.look_or_say(watch);
        Instant::now() + if is_new { wait.min(SETTLE) } else { wait }
    }

    /// Looks, and says once if there is nothing to look at. Answers when to look again.
    fn look_or_say(&mut self, watch: &Watch) -> Duration {
        match self.look(Some(watch)) {
            Ok(look) => look.again_in.unwrap_or(LOOK_EVERY),
            Err(error) => {
                self.away = Some(error.to_string());
                self.tell_problems();
                LOOK_EVERY
            }
        }
    }
}
