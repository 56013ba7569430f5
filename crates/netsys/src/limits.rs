//! What the kernel allows this process.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Where the limit is none, so many are planned for.
const PLENTY: usize = 1 << 20;

/// Raises the limit of descriptors as far as it goes without privilege, and says what it is now.
///
/// # Errors
/// Where the kernel refuses, which it does not for a soft limit.
pub fn raise_descriptors() -> io::Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )?;
    Ok(limit
        .maximum
        .and_then(|maximum| usize::try_from(maximum).ok())
        .unwrap_or(PLENTY))
}
