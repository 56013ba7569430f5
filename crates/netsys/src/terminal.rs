//! The terminal that a report is printed to.

use std::io::IsTerminal;
use std::os::fd::AsFd;

/// Width of a terminal in columns; `None` for anything else, and for one that does not know its size.
#[must_use]
pub fn columns<T: AsFd + IsTerminal>(of: &T) -> Option<usize> {
    if !of.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(of).ok()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}
