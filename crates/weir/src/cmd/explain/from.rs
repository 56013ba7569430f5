//! The client: its namespace by a path, by a process, or by the pod that a process or an address says it is; and as
//! whom it connects, where that is to be seen.

mod pod;

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use diagnose::place::Shell;
use model::{ErrorName, ObjectName};
use netsys::netns::Netns;
use netsys::process::{self, Ids};
use rules::cgroup::Membership;

use crate::cmd::place;
use crate::errors::OrNamed;

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
        let pod = text.strip_prefix("pod/").or_else(|| text.strip_prefix("pod:"));
        if let Some(name) = pod {
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
    netns: Option<Opened>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) cgroups: Membership,
    pub(crate) pod: Option<ObjectName>,
    /// From what its user is known, for people; empty where nothing need be said.
    pub(crate) who: String,
    /// The admin socket of a proxy that is elsewhere.
    pub(crate) proxy: Option<PathBuf>,
}

/// A namespace, and what it was opened by.
#[derive(Debug)]
struct Opened {
    netns: Netns,
    path: PathBuf,
    /// A process that is in it, where it is that one's.
    pid: Option<u32>,
}

impl Opened {
    fn new(path: PathBuf) -> io::Result<Self> {
        let netns = Netns::open(&path)?;
        let path = std::path::absolute(path)?;
        Ok(Self {
            netns,
            path,
            pid: None,
        })
    }
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
            who: String::new(),
            proxy: None,
        }
    }

    /// Where the rules of a file are from: as an application connects there.
    pub(crate) fn of_file() -> Self {
        Self {
            uid: APPLICATION,
            gid: APPLICATION,
            cgroups: Membership::none(),
            who: format!("assumed, as the rules are in a file; --uid says another than {APPLICATION}"),
            ..Self::here()
        }
    }

    fn of_application(netns: Opened, pod: Option<ObjectName>) -> Self {
        Self {
            netns: Some(netns),
            uid: APPLICATION,
            gid: APPLICATION,
            cgroups: Membership::none(),
            pod,
            who: String::new(),
            proxy: None,
        }
    }

    /// As the application's processes there connect, where there are any of one user.
    fn of_inhabitants(netns: Opened, pod: &ObjectName) -> Self {
        let all = inhabitants(&netns.netns, pod);
        let mut place = Self::of_application(netns, Some(pod.clone()));
        let mut ids: Vec<Ids> = all.iter().filter_map(|pid| process::ids(*pid).ok()).collect();
        ids.sort_unstable_by_key(|ids| (ids.uid, ids.gid));
        ids.dedup();
        match (&ids[..], &all[..]) {
            ([ids], [first, others @ ..]) => {
                (place.uid, place.gid) = (ids.uid, ids.gid);
                let cgroups = process::cgroups(*first);
                let are_together = others.iter().all(|pid| process::cgroups(*pid) == cgroups);
                place.who = match others.len() {
                    0 => told(*first, &cgroups),
                    more => format!("{} and {more} more of that user", process_name(*first)),
                };
                // In several cgroups, which one cannot be said.
                place.cgroups = if are_together {
                    cgroups
                } else {
                    Membership::default()
                };
            }
            ([], _) => {
                place.who =
                    format!("assumed, as no process of it runs here; --uid says another than {APPLICATION}");
            }
            (several, _) => {
                let uids: Vec<_> = several.iter().map(|ids| ids.uid.to_string()).collect();
                place.who = format!(
                    "assumed, as processes of the uids {} run there; --uid or --from pid:N says which",
                    uids.join(", ")
                );
            }
        }
        place
    }

    /// Whether it is another namespace than this one's.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.netns.is_some()
    }

    /// How commands are run there that are printed for people.
    pub(crate) fn shell(&self) -> Shell {
        let here = process::netns_of(std::process::id());
        let is_other = |opened: &&Opened| {
            let number = opened.netns.id().ok().map(|(_, number)| number);
            number.is_none() || number != here
        };
        match self.netns.as_ref().filter(is_other) {
            None => Shell::here(),
            Some(opened) => match opened.pid {
                Some(pid) => Shell::of_process(pid),
                None => Shell::by_path(&opened.path),
            },
        }
    }

    /// Runs `f` there.
    pub(crate) fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        match &self.netns {
            None => Ok(f()),
            Some(opened) => opened.netns.run(f).or_named(
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
            Self::Netns(name) => Ok(Place::of_application(named(name)?, None)),
            Self::Pid(pid) => of_process(*pid),
            Self::Pod(pod) => pod::find(pod, manifests),
        }
    }
}

fn of_process(pid: u32) -> Result<Place> {
    let ids = process::ids(pid).or_named_with(ErrorName::NotFound, || {
        format!("--from pid:{pid}: is it running?")
    })?;
    let cgroups = process::cgroups(pid);
    Ok(Place {
        netns: Some(open(pid)?),
        uid: ids.uid,
        gid: ids.gid,
        who: told(pid, &cgroups),
        cgroups,
        pod: None,
        proxy: None,
    })
}

/// `process 4711 (curl) in the cgroup /kubepods/x`.
fn told(pid: u32, cgroups: &Membership) -> String {
    let mut text = process_name(pid);
    if let Some(path) = cgroups.path.as_deref().filter(|path| *path != "/") {
        text.push_str(&format!(" in the cgroup {path}"));
    }
    match cgroups.class_id {
        Some(0) | None => {}
        Some(id) => text.push_str(&format!(", of class id {id:#x}")),
    }
    text
}

fn process_name(pid: u32) -> String {
    match process::name(pid) {
        Some(name) => format!("process {pid} ({name})"),
        None => format!("process {pid}"),
    }
}

/// Processes of a namespace that are the application's: no proxy, and not this one.
fn inhabitants(netns: &Netns, pod: &ObjectName) -> Vec<u32> {
    let Ok((_, number)) = netns.id() else {
        return vec![];
    };
    let mut found = process::all().unwrap_or_default();
    found.retain(|pid| {
        process::netns_of(*pid) == Some(number) && *pid != std::process::id() && !pod::is_machinery(*pid, pod)
    });
    found.sort_unstable();
    found
}

fn open(pid: u32) -> Result<Opened> {
    let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
    let opened = Opened::new(path).or_named_with(ErrorName::Namespace, || {
        format!("cannot open the network namespace of process {pid}: run as root")
    })?;
    Ok(Opened {
        pid: Some(pid),
        ..opened
    })
}

/// A path, or a name that `ip netns` gave.
fn named(name: &str) -> Result<Opened> {
    let path = place::path_of(name);
    let shown = path.display().to_string();
    Opened::new(path).or_named_with(ErrorName::Namespace, || {
        format!("--from netns:{name}: cannot open {shown} (`ip netns` lists names)")
    })
}
