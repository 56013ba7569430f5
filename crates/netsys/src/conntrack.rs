//! How full the table of tracked connections is, in the calling thread's namespace. When it is full the
//! kernel drops what would be a new entry: new connections fail, and nobody says why.

use std::fs;
use std::str::FromStr;

/// Entries of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Now.
    pub entries: u64,
    /// At most; 0 is no limit.
    pub limit: u64,
}

/// How full it is; `None` where the kernel tracks no connections.
#[must_use]
pub fn usage() -> Option<Usage> {
    Some(Usage {
        entries: read("nf_conntrack_count")?,
        limit: read("nf_conntrack_max")?,
    })
}

fn read<T: FromStr>(name: &str) -> Option<T> {
    let text = fs::read_to_string(format!("/proc/sys/net/netfilter/{name}")).ok()?;
    text.trim().parse().ok()
}
