//! eBPF programs that stand beside the packet filter: at cgroups, at devices and at the namespace itself, where they
//! can lead a connection elsewhere and no rule hears of it. They are listed and named; nothing is loaded or changed.
//! Caller: `weir check`.

mod devices;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rules::Family;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

pub use self::devices::at_devices;
use crate::cgroups;
use crate::netns::Netns;
use crate::sys::bpf;

/// Where a program is asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Hook {
    /// At connect(2): it may change the destination.
    Connect(Family),
    /// At sendto(2) and the like, of a datagram whose socket is not connected: it may change the destination.
    Send(Family),
    /// At getsockname(2): it may change the answer.
    SocketName(Family),
    /// At getsockopt(2): it may change the answer.
    SocketOption,
    /// At what happens to a TCP socket: it may hand what is sent to another socket.
    SocketEvents,
    /// At packets that sockets receive: it may drop them.
    SocketIn,
    /// At packets that sockets send: it may drop them.
    SocketOut,
    /// Where a listener is looked up for what comes in: it may choose another one.
    Listener,
    /// At packets that a device receives, before the packet filter: it may drop, change or redirect them.
    DeviceIn,
    /// At packets that a device sends, after the packet filter: the same.
    DeviceOut,
    /// At packets that a driver receives, before anything else of the network: the same.
    Xdp,
}

/// The kernel's words.
impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |family: &Family| if *family == Family::V4 { '4' } else { '6' };
        match self {
            Self::Connect(family) => write!(f, "connect{}", number(family)),
            Self::Send(family) => write!(f, "sendmsg{}", number(family)),
            Self::SocketName(family) => write!(f, "getsockname{}", number(family)),
            Self::SocketOption => f.write_str("getsockopt"),
            Self::SocketEvents => f.write_str("sock_ops"),
            Self::SocketIn => f.write_str("cgroup_skb ingress"),
            Self::SocketOut => f.write_str("cgroup_skb egress"),
            Self::Listener => f.write_str("sk_lookup"),
            Self::DeviceIn => f.write_str("tc ingress"),
            Self::DeviceOut => f.write_str("tc egress"),
            Self::Xdp => f.write_str("xdp"),
        }
    }
}

/// A program, and where it is asked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Attached {
    /// At what.
    pub hook: Hook,
    /// Of what: `cgroup /kubepods/pod1`, `eth0`.
    pub place: String,
    /// The kernel's number of it.
    pub id: u32,
    /// Its name; none where that may not be read, empty where it has none.
    pub name: Option<String>,
}

/// With the numbers of `enum bpf_attach_type`.
const AT_CGROUPS: [(Hook, u32); 10] = [
    (Hook::Connect(Family::V4), 10),
    (Hook::Connect(Family::V6), 11),
    (Hook::Send(Family::V4), 14),
    (Hook::Send(Family::V6), 15),
    (Hook::SocketName(Family::V4), 31),
    (Hook::SocketName(Family::V6), 32),
    (Hook::SocketOption, 21),
    (Hook::SocketEvents, 3),
    (Hook::SocketIn, 0),
    (Hook::SocketOut, 1),
];

/// Those that are in effect for processes in these cgroups, as `/proc/PID/cgroup` names them, whichever cgroup above
/// they are attached to.
///
/// # Errors
/// Without `CAP_NET_ADMIN` over the machine, where bpf(2) is forbidden, or where version 2 is not mounted and may not
/// be.
pub fn at_cgroups(paths: &BTreeSet<String>) -> io::Result<Vec<Attached>> {
    const EFFECTIVE: u32 = 1;
    let root = cgroups::v2_tree()?;
    let mut found = vec![];
    for path in paths {
        let (cgroup, path) = open(root.as_fd(), path)?;
        let target = cgroup.as_raw_fd().cast_unsigned();
        for (hook, number) in AT_CGROUPS {
            found.extend(attached(
                hook,
                number,
                target,
                EFFECTIVE,
                &format!("cgroup {path}"),
            )?);
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// The folder of a cgroup, and its path. Where it is not there (it has gone, or is outside of what is mounted here),
/// the highest one: what is attached above it counts for all.
fn open<'a>(root: BorrowedFd<'_>, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
    let folder = |name: &str| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(root, name, flags, Mode::empty())
    };
    let is_inside = !path.starts_with("/..") && path != "/";
    match folder(path.trim_start_matches('/')) {
        Ok(folder) if is_inside => Ok((folder, path)),
        Ok(_) | Err(Errno::NOENT) => Ok((folder(".")?, "/")),
        Err(error) => Err(error.into()),
    }
}

/// Those that choose among the listeners of the calling thread's namespace.
///
/// # Errors
/// As [`at_cgroups`].
pub fn at_namespace() -> io::Result<Vec<Attached>> {
    const LISTENER: u32 = 36;
    let here = Netns::current()?;
    let target = here.as_fd().as_raw_fd().cast_unsigned();
    attached(Hook::Listener, LISTENER, target, 0, "this namespace")
}

fn attached(hook: Hook, number: u32, target: u32, flags: u32, place: &str) -> io::Result<Vec<Attached>> {
    let ids = match bpf::attached(target, number, flags) {
        // A kernel that does not know this hook has nothing there.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => vec![],
        ids => ids?,
    };
    let of = |id| Attached {
        hook,
        place: place.to_owned(),
        id,
        // That takes CAP_SYS_ADMIN; or it has gone meanwhile.
        name: bpf::program_name(id).ok(),
    };
    Ok(ids.into_iter().map(of).collect())
}
