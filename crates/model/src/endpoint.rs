//! An endpoint: one address and port that serves one port of a service.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::names::ObjectName;

/// One address of one service port.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// Name of the *service* port it serves (EndpointSlice port names are service port names).
    pub port_name: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// What its readiness says.
    pub condition: Condition,
    /// The pod behind it, where known.
    pub workload: Option<ObjectName>,
    /// Host name within a headless service.
    pub hostname: Option<Arc<str>>,
    /// UID of the pod behind it: a reused address is another endpoint. Empty where unknown.
    pub generation: Arc<str>,
}

/// Readiness as an EndpointSlice gives it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Condition {
    /// Takes new traffic. A null in the manifest is `true`.
    pub ready: bool,
    /// Answers, ready or terminating.
    pub serving: bool,
    /// Is going away.
    pub terminating: bool,
}

impl Condition {
    /// A plain ready endpoint.
    pub const READY: Self = Self {
        ready: true,
        serving: true,
        terminating: false,
    };
    /// Exists, but takes no traffic.
    pub const NOT_READY: Self = Self {
        ready: false,
        serving: false,
        terminating: false,
    };

    /// `READY`, `TERMINATING` or `NOT READY`, as the tools print it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        if self.ready {
            "READY"
        } else if self.terminating && self.serving {
            "TERMINATING"
        } else {
            "NOT READY"
        }
    }
}
