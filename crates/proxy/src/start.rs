//! [`start_proxy`] starts the workers, one thread and one single-threaded runtime each, and is the only thing
//! that a composition calls. A worker accepts until its drain has ended.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use model::ErrorName;
use registry::Snapshot;
use runtime::drain;
use runtime::random::Random;
use runtime::ready::Gate;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::config::{Config, Listeners};
use crate::listen;
use crate::peers::{Inbox, Peers};
use crate::worker::Worker;

/// How often a draining worker looks whether it may end.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// Turns of a worker's tasks after which it has accepted what was waiting.
const TURNS_TO_ACCEPT: u32 = 4;
/// How often connections past their deadline are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// The proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A worker's thread or runtime could not be made.
    #[error("cannot start a worker")]
    Worker(#[source] runtime::thread::Error),
    /// A listener could not be shared among workers.
    #[error("cannot share a listener among workers")]
    Share(#[source] io::Error),
}

/// A running proxy.
#[derive(Debug)]
pub struct Handle {
    workers: Vec<runtime::thread::Handle<Served>>,
}

/// What became of connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Served {
    /// All that there were.
    pub connections: u64,
    /// Those of them that the end of the drain cut off in the middle of something.
    pub cut_off: u64,
}

impl Handle {
    /// Resolves when every worker has ended or is about to.
    pub async fn ended(&mut self) {
        for worker in &mut self.workers {
            worker.ended().await;
        }
    }

    /// Waits until every worker has ended, which each does after a drain.
    pub fn join(self) -> Served {
        let mut all = Served::default();
        for worker in self.workers {
            match worker.join() {
                Ok(served) => {
                    all.connections += served.connections;
                    all.cut_off += served.cut_off;
                }
                Err(error) => {
                    tracing::error!(see = %ErrorName::Defect, %error, "a worker ended badly; this is a defect of weir");
                }
            }
        }
        all
    }
}

/// Starts the data path: `config.workers` threads that accept from `listeners`. It ends by
/// `config.drain`.
///
/// # Errors
/// Where a thread cannot be made.
pub fn start_proxy(config: Config, listeners: Listeners) -> Result<Handle, StartError> {
    let count = config.workers.max(1);
    let (peers, inboxes) = Peers::join(count);
    let peers = Arc::new(peers);
    let shares = listen::share(listeners, count).map_err(StartError::Share)?;
    let mut workers = Vec::with_capacity(count);
    let configs = std::iter::repeat_n(config, count);
    for (((index, inbox), listeners), config) in inboxes.into_iter().enumerate().zip(shares).zip(configs) {
        let ready = config.readiness.gate("worker");
        let peers = Arc::clone(&peers);
        let start = Start {
            index,
            config,
            listeners,
            inbox,
            peers,
            ready,
        };
        let worker = runtime::thread::spawn(&format!("weir-worker-{index}"), move || run(start));
        workers.push(worker.map_err(StartError::Worker)?);
    }
    Ok(Handle { workers })
}

/// What one worker's thread is started with.
struct Start {
    index: usize,
    config: Config,
    listeners: Vec<listen::Share>,
    inbox: Inbox,
    peers: Arc<Peers>,
    ready: Gate,
}

/// A worker's whole life.
async fn run(start: Start) -> Served {
    let Start {
        index,
        config,
        listeners,
        inbox,
        peers,
        ready,
    } = start;
    let worker = Rc::new(Worker::new(index, peers, &config, Random::from_system()));
    let mut tasks = vec![
        tokio::task::spawn_local(listen::take_in(Rc::clone(&worker), inbox)),
        tokio::task::spawn_local(follow(Rc::clone(&worker), config.snapshots)),
        tokio::task::spawn_local(sweep(Rc::clone(&worker))),
    ];
    match listeners
        .into_iter()
        .map(listen::adopt)
        .collect::<io::Result<Vec<_>>>()
    {
        Ok(listeners) => {
            let accept = |listener| tokio::task::spawn_local(listen::accept(Rc::clone(&worker), listener));
            tasks.extend(listeners.into_iter().map(accept));
            ready.open();
        }
        Err(error) => {
            tracing::error!(see = %ErrorName::ListenerLost, %error, "a listener cannot be polled; the proxy will not be ready");
        }
    }
    let cut_off = drain_after(&worker, config.drain, config.quiet).await;
    for task in tasks {
        task.abort();
    }
    Served {
        connections: worker.lives.connections(),
        cut_off,
    }
}

/// Keeps the worker's snapshot the newest one.
async fn follow(worker: Rc<Worker>, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
    while snapshots.changed().await.is_ok() {
        worker.show(snapshots.borrow_and_update().clone());
    }
}

/// Looks for connections past their deadline, and for what is not used any more.
async fn sweep(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        worker.sweep();
    }
}

/// Waits for the drain, and then until no worker has had anything to do for `quiet`, or the drain's
/// deadline passes, whichever comes first. New connections are accepted all the while: they have nowhere
/// else to go, and a listener that closes resets what waits in its backlog.
/// Answers how many connections were in the middle of something then.
async fn drain_after(worker: &Worker, drain: drain::Watch, quiet: Duration) -> u64 {
    drain.draining().await;
    worker.lives.drain();
    let mut quiet_since = Instant::now();
    let mut begun_before = 0;
    // What waits in a backlog by now is accepted first, whichever worker it is then handed to.
    for _ in 0..TURNS_TO_ACCEPT {
        tokio::task::yield_now().await;
    }
    loop {
        let (busy, begun) = worker.peers.activity(worker.index, &worker.lives);
        let is_busy = busy > 0;
        // What began and ended since the last look counts, too.
        if is_busy || begun != begun_before {
            quiet_since = Instant::now();
            begun_before = begun;
        }
        // Read each time: a second signal brings it nearer.
        let is_late = drain.deadline().is_none_or(|deadline| deadline <= Instant::now());
        let quiet = if drain.is_last_call() {
            Duration::ZERO
        } else {
            quiet
        };
        if is_late || !is_busy && quiet_since.elapsed() >= quiet {
            break;
        }
        tokio::time::sleep(DRAIN_LOOK).await;
    }
    let cut_off = worker.lives.busy() as u64;
    worker.lives.cut();
    // A turn lets each connection see it, report and close.
    let _ = tokio::time::timeout(SWEEP, async {
        while worker.lives.count() > 0 {
            worker.lives.ended.notified().await;
        }
    })
    .await;
    cut_off
}
