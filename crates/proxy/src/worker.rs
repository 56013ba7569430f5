//! A worker's own things: what its connections use on their way, none of it shared with another thread but
//! the registry's atomics and the metrics.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use registry::{Cluster, Pick, Snapshot, Target};
use runtime::random::Random;

use crate::buffers::Buffers;
use crate::config::{Config, Sockets};
use crate::http::buffer::Spares;
use crate::http::pool::Pool;
use crate::life::{Life, Lives};
use crate::own::FEW;
use crate::peers::Peers;
use crate::report::Reporter;

/// Connections that a worker may hand over between two sweeps. Few long connections would else share one
/// core, for the kernel deals them out at random; of many short ones it is not worth the waking.
const HANDOVERS: u32 = 32;

/// One worker's own things.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) peers: Arc<Peers>,
    pub(crate) reports: Reporter,
    pub(crate) sockets: Arc<dyn Sockets>,
    pub(crate) max_connections: usize,
    pub(crate) buffers: Rc<Buffers>,
    /// Buffers of HTTP connections.
    pub(crate) spares: Spares,
    /// Unused upstream connections of HTTP.
    pub(crate) pool: Pool,
    pub(crate) lives: Rc<Lives>,
    /// Connections at which the next ones dialled are noted.
    many: Cell<usize>,
    snapshot: RefCell<Arc<Snapshot>>,
    random: RefCell<Random>,
    /// Connections that may still be handed to other workers before the next sweep.
    handovers: Cell<u32>,
    connections: Cell<u64>,
}

impl Worker {
    /// Worker `index` of those that `peers` counts.
    pub(crate) fn new(index: usize, peers: Arc<Peers>, config: &Config, random: Random) -> Self {
        Self {
            index,
            reports: config.reports.reporter(),
            sockets: Arc::clone(&config.sockets),
            max_connections: (config.max_connections / peers.count()).max(1),
            buffers: Rc::new(Buffers::new()),
            spares: Spares::default(),
            pool: Pool::default(),
            lives: Rc::new(Lives::new()),
            many: Cell::new(FEW),
            snapshot: RefCell::new(Arc::clone(&config.snapshots.borrow())),
            random: RefCell::new(random),
            handovers: Cell::new(HANDOVERS),
            connections: Cell::new(0),
            peers,
        }
    }

    /// The registry as it is now.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// Takes over a newer snapshot.
    pub(crate) fn show(&self, snapshot: Arc<Snapshot>) {
        self.snapshot.replace(snapshot);
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

    /// A connection begins here.
    pub(crate) fn begin(&self) -> Life {
        let life = self.lives.begin();
        let count = self.lives.count();
        if count >= self.many.get() {
            self.many.set(2 * count);
            self.peers.own.suspect();
        }
        self.peers.publish(self.index, count);
        life
    }

    /// The worker that is to serve a connection accepted here: mostly this one.
    pub(crate) fn place(&self) -> usize {
        let index = self.peers.least_loaded(self.index, self.lives.count());
        let left = self.handovers.get();
        if index == self.index || left == 0 {
            return self.index;
        }
        self.handovers.set(left - 1);
        index
    }

    /// Drops what has been unused for too long. Called once a second.
    pub(crate) fn sweep(&self) {
        self.lives.sweep();
        self.handovers.set(HANDOVERS);
        self.many.set(FEW.max(2 * self.lives.count()));
        self.peers.own.sweep();
        self.reports.forget_unused();
        self.with_snapshot(|snapshot| self.pool.sweep(snapshot, self.now()));
    }

    /// Number of the next connection, unique within the process.
    pub(crate) fn next_connection(&self) -> u64 {
        let next = self.connections.get();
        self.connections.set(next + 1);
        next * self.peers.count() as u64 + self.index as u64 + 1
    }
}

#[cfg(test)]
impl Worker {
    /// A worker without a thread or listeners of its own.
    pub(crate) fn alone(snapshot: Arc<Snapshot>, reports: &crate::report::Reports) -> Rc<Self> {
        let (_, drain) = runtime::drain::channel();
        let config = Config {
            workers: 1,
            max_connections: usize::MAX,
            sockets: Arc::new(crate::config::Kernel::default()),
            snapshots: tokio::sync::watch::channel(snapshot).1,
            reports: reports.clone(),
            drain,
            quiet: std::time::Duration::ZERO,
            readiness: runtime::ready::Readiness::default(),
        };
        let (peers, _) = Peers::join(1);
        Rc::new(Self::new(0, Arc::new(peers), &config, Random::from_seed(1)))
    }
}
