//! The proxy's own connections, where rules capture them again: each would be dialled once more, without an
//! end. The rules let the proxy's traffic pass by its user, and nothing in a connection that is accepted says
//! whose it is; so, where connections grow suspiciously many, those dialled next are noted by their addresses and
//! known when they come back. Until then this costs a comparison a connection.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use model::{ErrorName, OrigDst, Remote};

/// Connections of one worker that are not yet suspicious.
pub(crate) const FEW: usize = 64;
/// Connections that are noted at a time.
const NOTED: u32 = 64;
/// How often it is told of, in milliseconds.
const TOLD_EVERY: u64 = 60_000;

/// What all workers have noted.
#[derive(Debug, Default)]
pub(crate) struct OwnConnections {
    /// Connections still to be noted.
    left: AtomicU32,
    has_noted: AtomicBool,
    /// As they look when they come back.
    noted: Mutex<VecDeque<(Remote, OrigDst)>>,
    /// When it was told of last.
    told: AtomicU64,
}

impl OwnConnections {
    /// Connections grow: the next ones dialled are noted.
    pub(crate) fn suspect(&self) {
        self.left.store(NOTED, Ordering::Relaxed);
    }

    /// A connection to `endpoint` is being made; `local` asks for its own address.
    pub(crate) fn dialed(&self, local: impl FnOnce() -> io::Result<SocketAddr>, endpoint: SocketAddr) {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return;
        }
        // Two workers may take the same turn: one more is noted then.
        self.left.store(left - 1, Ordering::Relaxed);
        // Gone already: it does not come back.
        let Ok(local) = local() else { return };
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() >= NOTED as usize {
            noted.pop_front();
        }
        noted.push_back((Remote::new(local), OrigDst::new(endpoint)));
        self.has_noted.store(true, Ordering::Relaxed);
    }

    /// Whether a connection that came in is one of those; that is told.
    pub(crate) fn has(&self, source: Remote, original_dst: OrigDst) -> bool {
        if !self.has_noted.load(Ordering::Relaxed) {
            return false;
        }
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let is_own = noted.contains(&(source, original_dst));
        drop(noted);
        if is_own {
            self.suspect();
            self.tell(original_dst);
        }
        is_own
    }

    /// Forgets what did not come back. Called about once a second.
    pub(crate) fn sweep(&self) {
        if self.left.load(Ordering::Relaxed) == 0 && self.has_noted.swap(false, Ordering::Relaxed) {
            let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
            noted.clear();
        }
    }

    fn tell(&self, original_dst: OrigDst) {
        let now = runtime::clock::millis();
        let told = self.told.load(Ordering::Relaxed);
        if told != 0 && now.saturating_sub(told) < TOLD_EVERY {
            return;
        }
        self.told.store(now.max(1), Ordering::Relaxed);
        let ids = netsys::process::ids(std::process::id()).ok();
        tracing::error!(
            see = %ErrorName::Loop,
            to = %original_dst,
            uid = ids.as_ref().map(|ids| ids.uid),
            gid = ids.as_ref().map(|ids| ids.gid),
            "the rules capture the proxy's own connections and bring them back to it; they are closed. Run the proxy as the user that the rules let pass, or tell `weir init` who it is"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_was_dialled_is_known_when_it_comes_back_and_nothing_else_is() {
        let own = OwnConnections::default();
        let (local, to) = (address("10.0.0.1:40000"), address("10.0.0.2:80"));
        let has = |local, to| own.has(Remote::new(local), OrigDst::new(to));
        own.dialed(|| panic!("nobody is suspected"), to);
        assert!(!has(local, to));

        own.suspect();
        own.dialed(|| Ok(local), to);
        assert!(has(local, to));
        assert!(!has(address("10.0.0.1:40001"), to), "another client's port");
        assert!(!has(local, address("10.0.0.2:81")), "another destination");

        for port in 1..=2 * NOTED as u16 {
            own.dialed(|| Ok(address(&format!("10.0.0.1:{port}"))), to);
        }
        assert!(!has(local, to), "no more than that many are kept");
        own.sweep();
        assert!(
            !has(address(&format!("10.0.0.1:{NOTED}")), to),
            "those were forgotten"
        );
    }

    #[test]
    fn an_address_of_both_families_is_one() {
        let own = OwnConnections::default();
        own.suspect();
        own.dialed(
            || Ok(address("[::ffff:10.0.0.1]:1")),
            address("[::ffff:10.0.0.2]:2"),
        );
        assert!(own.has(
            Remote::new(address("10.0.0.1:1")),
            OrigDst::new(address("10.0.0.2:2"))
        ));
    }
}
