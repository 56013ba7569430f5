//! How the pods look names up: each as in Kubernetes, by a `resolv.conf` with the resolver of the cluster, and
//! that is where the queries would go that its sidecar takes.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::{fs, io};

use anyhow::Result;
use model::ErrorName;
use netsys::contain;
use rules::Family;

use super::mesh::{NAMESPACE, SERVICE};
use crate::errors::OrNamed;

/// Where the cluster's resolver is.
pub(super) const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 53);
/// `/tmp` is the process's own.
pub(super) const RESOLV_CONF: &str = "/tmp/resolv.conf";

/// Puts files over this machine's in the view of this process and of what it starts: a `resolv.conf`, one for all
/// pods as the kubelet's are alike, and a `hosts` that knows no service.
pub(super) fn arrange() -> Result<()> {
    let mut over = contain::no_name_services();
    for (file, text, place) in [
        // A machine without one asks 127.0.0.1, which is captured as well.
        (RESOLV_CONF, &*resolv_conf(), "/etc/resolv.conf"),
        ("/tmp/hosts", "127.0.0.1 localhost\n::1 localhost\n", "/etc/hosts"),
    ] {
        fs::write(file, text).or_named_with(ErrorName::System, || format!("cannot write {file}"))?;
        over.push((PathBuf::from(file), PathBuf::from(place)));
    }
    Ok(contain::put_over(&over)?)
}

fn resolv_conf() -> String {
    format!(
        "search {NAMESPACE}.svc.cluster.local svc.cluster.local cluster.local\nnameserver {RESOLVER}\noptions ndots:5\n"
    )
}

/// The address that the C library finds in this thread's namespace, with the service's port.
pub(super) fn look_up(name: &str, family: Family) -> io::Result<SocketAddr> {
    let mut all = (name, SERVICE.port()).to_socket_addrs()?;
    all.find(|address| Family::of(address.ip()) == family)
        .ok_or_else(|| io::Error::other(format!("{name} has no {family} address")))
}
