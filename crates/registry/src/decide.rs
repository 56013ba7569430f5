//! The decision: where a captured connection goes. The same function serves the data path and diagnosis.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use model::settings::OutboundPolicy;
use model::{Direction, Local, OrigDst, ports};

use crate::cluster::{Cluster, Target};
use crate::snapshot::Snapshot;

/// Where a connection goes.
#[derive(Clone, Debug)]
pub enum Decision {
    /// To an endpoint of a service's cluster.
    Cluster(Arc<Cluster>),
    /// To one endpoint that the client named by its own address (headless services, direct pod-IP
    /// calls, and everything inbound), handled as its service port says.
    Endpoint(Arc<Cluster>, Arc<Target>),
    /// To where it was going, byte for byte.
    Passthrough(Why),
    /// Nowhere: it is closed at once.
    Deny(Deny),
}

/// Why a connection passes through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// No service owns the destination.
    UnknownDestination,
    /// No service of this workload owns the port (inbound).
    UnknownPort,
    /// Loopback is nobody's but the client's own, whatever endpoints have such an address elsewhere.
    Loopback,
}

impl Why {
    /// One clause for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownDestination => "no service owns the destination",
            Self::UnknownPort => "no service of this workload owns the port",
            Self::Loopback => "loopback is no service's",
        }
    }
}

/// Why a connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deny {
    /// It was made to the proxy's own port, not redirected there.
    Loop,
    /// The destination is unknown and the mesh is "registry only".
    RegistryOnly,
    /// The address is the virtual one of a service that does not have this port. Nothing can answer there,
    /// so it is said at once, as kube-proxy does, and not left to a time-out.
    UnknownServicePort,
}

impl Deny {
    /// One clause for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loop => "made to the proxy's own port",
            Self::RegistryOnly => "no service owns the destination and the mesh is registry-only",
            Self::UnknownServicePort => "the service at this address has no such port",
        }
    }
}

impl Snapshot {
    /// Decides for a connection captured in `direction`. `local` is our own end of it: a destination equal
    /// to it was not redirected to us but made to us, a loop.
    #[must_use]
    pub fn decide(&self, direction: Direction, original_dst: OrigDst, local: Local) -> Decision {
        if original_dst.socket() == local.socket() || self.is_own_listener(original_dst) {
            return Decision::Deny(Deny::Loop);
        }
        match direction {
            Direction::Outbound => self.outbound(original_dst),
            Direction::Inbound => self.inbound(original_dst),
        }
    }

    /// Loopback; the virtual address and port of a service, then the address and port of an endpoint; a virtual
    /// address owns its other ports too; the rest is unknown.
    fn outbound(&self, original_dst: OrigDst) -> Decision {
        let address = original_dst.socket();
        if address.ip().is_loopback() {
            return Decision::Passthrough(Why::Loopback);
        }
        if let Some(cluster) = self.by_vip.get(&address) {
            return Decision::Cluster(Arc::clone(cluster));
        }
        if let Some((cluster, target)) = self.by_endpoint.get(&address) {
            return Decision::Endpoint(Arc::clone(cluster), Arc::clone(target));
        }
        if self.by_vip_ip.get(&address.ip()).is_some() {
            return Decision::Deny(Deny::UnknownServicePort);
        }
        match self.settings.outbound_policy {
            OutboundPolicy::AllowAny => Decision::Passthrough(Why::UnknownDestination),
            OutboundPolicy::RegistryOnly => Decision::Deny(Deny::RegistryOnly),
        }
    }

    fn inbound(&self, original_dst: OrigDst) -> Decision {
        let address = original_dst.socket();
        self.inbound
            .get(&address.port())
            .and_then(|cluster| {
                let target = cluster.targets.iter().find(|target| target.address == address)?;
                Some(Decision::Endpoint(Arc::clone(cluster), Arc::clone(target)))
            })
            .unwrap_or(Decision::Passthrough(Why::UnknownPort))
    }

    /// Whether one of our two capture listeners is there: a connection passed on to it would come back.
    fn is_own_listener(&self, original_dst: OrigDst) -> bool {
        ports::is_capture_port(original_dst.port()) && self.is_own(original_dst.ip())
    }
}
