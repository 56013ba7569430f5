//! One writer at a time in a network namespace. No lock is common to the variants of iptables, to nft
//! and to containers; an abstract unix socket belongs to the namespace, needs no file, and goes with its holders:
//! this process, and the programs that it started, which may outlive it and then are still writing.
//!
//! Any process in the namespace can take that name, and keep `weir init` from working. What only the privileged can
//! take belongs to mounts, which the containers of a pod do not share (a file), or outlives its holder (a rule, a
//! device), or is not in every kernel (a queue of netfilter, multicast routing). So who holds it is told.

use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::{Error, patience};
use crate::process;

pub(super) const NAME: &str = "weir-rules";

/// Held while rules are read, compared and written.
#[derive(Debug)]
pub struct Lock {
    _listener: Arc<UnixListener>,
}

/// Those that threads of this process hold, of whatever namespaces.
static HELD: Mutex<Vec<Weak<UnixListener>>> = Mutex::new(vec![]);

/// The locks as descriptors that a program inherits which is started before they are dropped.
pub(super) fn for_programs() -> Vec<OwnedFd> {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let held = held.iter().filter_map(Weak::upgrade);
    // Where there is no descriptor left for it, the program will not start either.
    held.filter_map(|listener| rustix::io::dup(&*listener).ok())
        .collect()
}

impl Lock {
    fn of(listener: UnixListener) -> Self {
        let listener = Arc::new(listener);
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|held| held.strong_count() > 0);
        held.push(Arc::downgrade(&listener));
        Self { _listener: listener }
    }

    /// Waits for the lock of the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Busy`] after 30 s, or what [`super::wait_at_most`] said.
    pub fn take() -> Result<Self, Error> {
        let address = SocketAddr::from_abstract_name(NAME).map_err(Error::Lock)?;
        let patience = patience::for_writer();
        let deadline = Instant::now() + patience;
        loop {
            match UnixListener::bind_addr(&address) {
                Ok(listener) => return Ok(Self::of(listener)),
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Err(Error::Lock(error)),
                Err(_) => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Busy {
                    seconds: patience.as_secs(),
                    holders: holders(),
                });
            }
            wait_for_holder(&address, left).map_err(Error::Lock)?;
        }
    }
}

/// The holder never accepts: a connection to it ends when it lets go.
fn wait_for_holder(address: &SocketAddr, at_most: Duration) -> io::Result<()> {
    match UnixStream::connect_addr(address) {
        Ok(mut stream) => {
            stream.set_read_timeout(Some(at_most))?;
            let _ = stream.read(&mut [0]);
            Ok(())
        }
        // It let go in between, or its queue is full of others who wait.
        Err(_) => {
            std::thread::sleep(Duration::from_millis(5));
            Ok(())
        }
    }
}

/// Those that have the lock, for people.
fn holders() -> String {
    let inodes = inodes();
    let is_open_in = |pid: &u32| process::sockets(*pid).iter().any(|inode| inodes.contains(inode));
    let pids = process::all().unwrap_or_default().into_iter().filter(is_open_in);
    let described: Vec<_> = pids
        .map(|pid| {
            let name = process::name(pid).unwrap_or_default();
            let user = process::ids(pid).map(|ids| format!(", user {}", ids.uid));
            format!("pid {pid} ({name}{})", user.unwrap_or_default())
        })
        .collect();
    match described.is_empty() {
        true => "one that cannot be seen from here, in another container perhaps".to_owned(),
        false => described.join(", "),
    }
}

/// The sockets of that name: `0000000000000000: 00000002 00000000 00010000 0001 01 12345 @weir-rules`.
fn inodes() -> Vec<u64> {
    let table = fs::read_to_string("/proc/thread-self/net/unix").unwrap_or_default();
    let inode = |line: &str| {
        let mut fields = line.split_whitespace().skip(6);
        let inode = fields.next()?.parse().ok()?;
        (fields.next()?.strip_prefix('@')? == NAME).then_some(inode)
    };
    table.lines().filter_map(inode).collect()
}
