//! Names of the mesh for DNS, from the newest snapshot.

use std::sync::Arc;

use dns::Names;
use model::ObjectName;
use registry::{Resolved, Snapshot};
use tokio::sync::watch;

/// The namespace of short names where nobody said who the command is.
const NAMESPACE: &str = "default";

/// Looks names up in what `snapshots` holds at the time.
pub(crate) fn of(snapshots: watch::Receiver<Arc<Snapshot>>) -> Names {
    Box::new(move |name| {
        let snapshot = Arc::clone(&snapshots.borrow());
        match snapshot.resolve(name) {
            None if snapshot.own_name.is_none() && !name.contains('.') => short_name(&snapshot, name),
            other => other,
        }
    })
}

/// A bare service name of a command that is nobody: in the namespace `default`, or in the only one that
/// has such a service.
fn short_name(snapshot: &Snapshot, name: &str) -> Option<Resolved> {
    let has_it = |namespace: &str| snapshot.services.get(&ObjectName::new(namespace, name)).is_some();
    if has_it(NAMESPACE) {
        return snapshot.resolve(&format!("{name}.{NAMESPACE}"));
    }
    let mut named = snapshot
        .services
        .values()
        .map(|service| &service.name)
        .filter(|service| &*service.name == name);
    match (named.next(), named.next()) {
        (Some(only), None) => snapshot.resolve(&format!("{name}.{}", only.namespace)),
        _ => None,
    }
}
