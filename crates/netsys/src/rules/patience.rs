//! How long this process waits for others before it gives up with an error that names them: said once, where it
//! starts, and asked by whatever waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// As istio-iptables waits for the lock of iptables-legacy.
const USUAL: u64 = 30;

static SECONDS: AtomicU64 = AtomicU64::new(USUAL);

/// Waits so many seconds, instead of 30, for another writer of rules, and twice as long for a program.
pub fn wait_at_most(seconds: u64) {
    SECONDS.store(seconds, Ordering::Relaxed);
}

/// For another run, or for the lock of iptables-legacy.
pub(super) fn for_writer() -> Duration {
    Duration::from_secs(SECONDS.load(Ordering::Relaxed))
}

/// For a program that was started: iptables-legacy itself waits for others.
pub(super) fn for_program() -> Duration {
    for_writer() * 2
}
