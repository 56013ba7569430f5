//! A worker: one thread, one single-threaded runtime, its own buffers and pools. [`start_proxy`] starts
//! them all and is the only thing a composition calls.

use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use model::{ErrorName, Remote};
use netsys::pipe::Pipe;
use registry::{Cluster, Pick, Snapshot, Target};
use runtime::drain;
use runtime::random::Random;
use runtime::ready::Gate;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::config::{Config, Listeners, Sockets};
use crate::http::buffer::Spares;
use crate::http::pool::Pool;
use crate::life::Lives;
use crate::listen::{self, Way};
use crate::report::Reporter;

/// Size of the scratch buffer that all of a worker's connections read into.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Size asked for each pipe.
const PIPE_BYTES: usize = 1024 * 1024;
/// Pipes kept for the next connection that carries bulk.
const PIPES_KEPT: usize = 16;
/// Connections that a worker may hand over between two sweeps. Few long connections would else share one
/// core, for the kernel deals them out at random; of many short ones it is not worth the waking.
const HANDOVERS: u32 = 32;
/// How often a draining worker looks whether it may end.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// Turns of a worker's tasks after which it has accepted what was waiting.
const TURNS_TO_ACCEPT: u32 = 4;
/// How often connections past their deadline are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// One worker's own things.
pub(crate) struct Worker {
    pub(crate) reports: Reporter,
    pub(crate) sockets: Arc<dyn Sockets>,
    pub(crate) buffers: Rc<Buffers>,
    /// Buffers of HTTP connections.
    pub(crate) spares: Spares,
    /// Unused upstream connections of HTTP.
    pub(crate) pool: Pool,
    pub(crate) lives: Rc<Lives>,
    pub(crate) max_connections: usize,
    /// Connections that may still be handed to other workers before the next sweep.
    pub(crate) handovers: Cell<u32>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) index: usize,
    snapshot: RefCell<Arc<Snapshot>>,
    random: RefCell<Random>,
    connections: Cell<u64>,
}

impl Worker {
    /// The registry as it is now.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// Looks at the registry as it is now.
    pub(crate) fn with_snapshot<T>(&self, look: impl FnOnce(&Snapshot) -> T) -> T {
        look(&self.snapshot.borrow())
    }

    /// Whether anybody wants to know how connections end.
    pub(crate) fn tells_records(&self) -> bool {
        self.reports
            .wants_records(self.snapshot.borrow().settings.access_log)
    }

    /// Milliseconds on the clock that ejections are kept by.
    pub(crate) fn now(&self) -> u64 {
        runtime::clock::millis()
    }

    /// 64 random bits, not for secrets.
    pub(crate) fn random(&self) -> u64 {
        self.random.borrow_mut().bits()
    }

    /// Chooses an endpoint of a cluster.
    pub(crate) fn pick(&self, cluster: &Cluster, client: IpAddr, tried: &[SocketAddr]) -> Option<Pick> {
        cluster.pick(self.now(), &mut || self.random(), client, tried)
    }

    /// Counts a failure of an endpoint, which may eject it.
    pub(crate) fn note_failure(&self, cluster: &Cluster, target: &Target) {
        if cluster.failed(target, self.now()) {
            self.reports.ejected(&cluster.name, target.address);
        }
    }

    /// Number of the next connection, unique within the process.
    pub(crate) fn next_connection(&self) -> u64 {
        let next = self.connections.get();
        self.connections.set(next + 1);
        next * self.peers.0.len() as u64 + self.index as u64 + 1
    }
}

