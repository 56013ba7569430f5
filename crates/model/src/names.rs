//! Names: of Kubernetes objects and of clusters.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::addr::Direction;

/// A namespaced object, printed `namespace/name`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ObjectName {
    /// Kubernetes namespace.
    pub namespace: Arc<str>,
    /// Name within the namespace.
    pub name: Arc<str>,
}

impl ObjectName {
    /// Joins a namespace and a name.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The text was not `NAMESPACE/NAME`.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not NAMESPACE/NAME (for example sidecar/client)")]
pub struct BadObjectName(String);

impl FromStr for ObjectName {
    type Err = BadObjectName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::new(namespace, name))
            }
            _ => Err(BadObjectName(text.to_owned())),
        }
    }
}

/// The name of a cluster as users of istioctl know it: `outbound|80||nginx.sidecar.svc.cluster.local`.
///
/// Fields: direction, port, subset (empty until subsets exist), host name (empty inbound).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterName(Arc<str>);

impl ClusterName {
    /// Where a connection goes whose destination no service owns.
    pub const PASSTHROUGH: &'static str = "PassthroughCluster";
    /// Where an inbound connection goes whose port no service of this workload owns.
    pub const INBOUND_PASSTHROUGH: &'static str = "InboundPassthroughCluster";
    /// Where a connection goes that must not be carried: loops, and unknown destinations under "registry only".
    pub const BLACK_HOLE: &'static str = "BlackHoleCluster";

    /// The cluster of one port of one service.
    #[must_use]
    pub fn new(direction: Direction, port: u16, host: &str) -> Self {
        Self(format!("{direction}|{port}||{host}").into())
    }

    /// One of the three fixed names above.
    #[must_use]
    pub fn fixed(name: &'static str) -> Self {
        Self(name.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
