//! DNS for one workload. Comes in: sockets that port 53 is redirected to, and snapshots with the names of the mesh.
//! Goes out: answers for those names; every other query is forwarded as it came to the resolvers of
//! `/etc/resolv.conf`, and their answer is passed back as it came.

#![forbid(unsafe_code)]

mod answer;
#[cfg(test)]
mod fake;
mod forward;
mod message;
mod report;
mod resolvers;
mod serve;
mod token;
mod told;

use std::path::PathBuf;
use std::sync::Arc;

use model::Settings;
use registry::Snapshot;
use tokio::sync::watch;

pub use report::Reports;
pub use resolvers::{Conf, nameservers, read_conf};
pub use serve::{Handle, Places, Sockets, start};

/// What a server is started with.
pub struct Config {
    /// The names of the mesh.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The file with the resolvers of other names.
    pub resolv_conf: PathBuf,
    /// Seconds that answers of ours may be kept; where none is given, what the mesh's settings say.
    pub ttl: Option<u32>,
    /// `SO_MARK` of the sockets by which resolvers are asked and signs of life given, by which the rules know the proxy's own traffic;
    /// needs `CAP_NET_ADMIN`.
    pub mark: Option<u32>,
    /// Whether it gives the signs of life that capture rules wait for.
    pub gives_signs: bool,
    /// How much it does at once.
    pub places: Places,
    /// Where it reports.
    pub reports: Reports,
}

/// Seconds that answers for names of the mesh may be kept: what was said for this server goes before what the
/// mesh's settings say.
#[must_use]
pub fn ttl(own: Option<u32>, settings: &Settings) -> u32 {
    own.unwrap_or_else(|| u32::try_from(settings.dns_ttl.as_secs()).unwrap_or(u32::MAX))
}

/// Reads any bytes as a query and as the answer to one, for the fuzz target.
///
/// # Panics
/// Where that breaks what must hold: an answer of ours is a whole message, no larger than its limit.
pub fn check_bytes(bytes: &[u8]) {
    message::check(bytes);
}
