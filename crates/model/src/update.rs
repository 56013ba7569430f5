//! What a source tells the registry. One stream of these builds the whole table.

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::names::ObjectName;
use crate::service::Service;
use crate::settings::Settings;
use crate::workload::Workload;

/// One change. Applying the same update twice changes nothing the second time.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Update {
    /// A service appeared or changed.
    Service(Box<Service>),
    /// A service is gone.
    ServiceGone(ObjectName),
    /// All endpoints of one service, over all its ports; replaces what was there.
    Endpoints {
        /// The service.
        service: ObjectName,
        /// Its endpoints, each address and port once.
        endpoints: Vec<Endpoint>,
    },
    /// A pod appeared or changed.
    Workload(Box<Workload>),
    /// A pod is gone.
    WorkloadGone(ObjectName),
    /// The mesh-wide settings; replaces what was there.
    Mesh(Box<Settings>),
}
