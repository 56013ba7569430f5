//! What workers know of each other: how busy each is, and how to hand it a connection.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use model::Remote;
use tokio::sync::mpsc;

use crate::capture::Way;
use crate::life::Lives;
use crate::own::OwnConnections;

/// A connection that one worker accepted and another is to serve.
pub(crate) struct Handover {
    pub(crate) way: Way,
    pub(crate) client: std::net::TcpStream,
    pub(crate) source: Remote,
}

/// What workers know of each other, and what they note together.
pub(crate) struct Peers {
    peers: Vec<Peer>,
    pub(crate) own: OwnConnections,
}

struct Peer {
    connections: AtomicUsize,
    /// Within a drain: what [`Lives::begun`] says.
    begun: AtomicU64,
    inbox: mpsc::UnboundedSender<Handover>,
}

/// Where a worker finds what others hand over to it.
pub(crate) type Inbox = mpsc::UnboundedReceiver<Handover>;

impl Peers {
    /// So many workers, and the inbox of each.
    pub(crate) fn join(count: usize) -> (Self, Vec<Inbox>) {
        let peer = || {
            let (inbox, receiver) = mpsc::unbounded_channel();
            let peer = Peer {
                connections: AtomicUsize::new(0),
                begun: AtomicU64::new(0),
                inbox,
            };
            (peer, receiver)
        };
        let (peers, inboxes) = (0..count).map(|_| peer()).unzip();
        let own = OwnConnections::default();
        (Self { peers, own }, inboxes)
    }

    /// How many workers there are.
    pub(crate) fn count(&self) -> usize {
        self.peers.len()
    }

    /// Publishes how many connections worker `index` has.
    pub(crate) fn publish(&self, index: usize, connections: usize) {
        if let Some(peer) = self.peers.get(index) {
            peer.connections.store(connections, Ordering::Relaxed);
        }
    }

    /// Publishes what worker `index` does, and says how many connections of all workers do something, and
    /// how many connections and requests have begun.
    pub(crate) fn activity(&self, index: usize, lives: &Lives) -> (usize, u64) {
        self.publish(index, lives.busy());
        if let Some(peer) = self.peers.get(index) {
            peer.begun.store(lives.begun(), Ordering::Relaxed);
        }
        let busy = self
            .peers
            .iter()
            .map(|peer| peer.connections.load(Ordering::Relaxed));
        let begun = self.peers.iter().map(|peer| peer.begun.load(Ordering::Relaxed));
        (busy.sum(), begun.sum())
    }

    /// The worker with the fewest connections, unless `index` with its `own` has at most one more.
    pub(crate) fn least_loaded(&self, index: usize, own: usize) -> usize {
        let loads = self
            .peers
            .iter()
            .map(|peer| peer.connections.load(Ordering::Relaxed));
        match loads.zip(0..).min() {
            Some((least, other)) if own > least + 1 => other,
            _ => index,
        }
    }

    /// Hands a connection over; gives it back where that worker has ended.
    pub(crate) fn hand(&self, index: usize, connection: Handover) -> Result<(), Handover> {
        let Some(peer) = self.peers.get(index) else {
            return Err(connection);
        };
        peer.connections.fetch_add(1, Ordering::Relaxed);
        peer.inbox.send(connection).map_err(|refused| refused.0)
    }
}
