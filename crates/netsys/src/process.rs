//! Processes: whose they are, in which network namespace, with which words they were started.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fs, io};

use rules::cgroup::Membership;

/// What the packet filter sees of a process's sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ids {
    /// The user id that a socket of it has.
    pub uid: u32,
    /// The group id that a socket of it has.
    pub gid: u32,
}

/// The ids that sockets of a process get now: those for files.
///
/// # Errors
/// Where there is no such process.
pub fn ids(pid: u32) -> io::Result<Ids> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    // Real, effective, saved, and that for files.
    let last = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().nth(3)?.parse().ok()
    };
    let ids = last("Uid:").zip(last("Gid:"));
    ids.map(|(uid, gid)| Ids { uid, gid })
        .ok_or_else(|| io::Error::other("/proc does not tell its ids"))
}

/// Its parent; none where it has none that can be seen.
#[must_use]
pub fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok().filter(|parent| *parent != 0)
}

/// The id that it has in its own namespace of processes.
#[must_use]
pub fn own_id(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}

/// Every process that can be seen, in no order.
///
/// # Errors
/// Where `/proc` is not mounted.
pub fn all() -> io::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.parse().ok()).collect())
}

/// Whether every process of the calling thread's network namespace can be seen. In a container those of other
/// containers that share its network (a pod's) cannot, unless they share their processes as well.
#[must_use]
pub fn sees_all() -> bool {
    /// The machine's own (`PROC_PID_INIT_INO`).
    const FIRST: &str = "pid:[4026531836]";
    /// The first process of a pod whose containers share theirs.
    const OF_PODS: &str = "pause";
    let is_first = fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == FIRST);
    let here = fs::metadata("/proc/thread-self/ns/net")
        .ok()
        .map(|metadata| metadata.ino());
    // A namespace that was made in this container is nobody else's.
    let is_made_here = netns_of(1).is_some_and(|first| Some(first) != here);
    is_first || is_made_here || name(1).as_deref() == Some(OF_PODS)
}

/// The words that it was started with; none where it has gone or is a thread of the kernel.
#[must_use]
pub fn words(pid: u32) -> Vec<String> {
    strings(&format!("/proc/{pid}/cmdline"))
}

/// A variable that it was started with, where that may be read.
#[must_use]
pub fn variable(pid: u32, name: &str) -> Option<String> {
    let all = strings(&format!("/proc/{pid}/environ"));
    all.iter()
        .find_map(|variable| variable.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
}

/// The cgroups of a process, as far as `/proc` tells them: of version 1 whether it has a class at all.
#[must_use]
pub fn cgroups(pid: u32) -> Membership {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    // `0::/path`, `5:net_cls,net_prio:/path`.
    let has_class = text.lines().any(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let classes = fields
            .next()
            .is_some_and(|names| names.split(',').any(|name| name == "net_cls"));
        classes && fields.next() != Some("/")
    });
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    Membership {
        class_id: (!has_class && !text.is_empty()).then_some(0),
        path: path.map(str::to_owned),
    }
}

/// The number of its network namespace: equal for two processes of one.
#[must_use]
pub fn netns_of(pid: u32) -> Option<u64> {
    let path = format!("/proc/{pid}/ns/net");
    fs::metadata(Path::new(&path)).ok().map(|metadata| metadata.ino())
}

/// The sockets that it has open, by the number that the socket tables show; none where that may not be read.
#[must_use]
pub fn sockets(pid: u32) -> Vec<u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let inode = |link: std::path::PathBuf| {
        let text = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        text.parse().ok()
    };
    links.filter_map(inode).collect()
}

/// The name that the kernel knows it by; at most 15 bytes.
#[must_use]
pub fn name(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(text.trim_end().to_owned())
}

/// Whether its namespace may not be looked at: it is another user's.
#[must_use]
pub fn is_hidden(pid: u32) -> bool {
    let looked = fs::metadata(format!("/proc/{pid}/ns/net"));
    looked.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

fn strings(path: &str) -> Vec<String> {
    let bytes = fs::read(path).unwrap_or_default();
    let parts = bytes.split(|byte| *byte == 0).filter(|part| !part.is_empty());
    parts
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_one_is_told_of() {
        let me = std::process::id();
        assert_eq!(ids(me).unwrap().uid, rustix::process::geteuid().as_raw());
        assert!(all().unwrap().contains(&me));
        assert!(words(me)[0].contains("netsys"));
        assert_eq!(parent(me), Some(std::os::unix::process::parent_id()));
        assert_eq!(own_id(me), Some(me));
        assert!(variable(me, "PATH").is_some());
        assert!(netns_of(me).is_some());
        assert_ne!(cgroups(me), Membership::default());
        assert!(name(me).is_some());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listening = crate::socket_table::listeners(rules::ruleset::IpProtocol::Tcp).unwrap();
        let at = listener.local_addr().unwrap();
        let found = listening.iter().find(|socket| socket.address == at).unwrap();
        assert!(sockets(me).contains(&found.inode));
    }
}
