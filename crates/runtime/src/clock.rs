//! One monotonic clock for the whole process, in milliseconds: what ejections are kept by, and dumped by.

use std::sync::LazyLock;
use std::time::Instant;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds since the clock was first asked.
#[must_use]
pub fn millis() -> u64 {
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}
