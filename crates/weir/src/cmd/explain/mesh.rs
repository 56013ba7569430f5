//! What the proxy knows: of the running one, of a dump of it that was saved, or of manifests.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use diagnose::explain::Mesh;
use model::{ErrorName, ObjectName, ports};
use registry::{Dump, Snapshot};

use super::Args;
use super::from::{From, Place};
use super::wait::waiting;
use crate::cmd::pc::{fetch, find};
use crate::errors::OrNamed;

/// Any instant of the clock of endpoints: a dump says how long ejections last from its own.
const NOW: u64 = 1;

/// The registry that is named, or that of the proxy in the namespace of the calling thread.
pub(super) fn find(args: &Args, place: &Place) -> Result<Mesh> {
    let pod = match &args.from {
        Some(From::Pod(pod)) => Some(pod.clone()),
        _ => place.pod.clone(),
    };
    if let Some(folder) = &args.manifests {
        let snapshot = of_manifests(folder, pod)?;
        let from = format!("the manifests in {}", folder.display());
        return Ok(known(snapshot, from));
    }
    if let Some(file) = &args.dump {
        let text = fs::read_to_string(file)
            .or_named_with(ErrorName::Input, || format!("--dump {}", file.display()))?;
        return of_dump(&text, format!("the dump {}", file.display()));
    }
    if let Some(which) = &args.proxy {
        return of_dump(&find::dump(Some(which))?, format!("the proxy {which}"));
    }
    if args.rules.is_some() {
        return Ok(Mesh::Unknown {
            why: String::from("a file of rules tells none of the registry"),
            fix: "give --manifests FOLDER, or --dump FILE that `weir pc dump` saved in the pod",
        });
    }
    running(place)
}

/// That of the namespace. What another namespace's proxy knows says nothing of this one.
fn running(place: &Place) -> Result<Mesh> {
    let admin = match &place.proxy {
        Some(file) => fetch::Admin::Socket(file.clone()),
        None => fetch::Admin::Address(SocketAddr::from(([127, 0, 0, 1], ports::ADMIN))),
    };
    let first = waiting("for the proxy to answer", || fetch::get(&admin, find::PATH));
    let told = match first {
        // One that hangs is the one of this namespace all the same.
        Err(error) if !place.is_elsewhere() && !fetch::is_silent(&error) => {
            find::dump_here().and_then(|found| found.ok_or(error))
        }
        other => other,
    };
    match told {
        Ok(text) => of_dump(&text, String::from("the running proxy")),
        Err(error) if fetch::is_silent(&error) => Ok(Mesh::Silent(format!("{admin}"))),
        Err(error) => Ok(Mesh::Unknown {
            why: format!("no proxy of this namespace tells ({})", error.root_cause()),
            fix: "give --manifests FOLDER, or --proxy for one that runs elsewhere",
        }),
    }
}

fn of_dump(text: &str, from: String) -> Result<Mesh> {
    let dump: Dump = serde_json::from_str(text).or_named_with(ErrorName::Input, || {
        format!("{from} is not of this version: use the proxy's own version of weir")
    })?;
    let from = match &dump.own {
        Some(own) => format!("{from} (of {own})"),
        None => from,
    };
    Ok(known(dump.snapshot_at(NOW), from))
}

fn known(snapshot: Arc<Snapshot>, from: String) -> Mesh {
    Mesh::Known {
        snapshot,
        now: NOW,
        from,
    }
}

fn of_manifests(folder: &Path, own: Option<ObjectName>) -> Result<Arc<Snapshot>> {
    let (snapshots, _source) = discovery::start_manifests_briefly(folder.to_owned(), own)?;
    let snapshot = Arc::clone(&snapshots.borrow());
    Ok(snapshot)
}

/// The addresses of a pod, by manifests.
pub(super) fn addresses(folder: &Path, pod: &ObjectName) -> Result<Vec<IpAddr>> {
    let snapshot = of_manifests(folder, Some(pod.clone()))?;
    Ok(snapshot
        .own
        .as_ref()
        .map_or_else(Vec::new, |own| own.addresses.clone()))
}
