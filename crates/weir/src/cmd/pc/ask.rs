//! One proxy that is named, by a process, a socket file or an address, asked for what it says of itself. Where
//! that takes it, as root, in the network namespace that it answers in.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use anyhow::Result;
use model::{ErrorName, ports};
use netsys::netns::Netns;
use netsys::process;
use registry::Dump;

use super::fetch::{self, Admin};
use crate::errors::{OrNamed, fail};
use crate::socket;

/// Where a dump is.
pub(crate) const PATH: &str = "/config_dump";

/// A proxy that answers.
pub(crate) struct Found {
    admin: Admin,
    /// The network namespace to ask it from, where that is another than this one.
    netns: Option<Netns>,
    /// What it says of itself.
    pub(crate) dump: String,
}

impl Found {
    pub(super) fn new(admin: Admin, netns: Option<Netns>) -> Result<Self> {
        let dump = within(netns.as_ref(), || fetch::get(&admin, PATH))?;
        Ok(Self { admin, netns, dump })
    }

    /// Asks for a path that goes on.
    pub(super) fn stream(&self, path: &str) -> Result<fetch::Stream> {
        within(self.netns.as_ref(), || fetch::stream(&self.admin, path))
    }

    /// What it says of itself, where it is a proxy of this version.
    pub(super) fn read(&self) -> Option<Dump> {
        serde_json::from_str(&self.dump).ok()
    }
}

fn within<T: Send>(netns: Option<&Netns>, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    match netns {
        None => f(),
        Some(netns) => netns.run(f).or_named(
            ErrorName::Namespace,
            "cannot enter the proxy's network namespace: that needs CAP_SYS_ADMIN, so run as root",
        )?,
    }
}

/// Where a proxy of `weir proxy` answers in its own network namespace.
pub(super) fn well_known() -> Admin {
    Admin::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, ports::ADMIN)))
}

/// A process id, a socket file, or an address.
pub(super) fn by_name(name: &str) -> Result<Found> {
    if let Ok(pid) = name.parse() {
        return by_process(pid);
    }
    let admin = if Path::new(name).exists() || name.contains('/') {
        Admin::Socket(name.into())
    } else {
        let mut addresses = name.to_socket_addrs().ok().into_iter().flatten();
        addresses.next().map(Admin::Address).or_named_with(ErrorName::NoProxy, || {
            format!("--proxy {name} is no process id, no socket file and no HOST:PORT; `weir pc proxies` lists them")
        })?
    };
    Found::new(admin, None).map_err(|error| error.context(format!("cannot ask the proxy {name}")))
}

/// The proxy that is this process or, as root, that of the network namespace of this process.
pub(super) fn by_process(pid: u32) -> Result<Found> {
    let file = socket::directory()?.join(format!("{pid}.sock"));
    let asked = |error: anyhow::Error| error.context(format!("cannot ask the proxy {pid}"));
    if file.exists() {
        return Found::new(Admin::Socket(file), None).map_err(asked);
    }
    let Some(number) = process::netns_of(pid) else {
        let why = match process::is_hidden(pid) {
            true => "it is another user's, so run this as that user or as root",
            false => "there is no such process",
        };
        fail!(
            NoProxy,
            "no proxy of this user has the process id {pid}, and {why}; `weir pc proxies` lists them"
        );
    };
    let of_user = its_directories(pid).map(|directory| directory.join(format!("{pid}.sock")));
    if let Some(file) = of_user.into_iter().find(|file| file.exists())
        && let Ok(found) = Found::new(Admin::Socket(file), None)
    {
        return Ok(found);
    }
    if process::words(pid).get(1).is_some_and(|word| word == "run") {
        fail!(
            NoProxy,
            "the proxy of process {pid} answers only at its socket file: ask as the user that runs it"
        );
    }
    let is_here = process::netns_of(std::process::id()) == Some(number);
    let netns = match is_here {
        true => None,
        false => Some(open(pid)?),
    };
    let found = Found::new(well_known(), netns).map_err(|error| {
        asked(error).context(format!(
            "no proxy answers in the network namespace of process {pid}"
        ))
    })?;
    let told = found.read().and_then(|dump| dump.process).map(|it| it.pid);
    if told.is_some() && told != process::own_id(pid) {
        say(&format!(
            "process {pid} is no proxy; this is that of its network namespace: {}",
            whose(&found)
        ));
    }
    Ok(found)
}

/// Where another user's process has its socket file, seen from here.
fn its_directories(pid: u32) -> [PathBuf; 2] {
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let under = |path: &str| root.join(path.trim_start_matches('/'));
    let uid = process::ids(pid).map_or(0, |ids| ids.uid);
    let runtime = process::variable(pid, "XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{uid}"));
    [under(&runtime).join("weir"), under(&format!("/tmp/weir-{uid}"))]
}

fn open(pid: u32) -> Result<Netns> {
    Netns::open(Path::new(&format!("/proc/{pid}/ns/net"))).or_named_with(ErrorName::Namespace, || {
        format!("cannot open the network namespace of process {pid}: run as root")
    })
}

/// `the proxy of shop/client, process 4711`.
pub(super) fn whose(found: &Found) -> String {
    let dump = found.read();
    let pod = dump.as_ref().and_then(|dump| dump.own.as_ref());
    let pod = pod.map_or_else(
        || String::from("the proxy of no pod"),
        |pod| format!("the proxy of {pod}"),
    );
    match dump.and_then(|dump| dump.process) {
        Some(process) => format!("{pod}, process {}", process.pid),
        None => pod,
    }
}

pub(super) fn say(text: &str) {
    crate::errors::say(&format!("weir: {text}"));
}
