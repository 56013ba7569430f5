//! The keeper's side: makes the namespaces, furnishes them, hands the sockets out, leaves the porter there,
//! runs the command. One process with one thread; porter and command are its children.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use rustix::mount::{MountFlags, MountPropagationFlags, mount_bind, mount_change};
use rustix::process::{Pid, Signal, getegid, geteuid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::keep::{self, Ended};
use super::signals::ABANDON;
use super::{Families, Network, Plan, Signals, Wanted, porter, wiring};
use crate::fdpass::Channel;
use crate::netlink::{Changes, LinkIndex};
use crate::sys;

/// First byte of an answer: it is done, and text follows.
pub(super) const DONE: u8 = b'+';
/// First byte of an answer: user namespaces are refused.
pub(super) const NO_USER_NAMESPACE: u8 = b'u';
/// First byte of an answer: a step failed.
const FAILED: u8 = b'-';

/// The caller's word to run the command.
pub(super) const GO: &[u8] = b"go";

/// With these a command of uid 0 could undo its capture or leave its network.
const TAKEN_FROM_ROOT: [CapabilitySet; 7] = [
    CapabilitySet::NET_ADMIN,
    CapabilitySet::NET_RAW,
    CapabilitySet::SYS_ADMIN,
    CapabilitySet::SYS_PTRACE,
    CapabilitySet::SYS_MODULE,
    CapabilitySet::BPF,
    CapabilitySet::PERFMON,
];

/// What programs need that are started to furnish the namespace.
const FURNISHING: [CapabilitySet; 2] = [CapabilitySet::NET_ADMIN, CapabilitySet::NET_RAW];

/// A step that failed: the first byte of the answer and the text.
type Failed = (u8, String);

/// The keeper's whole life; answers its exit code where it does not end by a signal. `door` is the porter's.
pub(super) fn run(plan: &Plan<'_>, channel: Channel, door: Channel, parent: Pid) -> u8 {
    let prepared = enter(parent).and_then(|()| {
        put_over(&plan.over)?;
        wiring::links().map_err(step("make the link"))?;
        let gone = (FAILED, "the caller is gone".to_owned());
        let Ok(Some((network, _))) = channel.receive() else {
            return Err(gone);
        };
        let network = wiring::decode(&network);
        let (families, sockets) = furnish(plan, &network)?;
        // The sockets first: while the rules are written, the caller starts what listens on them.
        let passed: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        tell(&channel, DONE, "", &passed).map_err(|_| gone)?;
        // The caller's copies are the only ones from here on: when it goes, connections are refused at once.
        drop(sockets);
        raise_ambient().map_err(step("prepare for the rules"))?;
        (plan.install)(&network, families).map_err(|text| (FAILED, text))
    });
    let told = match &prepared {
        Ok(note) => tell(&channel, DONE, note, &[]),
        Err((kind, text)) => tell(&channel, *kind, text, &[]),
    };
    if prepared.is_err() || told.is_err() {
        return 1;
    }
    let (channel, posted) = post_porter(channel, door);
    let Some(channel) = channel.filter(|channel| matches!(channel.receive(), Ok(Some(_)))) else {
        return 1;
    };
    if let Err((kind, text)) = posted.and_then(|()| give_up_rights().map_err(step("drop privileges"))) {
        drop(tell(&channel, kind, &text, &[]));
        return 1;
    }
    if tell(&channel, DONE, "", &[]).is_err() {
        return 1;
    }
    drop(channel);
    keep(plan)
}

/// Forks the porter. Each of the two processes closes the end that is the other's; the porter never returns.
fn post_porter(channel: Channel, door: Channel) -> (Option<Channel>, Result<(), Failed>) {
    let keeper = rustix::process::getpid();
    let mut ends = (Some(channel), Some(door));
    let posted = sys::process::fork(|| {
        drop(ends.0.take());
        ends.1.take().map_or(1, |door| porter::run(&door, keeper))
    });
    (ends.0.take(), posted.map(drop).map_err(step("start the porter")))
}

fn tell(channel: &Channel, kind: u8, text: &str, sockets: &[std::os::fd::BorrowedFd<'_>]) -> io::Result<()> {
    let mut bytes = vec![kind];
    bytes.extend(text.as_bytes());
    channel.send(&bytes, sockets)
}

fn step<E: Display>(what: &str) -> impl FnOnce(E) -> Failed {
    move |error| (FAILED, format!("cannot {what}: {error}"))
}

/// Moves into new namespaces, and goes with the parent.
fn enter(parent: Pid) -> Result<(), Failed> {
    namespaces()?;
    // After unshare: a change of credentials clears it. Then the parent may be gone already.
    rustix::process::set_parent_process_death_signal(Some(ABANDON)).map_err(step("watch the parent"))?;
    if rustix::process::getppid() == Some(parent) {
        Ok(())
    } else {
        Err((FAILED, "the parent is gone".to_owned()))
    }
}

/// See [`super::enter_alone`].
pub(super) fn alone() -> Result<(), Failed> {
    namespaces()?;
    let mode = c"mode=1777";
    rustix::mount::mount(
        "weir",
        "/tmp",
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        Some(mode),
    )
    .map_err(step("mount an empty /tmp"))?;
    Changes::new()
        .up(LinkIndex::LOOPBACK)
        .commit()
        .map_err(step("set the loopback device up"))?;
    raise_ambient().map_err(step("prepare for the rules"))
}

/// User (unless root), network and mount namespaces.
pub(super) fn namespaces() -> Result<(), Failed> {
    let (uid, gid) = (geteuid(), getegid());
    let refused = |what: &str, error: io::Error| (NO_USER_NAMESPACE, format!("{what}: {error}"));
    if may_unshare_at_once() {
        sys::process::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS).map_err(step("unshare"))?;
    } else {
        sys::process::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWNS)
            .map_err(|error| refused("unshare", error))?;
        // Identity maps: files keep their owner, and the command its uid.
        let maps = [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("{uid} {uid} 1", uid = uid.as_raw())),
            ("gid_map", format!("{gid} {gid} 1", gid = gid.as_raw())),
        ];
        for (file, text) in maps {
            fs::write(format!("/proc/self/{file}"), text).map_err(|error| refused(file, error))?;
        }
    }
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .map_err(|errno| refused("mount", errno.into()))
}

