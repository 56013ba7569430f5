//! A word on standard error about what takes long, so that nobody takes it for a program that hangs.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use crate::errors;

/// After which people wonder.
const SOON: Duration = Duration::from_secs(1);

/// Does it; where it is not done soon, says what is waited for.
pub(super) fn waiting<T>(what: &str, f: impl FnOnce() -> T) -> T {
    let (done, is_done) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if is_done.recv_timeout(SOON) == Err(RecvTimeoutError::Timeout) {
                errors::say(&format!("weir: waiting {what}"));
            }
        });
        let result = f();
        drop(done);
        result
    })
}
