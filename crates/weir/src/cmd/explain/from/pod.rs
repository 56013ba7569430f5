//! The namespace of a pod on this machine: by the proxy that says whose it is, by an address, by a name.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use model::{ErrorName, ObjectName};
use netsys::netns::Netns;
use netsys::process;
use netsys::route_to::{Question, route_to};

use super::super::mesh;
use super::{Opened, Place, open};
use crate::errors::{OrNamed, fail, named};

/// By what is surest first: the proxy that says whose it is, an address, a name that somebody gave.
pub(super) fn find(pod: &ObjectName, manifests: Option<&Path>) -> Result<Place> {
    let found = |netns| Place::of_inhabitants(netns, pod);
    let pids = process::all().or_named(ErrorName::System, "cannot read /proc")?;
    let proxies: Vec<u32> = pids
        .iter()
        .copied()
        .filter(|pid| is_proxy_of(*pid, pod))
        .collect();
    if let Some(pid) = proxies.first() {
        let netns = process::netns_of(*pid);
        if proxies.iter().any(|other| process::netns_of(*other) != netns) {
            fail!(
                NotFound,
                "--from pod/{pod}: several namespaces have a proxy of that pod, the processes {proxies:?}; give --from pid:N of one of them"
            );
        }
        return open(*pid).map(found);
    }
    if let Some(place) = of_run(&pids, pod)? {
        return Ok(place);
    }
    let addresses = match manifests {
        Some(folder) => mesh::addresses(folder, pod)?,
        None => vec![],
    };
    let mut with_address = by_address(&pids, &addresses);
    if with_address.len() > 1 {
        fail!(
            NotFound,
            "--from pod/{pod}: {} namespaces have its address; give --from pid:N of a process of the one that is meant",
            with_address.len()
        );
    }
    if let Some(netns) = with_address.pop() {
        return Ok(found(netns));
    }
    let names = [pod.name.to_string(), format!("{}-{}", pod.namespace, pod.name)];
    let by_name = names.iter().map(|name| Path::new("/run/netns").join(name));
    if let Some(netns) = by_name.filter_map(|path| Opened::new(path).ok()).next() {
        return Ok(found(netns));
    }
    Err(not_found(pod, &addresses, manifests.is_some()))
}

fn not_found(pod: &ObjectName, addresses: &[IpAddr], with_manifests: bool) -> anyhow::Error {
    let by_address = match addresses {
        [] if with_manifests => String::from("the manifests tell no address of it"),
        [] => String::from("its address is not known (--manifests FOLDER would tell)"),
        _ => {
            let all: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            format!(
                "no namespace that can be entered has the address {}",
                all.join(" or ")
            )
        }
    };
    let text = format!(
        "--from pod/{pod}: not found on this machine: no process is its proxy (`weir proxy --as {pod}`, `weir run --as {pod}`), {by_address}, and \
         none under /run/netns is called {} or {}-{}. Run this as root on the pod's machine, give --from pid:N of a \
         process of the pod or --from netns:PATH, or run this inside the pod without --from",
        pod.name, pod.namespace, pod.name
    );
    named(ErrorName::NotFound, text)
}

/// Whether it was started as the proxy of that pod.
fn is_proxy_of(pid: u32, pod: &ObjectName) -> bool {
    let words = process::words(pid);
    if words.get(1).is_none_or(|word| word != "proxy") {
        return false;
    }
    let variable = |name| process::variable(pid, name);
    let by_environment = || {
        variable("POD_NAMESPACE").as_deref() == Some(&*pod.namespace)
            && variable("POD_NAME").as_deref() == Some(&*pod.name)
    };
    is_as(&words, pod) || by_environment()
}

/// Whether it is a proxy, anybody's, or what `weir run` keeps beside what it runs.
pub(super) fn is_machinery(pid: u32, pod: &ObjectName) -> bool {
    let words = process::words(pid);
    match words.get(1).map(String::as_str) {
        Some("proxy") => true,
        Some("run") => is_as(&words, pod),
        _ => false,
    }
}

/// Whether the words of one of our commands say that it is that pod.
fn is_as(words: &[String], pod: &ObjectName) -> bool {
    let name = pod.to_string();
    let as_next = words.windows(2).any(|pair| pair[0] == "--as" && pair[1] == name);
    as_next || words.iter().any(|word| word.strip_prefix("--as=") == Some(&name))
}

/// What `weir run --as` runs inside: the namespace of the process that keeps it, which has the words of its parent. The
/// proxy is that parent, outside.
fn of_run(pids: &[u32], pod: &ObjectName) -> Result<Option<Place>> {
    let is_run = |pid: &u32| {
        let words = process::words(*pid);
        words.get(1).is_some_and(|word| word == "run") && is_as(&words, pod)
    };
    let all: Vec<u32> = pids.iter().copied().filter(is_run).collect();
    let mut kept = all.iter().filter_map(|pid| {
        let runner = process::parent(*pid).filter(|parent| all.contains(parent))?;
        (process::netns_of(*pid) != process::netns_of(runner)).then_some((*pid, runner))
    });
    let Some((keeper, runner)) = kept.next() else {
        return Ok(None);
    };
    if let Some((_, other)) = kept.find(|(_, other)| *other != runner) {
        fail!(
            NotFound,
            "--from pod/{pod}: `weir run` runs as that pod twice, the processes {runner} and {other}; give --from pid:N of \
             what one of them runs"
        );
    }
    let mut place = Place::of_inhabitants(open(keeper)?, pod);
    place.proxy = Some(admin_socket(runner));
    Ok(Some(place))
}

/// Where `weir run` of whatever user has its socket file (see [`crate::socket`]).
fn admin_socket(runner: u32) -> PathBuf {
    let file = format!("{runner}.sock");
    let uid = process::ids(runner).map_or(0, |ids| ids.uid);
    let runtime =
        process::variable(runner, "XDG_RUNTIME_DIR").map(|folder| PathBuf::from(folder).join("weir"));
    let candidates = runtime
        .into_iter()
        .chain([PathBuf::from(format!("/tmp/weir-{uid}"))]);
    let mut files: Vec<PathBuf> = candidates.map(|folder| folder.join(&file)).collect();
    let there = files.iter().position(|file| file.exists()).unwrap_or(0);
    files.swap_remove(there)
}

/// The namespaces, of processes or named, that have one of these addresses.
fn by_address(pids: &[u32], addresses: &[IpAddr]) -> Vec<Opened> {
    if addresses.is_empty() {
        return vec![];
    }
    let mut of_each: BTreeMap<u64, u32> = BTreeMap::new();
    for pid in pids {
        if let Some(number) = process::netns_of(*pid) {
            of_each.entry(number).or_insert(*pid);
        }
    }
    let of_processes = of_each
        .values()
        .map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net")));
    let named = fs::read_dir("/run/netns").into_iter().flatten();
    let named = named.filter_map(|entry| Some(entry.ok()?.path()));
    let has_one = |netns: &Netns| {
        let ask = |to| route_to(Question { to, mark: 0, uid: 0 });
        let is_own = |address: &IpAddr| ask(*address).is_ok_and(|route| route.is_local);
        netns.run(|| addresses.iter().any(is_own)).unwrap_or(false)
    };
    let mut ids = vec![];
    let mut found = vec![];
    for opened in of_processes
        .chain(named)
        .filter_map(|path| Opened::new(path).ok())
    {
        let id = opened.netns.id().ok();
        if !ids.contains(&id) && has_one(&opened.netns) {
            found.push(opened);
        }
        ids.push(id);
    }
    found
}
