//! Waiting for a condition with a deadline that only ends a test that has already failed.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Long enough for the slowest machine, so that it never decides a test's outcome.
const LIMIT: Duration = Duration::from_secs(30);
/// The first pause between two questions; each is twice as long as the one before.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// Asks until there is an answer, for at most 30 s. `what` completes "waited in vain for …".
///
/// # Errors
/// After 30 s without an answer.
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> Result<T> {
    until(LIMIT, what, ask)
}

/// Asks until there is an answer, for at most `limit`.
///
/// # Errors
/// After `limit` without an answer.
pub fn until<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let end = Instant::now() + limit;
    let mut pause = PAUSE_MIN;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() >= end {
            bail!("waited in vain for {what} ({limit:?})");
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