/// Real root needs no user namespace; root without `CAP_SYS_ADMIN` (most containers) does.
fn may_unshare_at_once() -> bool {
    geteuid().is_root()
        && rustix::thread::capabilities(None)
            .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// See [`super::put_over`].
pub(super) fn put_over(files: &[(PathBuf, PathBuf)]) -> Result<(), Failed> {
    for (file, place) in files {
        // Where a link leads nowhere there is nothing to put it over either.
        if fs::metadata(place).is_ok() {
            mount_bind(file, place).map_err(step(&format!("put a file over {}", place.display())))?;
        }
    }
    Ok(())
}

fn furnish(plan: &Plan<'_>, network: &Network) -> Result<(Families, Vec<OwnedFd>), Failed> {
    let families = wiring::families();
    wiring::connect(network, families, Changes::new()).map_err(|text| (FAILED, text))?;
    let sockets = plan
        .sockets
        .iter()
        .filter(|wanted| families == Families::Both || !wanted.is_v6())
        .map(Wanted::make)
        .collect::<Result<_, _>>()?;
    Ok((families, sockets))
}

impl Wanted {
    fn is_v6(&self) -> bool {
        let (Self::Listener(address) | Self::Datagram(address)) = self;
        address.is_ipv6()
    }

    fn make(&self) -> Result<OwnedFd, Failed> {
        match *self {
            Self::Listener(address) => TcpListener::bind(address)
                .map(OwnedFd::from)
                .map_err(step(&format!("listen on {address}"))),
            Self::Datagram(address) => UdpSocket::bind(address)
                .map(OwnedFd::from)
                .map_err(step(&format!("bind {address}"))),
        }
    }
}

/// Lets programs that are started keep the rights of this process over the network.
fn raise_ambient() -> io::Result<()> {
    let mut sets = rustix::thread::capabilities(None)?;
    for capability in FURNISHING {
        sets.inheritable |= capability;
    }
    rustix::thread::set_capabilities(None, sets)?;
    for capability in FURNISHING {
        rustix::thread::configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

/// Sees to it that the command has no right over its network. A uid other than 0 loses everything when it
/// executes; the keeper itself needs nothing any more either, except, as root, to end what the command left.
pub(super) fn give_up_rights() -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    if geteuid().is_root() {
        for capability in TAKEN_FROM_ROOT {
            rustix::thread::remove_capability_from_bounding_set(capability)?;
        }
        let mut sets = rustix::thread::capabilities(None)?;
        sets.inheritable = CapabilitySet::empty();
        for capability in TAKEN_FROM_ROOT {
            sets.permitted -= capability;
            sets.effective -= capability;
        }
        rustix::thread::set_capabilities(None, sets)?;
    } else {
        let none = CapabilitySets {
            effective: CapabilitySet::empty(),
            permitted: CapabilitySet::empty(),
            inheritable: CapabilitySet::empty(),
        };
        rustix::thread::set_capabilities(None, none)?;
    }
    Ok(())
}

/// Runs the command and stays behind it until nothing of it is left.
fn keep(plan: &Plan<'_>) -> u8 {
    let started = Signals::block().and_then(|signals| {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        Ok((sys::process::fork(|| execute(&plan.command, &signals))?, signals))
    });
    let ended = started.and_then(|(child, signals)| keep::follow(child, &signals));
    keep::end_all();
    let ended = ended.unwrap_or(Ended::Abandoned);
    if let (Ended::Abandoned, Some(file)) = (ended, &plan.litter) {
        let _ = fs::remove_file(file);
    }
    ended.imitate()
}

/// Becomes the command. Answers only where that fails: 127 for a missing one, 126 for any other reason.
fn execute(command: &[OsString], signals: &Signals) -> u8 {
    let Some((program, arguments)) = command.split_first() else {
        return 127;
    };
    // The keeper is the one that nothing outlives.
    let tied = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    if tied.is_err() || signals.unblock().is_err() {
        return 126;
    }
    let error = Command::new(program).args(arguments).exec();
    if is_missing(program, &error) {
        eprintln!(
            "weir run: {}: command not found [WEIR-COMMAND]",
            program.display()
        );
        127
    } else {
        let why = match error.kind() {
            io::ErrorKind::PermissionDenied if has_capabilities(program) => {
                ": the file has capabilities, which no command of weir run may have; a copy of it (cp) has none"
            }
            _ => "",
        };
        eprintln!("weir run: {}: {error}{why} [WEIR-COMMAND]", program.display());
        126
    }
}

/// Whether the file gives whoever executes it capabilities (capabilities(7)), as `ping` has it. The kernel refuses
/// to execute it where they are out of bounds.
fn has_capabilities(program: &OsStr) -> bool {
    let has_some = |path: &Path| {
        let mut value = [0; 64];
        rustix::fs::getxattr(path, "security.capability", &mut value[..]).is_ok()
    };
    if program.as_bytes().contains(&b'/') {
        return has_some(Path::new(program));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|directory| directory.join(program));
    found
        .into_iter()
        .find(|file| file.exists())
        .is_some_and(|file| has_some(&file))
}

/// A directory of `PATH` that may not be entered makes exec say "permission denied" of a program that is nowhere.
fn is_missing(program: &OsStr, error: &io::Error) -> bool {
    if error.kind() == io::ErrorKind::NotFound {
        return true;
    }
    let in_path = !program.as_bytes().contains(&b'/');
    let path = env::var_os("PATH").unwrap_or_default();
    in_path && !env::split_paths(&path).any(|directory| directory.join(program).is_file())
}