#[cfg(test)]
impl Worker {
    /// A worker without a thread or listeners of its own.
    pub(crate) fn alone(snapshot: Arc<Snapshot>, reports: &crate::report::Reports) -> Rc<Self> {
        Rc::new(Self {
            reports: reports.reporter(),
            sockets: Arc::new(crate::config::Kernel::default()),
            buffers: Rc::new(Buffers::new()),
            spares: Spares::default(),
            pool: Pool::default(),
            lives: Rc::new(Lives::new()),
            max_connections: usize::MAX,
            handovers: Cell::new(HANDOVERS),
            peers: Arc::new(Peers(Vec::new())),
            index: 0,
            snapshot: RefCell::new(snapshot),
            random: RefCell::new(Random::from_seed(1)),
            connections: Cell::new(0),
        })
    }

    /// Takes over a newer snapshot, as `follow` does.
    pub(crate) fn show(&self, snapshot: Arc<Snapshot>) {
        self.snapshot.replace(snapshot);
    }
}

/// Buffers that connections borrow while bytes flow.
pub(crate) struct Buffers {
    scratch: RefCell<Box<[u8]>>,
    pipes: RefCell<Vec<Pipe>>,
}

impl Buffers {
    pub(crate) fn new() -> Self {
        Self {
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into()),
            pipes: RefCell::default(),
        }
    }

    /// The one scratch buffer; given back before anything is awaited.
    pub(crate) fn scratch(&self) -> RefMut<'_, Box<[u8]>> {
        self.scratch.borrow_mut()
    }

    /// An empty pipe; none where descriptors run out.
    pub(crate) fn take_pipe(&self) -> Option<Pipe> {
        let kept = self.pipes.borrow_mut().pop();
        kept.or_else(|| Pipe::new(PIPE_BYTES).ok())
    }

    /// Gives a pipe back; one that still holds bytes, or one too many, is closed.
    pub(crate) fn give_pipe(&self, pipe: Pipe) {
        let mut pipes = self.pipes.borrow_mut();
        if pipe.held() == 0 && pipes.len() < PIPES_KEPT {
            pipes.push(pipe);
        }
    }
}

/// A connection that one worker accepted and another is to serve.
pub(crate) struct Handover {
    pub(crate) way: Way,
    pub(crate) client: std::net::TcpStream,
    pub(crate) source: Remote,
}

/// What workers know of each other: how busy each is, and how to hand it a connection.
pub(crate) struct Peers(Vec<Peer>);

struct Peer {
    connections: AtomicUsize,
    /// Within a drain: what [`Lives::begun`] says.
    begun: AtomicU64,
    inbox: mpsc::UnboundedSender<Handover>,
}

impl Peers {
    /// Publishes how many connections worker `index` has.
    pub(crate) fn publish(&self, index: usize, connections: usize) {
        if let Some(peer) = self.0.get(index) {
            peer.connections.store(connections, Ordering::Relaxed);
        }
    }

    /// Publishes what worker `index` does, and says how many connections of all workers do something, and
    /// how many connections and requests have begun.
    fn activity(&self, index: usize, lives: &Lives) -> (usize, u64) {
        self.publish(index, lives.busy());
        if let Some(peer) = self.0.get(index) {
            peer.begun.store(lives.begun(), Ordering::Relaxed);
        }
        let busy = self.0.iter().map(|peer| peer.connections.load(Ordering::Relaxed));
        let begun = self.0.iter().map(|peer| peer.begun.load(Ordering::Relaxed));
        (busy.sum(), begun.sum())
    }

    /// The worker with the fewest connections, unless `index` with its `own` has at most one more.
    pub(crate) fn least_loaded(&self, index: usize, own: usize) -> usize {
        let loads = self.0.iter().map(|peer| peer.connections.load(Ordering::Relaxed));
        match loads.zip(0..).min() {
            Some((least, other)) if own > least + 1 => other,
            _ => index,
        }
    }

    /// Hands a connection over; gives it back where that worker has ended.
    pub(crate) fn hand(&self, index: usize, connection: Handover) -> Result<(), Handover> {
        let Some(peer) = self.0.get(index) else {
            return Err(connection);
        };
        peer.connections.fetch_add(1, Ordering::Relaxed);
        peer.inbox.send(connection).map_err(|refused| refused.0)
    }
}

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
    workers: Vec<runtime::thread::Handle<()>>,
}

