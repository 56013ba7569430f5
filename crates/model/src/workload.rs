//! A workload: one pod with its addresses.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::names::ObjectName;

/// One pod.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Workload {
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.uid`; empty where the manifest has none.
    pub uid: Arc<str>,
    /// Its addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// Service account it runs as.
    pub service_account: Arc<str>,
    /// Node it runs on; empty where unknown.
    pub node: Arc<str>,
    /// Whether its readiness condition holds.
    pub ready: bool,
}
