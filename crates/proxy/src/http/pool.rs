//! Upstream connections kept for the next request; one pool a worker. A connection is kept only while
//! nothing was said on it that was not asked for, and found out at the latest by the next sweep.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use model::Direction;
use registry::{EndpointState, Snapshot, Target};
use tokio::net::TcpStream;

/// Connections kept for one endpoint.
const KEPT_MAX: usize = 256;
/// Connections kept in all. Where each client has its own, few are used again.
const KEPT_MAX_IN_ALL: usize = 2048;

/// One worker's unused upstream connections.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    endpoints: RefCell<HashMap<Key, Endpoint, BuildHasherDefault<KeyHasher>>>,
    /// Sweeps so far, one a second: the pool's clock.
    seconds: Cell<u32>,
    /// Connections kept.
    kept: Cell<usize>,
}

/// For whom a connection may be used again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Side {
    pub(super) direction: Direction,
    /// The client whose address it has; none where it has the proxy's.
    pub(super) source: Option<IpAddr>,
}

/// Whose connections, by the address of its state, which [`Endpoint`] keeps: another workload at the same
/// address has another state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Key(usize, Side);

impl Key {
    fn of(side: Side, target: &Target) -> Self {
        Self(Arc::as_ptr(&target.state).addr(), side)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_usize(self.0);
        // Few endpoints are reached in both directions, and each client has an address of its own.
        match self.1.source {
            None => {}
            Some(IpAddr::V4(source)) => hasher.write_u64(source.to_bits().into()),
            Some(IpAddr::V6(source)) => {
                let bits = source.to_bits();
                hasher.write_u64((bits >> 64) as u64);
                hasher.write_u64(bits as u64);
            }
        }
    }
}

/// Spreads the bits of addresses. What a client could choose of its own, to make keys collide, it must also
/// be able to receive at. Asked twice for each request.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_u64(&mut self, number: u64) {
        // Fibonacci hashing; the table looks at the lowest and the highest bits.
        self.0 = (self.0 ^ number)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(32);
    }
}

#[derive(Debug)]
struct Endpoint {
    direction: Direction,
    address: SocketAddr,
    state: Arc<EndpointState>,
    /// The last one given back is the first one taken.
    unused: Vec<Unused>,
}

#[derive(Debug)]
struct Unused {
    kept: Kept,
    since: u32,
}

/// A connection on which nothing is under way.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) stream: TcpStream,
    /// Its last answer was large, so that the next one may be.
    pub(super) bulk: bool,
}

impl Pool {
    /// The connection to `target` that was used last, if one is there and still silent.
    pub(super) fn take(&self, side: Side, target: &Target) -> Option<Kept> {
        let mut endpoints = self.endpoints.borrow_mut();
        let endpoint = endpoints.get_mut(&Key::of(side, target))?;
        while let Some(Unused { kept, .. }) = endpoint.unused.pop() {
            self.kept.set(self.kept.get() - 1);
            if is_silent(&kept.stream) {
                return Some(kept);
            }
        }
        None
    }

    /// Keeps a connection for the next request.
    pub(super) fn give(&self, side: Side, target: &Target, kept: Kept) {
        if self.kept.get() >= KEPT_MAX_IN_ALL {
            return;
        }
        let mut endpoints = self.endpoints.borrow_mut();
        let endpoint = endpoints
            .entry(Key::of(side, target))
            .or_insert_with(|| Endpoint {
                direction: side.direction,
                address: target.address,
                state: Arc::clone(&target.state),
                unused: Vec::new(),
            });
        if endpoint.unused.len() < KEPT_MAX {
            let since = self.seconds.get();
            endpoint.unused.push(Unused { kept, since });
            self.kept.set(self.kept.get() + 1);
        }
    }

    /// Closes all connections to an endpoint that one of them shows to be gone.
    pub(super) fn forget(&self, side: Side, target: &Target) {
        if let Some(gone) = self.endpoints.borrow_mut().remove(&Key::of(side, target)) {
            self.kept.set(self.kept.get() - gone.unused.len());
        }
    }

    /// Closes what the endpoint closed or spoke on, what was unused for long, and what leads to
    /// endpoints that left the registry or are ejected. Called once a second.
    pub(crate) fn sweep(&self, snapshot: &Snapshot, now: u64) {
        let seconds = self.seconds.get() + 1;
        self.seconds.set(seconds);
        let longest = whole_seconds(snapshot.settings.pool_idle_timeout);
        let mut kept = 0;
        self.endpoints.borrow_mut().retain(|_, endpoint| {
            if endpoint.state.is_ejected(now) || !endpoint.is_current(snapshot) {
                return false;
            }
            endpoint
                .unused
                .retain(|unused| seconds - unused.since <= longest && is_silent(&unused.kept.stream));
            kept += endpoint.unused.len();
            !endpoint.unused.is_empty()
        });
        self.kept.set(kept);
    }

    /// Connections kept now.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.endpoints
            .borrow()
            .values()
            .map(|endpoint| endpoint.unused.len())
            .sum()
    }
}

impl Endpoint {
    /// Whether the registry still has it.
    fn is_current(&self, snapshot: &Snapshot) -> bool {
        let is_same = |target: &Target| Arc::ptr_eq(&target.state, &self.state);
        match self.direction {
            Direction::Outbound => snapshot
                .by_endpoint
                .get(&self.address)
                .is_some_and(|(_, target)| is_same(target)),
            Direction::Inbound => snapshot
                .inbound
                .get(&self.address.port())
                .is_some_and(|cluster| cluster.targets.iter().any(|target| is_same(target))),
        }
    }
}

/// Whether neither a byte nor an end has come. Costs no system call while the reactor knows of none.
fn is_silent(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

fn whole_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}
