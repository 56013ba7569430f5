//! A service: a stable address, or none, in front of endpoints.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::ObjectName;
use crate::protocol::{KnownBy, Protocol};
use crate::settings::Overrides;

/// One Kubernetes Service, converted: TCP ports only.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// Fully qualified host name, `name.namespace.svc.cluster.local`.
    pub host: Arc<str>,
    /// Where it is reached.
    pub kind: ServiceKind,
    /// TCP ports in the order of the manifest.
    pub ports: Vec<ServicePort>,
    /// Whether one client keeps one endpoint.
    pub affinity: SessionAffinity,
    /// When it was made: of several services that claim one address, the oldest has it.
    pub created: Created,
    /// `publishNotReadyAddresses`: endpoints count whether ready or not.
    pub publish_not_ready: bool,
    /// `weir.dev/<setting>` annotations.
    pub settings: Overrides,
}

/// When an object was made. The older come first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Created {
    /// In seconds since 1970.
    At(i64),
    /// Nobody says; a manifest that was not applied to a cluster yet has no time.
    #[default]
    Unknown,
}

/// Where a service is reached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceKind {
    /// One or two virtual addresses (one a family).
    ClusterIp(Vec<IpAddr>),
    /// `clusterIP: None`: clients connect to the endpoints themselves.
    Headless,
    /// An alias of a name outside; it owns no address.
    ExternalName(Arc<str>),
}

/// One TCP port of a service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServicePort {
    /// Port clients connect to.
    pub number: u16,
    /// Name of the port; empty where the service has one unnamed port.
    pub name: Arc<str>,
    /// What it speaks.
    pub protocol: Protocol,
    /// How that is known.
    pub known_by: KnownBy,
    /// Port on the pods.
    pub target: TargetPort,
}

/// Port on the pods that a service port leads to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// The name of a container port, which may have another number in each pod.
    Name(Arc<str>),
}

/// Whether one client keeps one endpoint (`sessionAffinity`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionAffinity {
    /// Each connection or request is balanced by itself.
    #[default]
    None,
    /// By client address.
    ClientIp {
        /// How long after its last use the choice is kept.
        timeout: Duration,
    },
}
