//! Forking and signals. Callers: [`crate::contain`].
#![allow(unsafe_code, reason = "part of the syscall seam")]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::{fs, io, mem, panic, ptr};

use rustix::process::{Pid, WaitOptions, waitpid};

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

/// Runs `f` in a child process with this one's memory and descriptors of its own, while the calling thread waits for
/// it to end: what `f` does to its process, such as moving it to another cgroup, leaves this one alone.
pub(crate) fn in_a_child(f: &mut dyn FnMut()) -> io::Result<()> {
    const STACK_BYTES: usize = 512 * 1024;
    const ALIGNED: usize = 16;
    extern "C" fn run(argument: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the argument is the `f` of the caller, which waits meanwhile and does not use it.
        let f = unsafe { &mut *argument.cast::<&mut dyn FnMut()>() };
        match panic::catch_unwind(panic::AssertUnwindSafe(f)) {
            Ok(()) => 0,
            Err(_) => PANICKED.into(),
        }
    }
    let mut stack = vec![0_u8; STACK_BYTES];
    let mut f = f;
    // A handler would run in the child, with this process's memory.
    let every = SignalSet::every();
    let before = every.set()?;
    // SAFETY: the end of the stack is within a live buffer that nobody else uses. By CLONE_VFORK the calling thread
    // is stopped until the child has ended, so that the child is the only one to use that thread's memory, `f`
    // included; the other threads go on as they do beside any thread.
    let pid = unsafe {
        let end = stack.as_mut_ptr().add(STACK_BYTES);
        let end = end.sub(end.addr() % ALIGNED);
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        libc::clone(run, end.cast(), flags, (&raw mut f).cast())
    };
    let error = io::Error::last_os_error();
    before.set()?;
    if pid == -1 {
        return Err(error);
    }
    // SAFETY: clone answered a process id, which is positive.
    let pid = unsafe { Pid::from_raw_unchecked(pid) };
    let ended = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()))?;
    match ended.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(()),
        _ => Err(io::Error::other("a child process did not end as it should")),
    }
}

/// Closes every descriptor of the calling process but this one.
pub(crate) fn close_all_but(kept: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let close = |first: u32, last: u32| {
        // SAFETY: takes numbers. Only a child that has its descriptors for itself, and ends without using them again,
        // calls this.
        match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    let Some(kept) = kept.map(|kept| kept.as_raw_fd().cast_unsigned()) else {
        return close(0, u32::MAX);
    };
    if kept > 0 {
        close(0, kept - 1)?;
    }
    close(kept + 1, u32::MAX)
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

    fn every() -> Self {
        // SAFETY: an all-zero sigset_t is a valid value, and sigfillset fills it.
        let mut set: libc::sigset_t = unsafe { mem::zeroed() };
        // SAFETY: `set` is a live sigset_t.
        unsafe {
            libc::sigfillset(&raw mut set);
        }
        Self(set)
    }

    /// Blocks these in the calling thread, and no others. Answers those that were blocked before.
    fn set(&self) -> io::Result<Self> {
        let mut before = *self;
        // SAFETY: both sets are live.
        match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, &raw mut before.0) } {
            0 => Ok(before),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
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
