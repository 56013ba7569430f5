//! Forking and signals. Callers: [`crate::contain`].
#![allow(unsafe_code, reason = "part of the syscall seam")]

use std::{fs, io, mem, panic, ptr};

use rustix::process::Pid;

/// Forks a process that has one thread. The child runs `child` and exits with what it answers, without
/// running destructors or flushing buffers of the parent's.
pub(crate) fn fork(child: impl FnOnce() -> u8) -> io::Result<Pid> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other(
            "the process has more than one thread, and only one would live on in the child",
        ));
    }
    // SAFETY: the process has a single thread, the calling one, so the child's memory is whole and no lock
    // in it is held by a thread that is gone: any code may run in it.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = panic::catch_unwind(panic::AssertUnwindSafe(child)).unwrap_or(PANICKED);
            // SAFETY: ends the process; takes no pointers.
            unsafe { libc::_exit(code.into()) }
        }
        // SAFETY: fork answered a process id, which is positive.
        pid => Ok(unsafe { Pid::from_raw_unchecked(pid) }),
    }
}

/// Exit code of a child that panicked, as Rust programs have it.
const PANICKED: u8 = 101;

/// A set of signals.
#[derive(Clone, Copy)]
pub(crate) struct SignalSet(libc::sigset_t);

impl SignalSet {
    pub(crate) fn of(signals: &[libc::c_int]) -> Self {
        // SAFETY: an all-zero sigset_t is a valid value, and sigemptyset makes it the empty set.
        let mut set: libc::sigset_t = unsafe { mem::zeroed() };
        // SAFETY: `set` is a live sigset_t; an invalid signal number is refused without effect.
        unsafe {
            libc::sigemptyset(&raw mut set);
            for &signal in signals {
                libc::sigaddset(&raw mut set, signal);
            }
        }
        Self(set)
    }

    /// Blocks them in the calling thread and in threads started by it from now on.
    pub(crate) fn block(&self) -> io::Result<()> {
        self.mask(libc::SIG_BLOCK)
    }

    /// Lets them through to the calling thread again.
    pub(crate) fn unblock(&self) -> io::Result<()> {
        self.mask(libc::SIG_UNBLOCK)
    }

    fn mask(&self, how: libc::c_int) -> io::Result<()> {
        // SAFETY: the set is live, and the old mask is not asked for.
        match unsafe { libc::pthread_sigmask(how, &raw const self.0, ptr::null_mut()) } {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Waits for one of them; they must be blocked. Answers its number and where it came from (`si_code`).
    pub(crate) fn wait(&self) -> io::Result<(libc::c_int, libc::c_int)> {
        // SAFETY: an all-zero siginfo_t is a valid value of this plain C structure.
        let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
        // SAFETY: both pointers are to live values of the right types.
        match unsafe { libc::sigwaitinfo(&raw const self.0, &raw mut info) } {
            -1 => Err(io::Error::last_os_error()),
            signal => Ok((signal, info.si_code)),
        }
    }

    /// Takes one of them that is waiting already, if any.
    pub(crate) fn take(&self) -> Option<libc::c_int> {
        let no_time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the set and the time are live; the details of the signal are not asked for.
        match unsafe { libc::sigtimedwait(&raw const self.0, ptr::null_mut(), &raw const no_time) } {
            -1 => None,
            signal => Some(signal),
        }
    }
}

/// Gives a signal its default action.
pub(crate) fn default_action(signal: libc::c_int) {
    // SAFETY: installs no handler of ours; an invalid signal number is refused without effect.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
    }
}

/// Gives the calling thread namespaces of its own, as `flags` (`CLONE_NEW..`) say. A user namespace needs
/// the process to have one thread.
pub(crate) fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: takes no pointers. Only CLONE_NEW.. flags are passed, which change what the thread sees of
    // the system and nothing of its memory or descriptors.
    if unsafe { libc::unshare(flags) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