impl Handle {
    /// Resolves when every worker has ended or is about to.
    pub async fn ended(&mut self) {
        for worker in &mut self.workers {
            worker.ended().await;
        }
    }

    /// Waits until every worker has ended, which each does after a drain.
    pub fn join(self) {
        for worker in self.workers {
            if let Err(error) = worker.join() {
                tracing::error!(see = %ErrorName::Defect, %error, "a worker ended badly; this is a defect of weir");
            }
        }
    }
}

/// Starts the data path: `config.workers` threads that accept from `listeners`. It ends by
/// `config.drain`.
///
/// # Errors
/// Where a thread cannot be made.
pub fn start_proxy(config: Config, listeners: Listeners) -> Result<Handle, StartError> {
    let count = config.workers.max(1);
    let (inboxes, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::unbounded_channel()).unzip();
    let peers = inboxes.into_iter().map(|inbox| Peer {
        connections: AtomicUsize::new(0),
        begun: AtomicU64::new(0),
        inbox,
    });
    let peers = Arc::new(Peers(peers.collect()));
    let shares = listen::share(listeners, count).map_err(StartError::Share)?;
    let mut workers = Vec::with_capacity(count);
    let configs = std::iter::repeat_n(config, count);
    for (((index, inbox), listeners), config) in receivers.into_iter().enumerate().zip(shares).zip(configs) {
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
    inbox: mpsc::UnboundedReceiver<Handover>,
    peers: Arc<Peers>,
    ready: Gate,
}

/// A worker's whole life.
async fn run(start: Start) {
    let Start {
        index,
        config,
        listeners,
        inbox,
        peers,
        ready,
    } = start;
    let mut snapshots = config.snapshots;
    let worker = Rc::new(Worker {
        reports: config.reports.reporter(),
        sockets: config.sockets,
        buffers: Rc::new(Buffers::new()),
        spares: Spares::default(),
        pool: Pool::default(),
        lives: Rc::new(Lives::new()),
        max_connections: (config.max_connections / peers.0.len()).max(1),
        handovers: Cell::new(HANDOVERS),
        peers,
        index,
        snapshot: RefCell::new(snapshots.borrow_and_update().clone()),
        random: RefCell::new(Random::from_system()),
        connections: Cell::new(0),
    });
    let mut tasks = vec![
        tokio::task::spawn_local(listen::take_in(Rc::clone(&worker), inbox)),
        tokio::task::spawn_local(follow(Rc::clone(&worker), snapshots)),
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
    drain_after(&worker, config.drain, config.quiet).await;
    for task in tasks {
        task.abort();
    }
}

/// Keeps the worker's snapshot the newest one.
async fn follow(worker: Rc<Worker>, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
    while snapshots.changed().await.is_ok() {
        worker.snapshot.replace(snapshots.borrow_and_update().clone());
    }
}

/// Looks for connections past their deadline.
async fn sweep(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        worker.lives.sweep();
        worker.handovers.set(HANDOVERS);
        worker.reports.forget_unused();
        worker.with_snapshot(|snapshot| worker.pool.sweep(snapshot, worker.now()));
    }
}

/// Waits for the drain, and then until no worker has had anything to do for `quiet`, or the drain's
/// deadline passes, whichever comes first. New connections are accepted all the while: they have nowhere
/// else to go, and a listener that closes resets what waits in its backlog.
async fn drain_after(worker: &Worker, drain: drain::Watch, quiet: Duration) {
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
        if is_late || !is_busy && quiet_since.elapsed() >= quiet {
            break;
        }
        tokio::time::sleep(DRAIN_LOOK).await;
    }
    worker.lives.cut();
    // A turn lets each connection see it, report and close.
    let _ = tokio::time::timeout(SWEEP, async {
        while worker.lives.count() > 0 {
            worker.lives.ended.notified().await;
        }
    })
    .await;
}
