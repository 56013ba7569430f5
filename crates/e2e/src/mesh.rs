//! The setting of most tests: a network, a manifests folder, a client pod with a sidecar, servers without.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use anyhow::Result;
use tempfile::TempDir;

use crate::manifests::{Manifests, Port, Service};
use crate::net::{Net, Pod};
use crate::weir::Sidecar;

/// A network and the folder that describes it to Weir.
#[derive(Debug)]
pub struct Mesh {
    /// The network.
    pub net: Net,
    /// The manifests, watched by every sidecar.
    pub manifests: Manifests,
    files: TempDir,
}

impl Mesh {
    /// An empty one.
    ///
    /// # Errors
    /// Without root.
    pub fn create() -> Result<Self> {
        Ok(Self {
            net: Net::create()?,
            manifests: Manifests::create()?,
            files: tempfile::tempdir()?,
        })
    }

    /// A directory for the files of the test's programs.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.files.path()
    }

    /// A pod without a sidecar, known to the mesh as `app: APP`.
    ///
    /// # Errors
    /// As [`Net::pod`].
    pub fn pod(&self, name: &str, app: &str) -> Result<Pod> {
        let pod = self.net.pod(name)?;
        self.manifests.pod(&pod, app)?;
        Ok(pod)
    }

    /// Describes a service of these pods and gives back its addresses, IPv4 first. `number` makes them:
    /// `10.96.0.N` and `fd00:96::N`.
    ///
    /// # Errors
    /// Where the folder is not writable.
    pub fn service(&self, name: &str, number: u8, ports: &[Port], pods: &[&Pod]) -> Result<[IpAddr; 2]> {
        let addresses = addresses(number);
        let service = Service::new(name, &addresses, ports);
        self.manifests.service(&service, pods)?;
        Ok(addresses)
    }

    /// A client pod with its sidecar. Describe the services first: they are then known from the start.
    ///
    /// # Errors
    /// As [`Sidecar::start`].
    pub fn client(&self) -> Result<(Pod, Sidecar)> {
        let pod = self.pod("client", "client")?;
        let sidecar = Sidecar::start(&pod, &self.manifests)?;
        Ok((pod, sidecar))
    }
}

/// The service addresses number N: `10.96.0.N` and `fd00:96::N`.
#[must_use]
pub fn addresses(number: u8) -> [IpAddr; 2] {
    [
        Ipv4Addr::new(10, 96, 0, number).into(),
        Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, number.into()).into(),
    ]
}

/// Addresses with a port.
#[must_use]
pub fn at(addresses: [IpAddr; 2], port: u16) -> [SocketAddr; 2] {
    addresses.map(|ip| SocketAddr::new(ip, port))
}
