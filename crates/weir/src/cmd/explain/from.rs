//! The client's namespace: by a path, by a process, or by the pod that a process or an address says it is.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use model::{ErrorName, ObjectName};
use netsys::netns::Netns;
use netsys::process;
use netsys::route_to::{Question, route_to};
use rules::cgroup::Membership;

use super::mesh;
use crate::cmd::place;
use crate::errors::{OrNamed, fail, named};

/// Where the client is, as it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum From {
    Pod(ObjectName),
    Netns(String),
    Pid(u32),
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORMS: &str = "write pod/NAMESPACE/NAME, netns:PATH, netns:NAME or pid:N";
        if let Some(name) = text.strip_prefix("pod/") {
            return name.parse().map(Self::Pod).map_err(|_| FORMS.to_owned());
        }
        match text.split_once(':') {
            Some(("netns", name)) if !name.is_empty() => Ok(Self::Netns(name.to_owned())),
            Some(("pid", pid)) => pid.parse().map(Self::Pid).map_err(|_| FORMS.to_owned()),
            _ => Err(FORMS.to_owned()),
        }
    }
}

/// Where a client is, and as whom it connects where nobody says otherwise.
#[derive(Debug)]
pub(crate) struct Place {
    /// None where this runs.
    netns: Option<Netns>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) cgroups: Membership,
    pub(crate) pod: Option<ObjectName>,
}

/// An application's user, where none is told: not root, and no proxy.
const APPLICATION: u32 = 1000;

impl Place {
    /// Where this runs, as who runs it.
    pub(crate) fn here() -> Self {
        Self {
            netns: None,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            cgroups: process::cgroups(std::process::id()),
            pod: None,
        }
    }

    fn of_application(netns: Netns, pod: Option<ObjectName>) -> Self {
        Self {
            netns: Some(netns),
            uid: APPLICATION,
            gid: APPLICATION,
            cgroups: Membership::none(),
            pod,
        }
    }

    /// Whether it is another namespace than this one's.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.netns.is_some()
    }

    /// Runs `f` there.
    pub(crate) fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        match &self.netns {
            None => Ok(f()),
            Some(netns) => netns.run(f).or_named(
                ErrorName::Namespace,
                "cannot enter the network namespace: that needs CAP_SYS_ADMIN, so run as root",
            ),
        }
    }
}

impl From {
    /// The namespace. A pod's addresses are looked for where `manifests` tell them.
    pub(crate) fn find(&self, manifests: Option<&Path>) -> Result<Place> {
        match self {
            Self::Netns(name) => Ok(Place::of_application(place::named(name)?, None)),
            Self::Pid(pid) => of_process(*pid),
            Self::Pod(pod) => of_pod(pod, manifests),
        }
    }
}

fn of_process(pid: u32) -> Result<Place> {
    let ids = process::ids(pid).or_named_with(ErrorName::NotFound, || {
        format!("--from pid:{pid}: is it running?")
    })?;
    Ok(Place {
        netns: Some(open(pid)?),
        uid: ids.uid,
        gid: ids.gid,
        cgroups: process::cgroups(pid),
        pod: None,
    })
}

fn open(pid: u32) -> Result<Netns> {
    Netns::open(Path::new(&format!("/proc/{pid}/ns/net"))).or_named_with(ErrorName::Namespace, || {
        format!("cannot open the network namespace of process {pid}: run as root")
    })
}

/// By what is surest first: the proxy that says whose it is, an address, a name that somebody gave.
fn of_pod(pod: &ObjectName, manifests: Option<&Path>) -> Result<Place> {
    let found = |netns| Place::of_application(netns, Some(pod.clone()));
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
    if let Some(netns) = by_name.filter_map(|path| Netns::open(&path).ok()).next() {
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
        "--from pod/{pod}: not found on this machine: no process is its proxy (`weir proxy --as {pod}`), {by_address}, and \
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
    let name = pod.to_string();
    let as_next = words.windows(2).any(|pair| pair[0] == "--as" && pair[1] == name);
    let as_one = words.iter().any(|word| word.strip_prefix("--as=") == Some(&name));
    let variable = |name| process::variable(pid, name);
    let by_environment = || {
        variable("POD_NAMESPACE").as_deref() == Some(&*pod.namespace)
            && variable("POD_NAME").as_deref() == Some(&*pod.name)
    };
    as_next || as_one || by_environment()
}

/// The namespaces, of processes or named, that have one of these addresses.
fn by_address(pids: &[u32], addresses: &[IpAddr]) -> Vec<Netns> {
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
    for netns in of_processes
        .chain(named)
        .filter_map(|path| Netns::open(&path).ok())
    {
        let id = netns.id().ok();
        if !ids.contains(&id) && has_one(&netns) {
            found.push(netns);
        }
        ids.push(id);
    }
    found
}
