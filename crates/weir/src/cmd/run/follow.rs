//! Routes of the command's network, kept up with the manifests: a snapshot is shown to proxy and DNS only when
//! what it names can be reached, so that no client learns of an address too early.

use std::sync::Arc;

use anyhow::Result;
use model::ErrorName;
use netsys::contain::{Network, Porter};
use registry::Snapshot;
use runtime::thread;
use tokio::sync::watch;

use super::network;

/// The running follower. It ends when the snapshots that it follows do.
pub(super) struct Follower(thread::Handle<()>);

impl Follower {
    /// Waits for the end of it.
    pub(super) fn join(self) -> Result<()> {
        Ok(self.0.join()?)
    }
}

/// Follows `source`; answers the snapshots whose routes are there. A command with default routes of both
/// families needs no others, and nobody follows.
pub(super) fn start(
    mut source: watch::Receiver<Arc<Snapshot>>,
    porter: Arc<Porter>,
    mut held: Network,
) -> Result<(watch::Receiver<Arc<Snapshot>>, Option<Follower>)> {
    if held.routes.iter().filter(|net| net.prefix_len() == 0).count() == 2 {
        return Ok((source, None));
    }
    let (show, shown) = watch::channel(Arc::clone(&source.borrow()));
    let thread = thread::spawn("routes", move || async move {
        while source.changed().await.is_ok() {
            let snapshot = Arc::clone(&source.borrow_and_update());
            if let Err(error) = extend(&snapshot, &porter, &mut held) {
                tracing::warn!(see = %ErrorName::Contain, "no route to what the manifests now name: {error:#}");
            }
            if show.send(snapshot).is_err() {
                return;
            }
        }
    })?;
    Ok((shown, Some(Follower(thread))))
}

fn extend(snapshot: &Snapshot, porter: &Porter, held: &mut Network) -> Result<()> {
    let wanted = network::of(snapshot)?;
    if let Some(more) = network::grow(held, &wanted) {
        porter.extend(&more)?;
    }
    Ok(())
}
