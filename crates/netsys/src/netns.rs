//! Network namespaces: made, entered for the length of a closure, given to child processes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::{panic, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::sys;

/// An open network namespace. One without a name goes when its last descriptor, process and socket go.
#[derive(Debug)]
pub struct Netns(OwnedFd);

impl Netns {
    /// The calling thread's own.
    ///
    /// # Errors
    /// Where `/proc` is not mounted.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The one at a path, such as `/run/netns/NAME` or `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// Where the path cannot be opened, or the process is not ours.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(File::open(path)?.into()))
    }

    /// A new, unnamed one, its loopback device up. Needs `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// Without the capability.
    pub fn create() -> io::Result<Self> {
        on_a_thread(|| {
            sys::unshare_net()?;
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            sys::loopback_up(socket.as_fd())?;
            Self::current()
        })
    }

    /// The same namespace by another descriptor.
    ///
    /// # Errors
    /// Where descriptors are used up.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Device and inode: equal for two descriptors of one namespace, and for no others.
    ///
    /// # Errors
    /// Where `fstat` fails.
    pub fn id(&self) -> io::Result<(u64, u64)> {
        let metadata = File::from(self.0.try_clone()?).metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// Runs `f` inside, on a thread of its own: a namespace is a property of a thread, and no thread of
    /// an async runtime may ever be moved. Descriptors made inside keep belonging there.
    ///
    /// # Errors
    /// Where entering fails (needs `CAP_SYS_ADMIN` over the namespace); `f` has not run then.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_a_thread(|| {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(f())
        })
    }

    /// Makes `command` start inside. The namespace must outlive the spawn.
    pub fn start_in(&self, command: &mut Command) {
        sys::start_in_netns(command, self.0.as_fd());
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Runs `f` on a thread of its own, in the same namespaces, and passes on its panic.
pub(crate) fn on_a_thread<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        scope
            .spawn(f)
            .join()
            .unwrap_or_else(|cause| panic::resume_unwind(cause))
    })
}
