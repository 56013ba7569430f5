//! The programs of one back-end and family: found, chosen, run.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};
use std::thread;
use std::time::{Duration, Instant};

use rules::Family;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{Error, lock, patience};

/// A way to program the packet filter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Backend {
    /// `iptables-nft`: iptables syntax, kept in nftables.
    IptablesNft,
    /// `iptables-legacy`: the older kernel interface.
    IptablesLegacy,
    /// Whatever is called `iptables`, where it does not say which it is.
    Iptables,
    /// Native nftables: tables of Weir's own, written by `nft`.
    Nft,
}

impl Backend {
    /// Those in the language of iptables, in the order in which they are looked for.
    pub const IPTABLES: [Self; 3] = [Self::IptablesLegacy, Self::IptablesNft, Self::Iptables];
    /// Every one.
    pub const ALL: [Self; 4] = [Self::IptablesLegacy, Self::IptablesNft, Self::Iptables, Self::Nft];

    /// As the program is called, without its family: `iptables-nft`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
            Self::Iptables => "iptables",
            Self::Nft => "nft",
        }
    }

    /// What the names of its programs have after `iptables`; none where it has no such programs.
    fn suffix(self) -> Option<&'static str> {
        match self {
            Self::IptablesNft => Some("-nft"),
            Self::IptablesLegacy => Some("-legacy"),
            Self::Iptables => Some(""),
            Self::Nft => None,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The two programs of one back-end and family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Programs {
    /// Which family they are for.
    pub family: Family,
    /// Which back-end they are of.
    pub backend: Backend,
    save: PathBuf,
    restore: PathBuf,
}

impl Programs {
    /// Looks for them on the path, and where system programs are kept.
    #[must_use]
    pub fn find(family: Family, backend: Backend) -> Option<Self> {
        let base = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let suffix = backend.suffix()?;
        let find = |what: &str| on_path(&format!("{base}{suffix}-{what}"));
        Some(Self {
            family,
            backend,
            save: find("save")?,
            restore: find("restore")?,
        })
    }

    /// Whether it can be told without the program that there is no table. To ask legacy iptables would load
    /// its kernel modules where nothing else has, for everybody on the machine.
    pub(super) fn holds_nothing(&self) -> bool {
        self.backend == Backend::IptablesLegacy && legacy_holds_nothing(self.family)
    }

    /// The text of `iptables-save`.
    ///
    /// # Errors
    /// Where the program cannot be run or refuses.
    pub fn save(&self) -> Result<String, Error> {
        self.start(&self.save, &[], "")?.finish()
    }

    /// The same with what each rule has counted.
    ///
    /// # Errors
    /// As [`Programs::save`].
    pub(super) fn save_with_counters(&self) -> Result<String, Error> {
        self.start(&self.save, &["-c"], "")?.finish()
    }

    /// Hands text to `iptables-restore --noflush`: all of a table's lines, or none.
    pub(super) fn restore(&self, text: &str) -> Result<(), Error> {
        self.start_restore(text)?.finish().map(drop)
    }

    /// Has text looked at as [`Programs::restore`] would, and writes nothing.
    pub(super) fn check(&self, text: &str) -> Result<(), Error> {
        /// What it says of an extension that the kernel does not know, before it goes on.
        const LACKING: &str = "missing kernel module";
        let started = self.start(&self.restore, &["--noflush", "--test"], text)?;
        let name = started.name.clone();
        let output = started.end()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains(LACKING) {
            return Err(Error::Failed {
                program: name,
                said: said.trim().to_owned(),
            });
        }
        Ok(())
    }

    /// Starts [`Programs::restore`], for several to run side by side.
    pub(super) fn start_restore(&self, text: &str) -> Result<Started, Error> {
        // Only the legacy variant has a lock to wait for.
        let wait = format!("--wait={}", patience::for_writer().as_secs());
        let arguments: &[&str] = match self.backend {
            Backend::IptablesLegacy => &["--noflush", &wait],
            _ => &["--noflush"],
        };
        self.start(&self.restore, arguments, text)
    }

    pub(super) fn restore_name(&self) -> String {
        name(&self.restore)
    }

    fn start(&self, program: &Path, arguments: &[&str], input: &str) -> Result<Started, Error> {
        let lock = match self.backend {
            Backend::IptablesNft => None,
            _ => private_lock_file(),
        };
        start(program, arguments, input, lock)
    }
}

/// Whether the kernel has no table of legacy iptables.
pub(super) fn legacy_holds_nothing(family: Family) -> bool {
    let tables = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    match std::fs::read(tables) {
        Ok(names) => names.is_empty(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Starts a program with that text as its input.
pub(super) fn start(
    program: &Path,
    arguments: &[&str],
    input: &str,
    lock: Option<OsString>,
) -> Result<Started, Error> {
    let name = name(program);
    let spawn = || {
        let _inherited = lock::for_programs();
        let (stdin, stdout, stderr) = (file_of(input)?, file_of("")?, file_of("")?);
        let child = Command::new(program)
            .args(arguments)
            .stdin(stdin)
            .stdout(stdout.try_clone()?)
            .stderr(stderr.try_clone()?)
            .envs(lock.map(|lock| ("XTABLES_LOCKFILE", lock)))
            .spawn()?;
        Ok((child, stdout, stderr))
    };
    match spawn() {
        Err(source) => Err(Error::Start {
            program: name,
            source,
        }),
        Ok((child, stdout, stderr)) => Ok(Started {
            child,
            stdout,
            stderr,
            name,
        }),
    }
}

/// A file in memory with that text, to be read from its start. `nft` writes each word by itself: through a pipe
/// that would wake this process up thousands of times.
fn file_of(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("weir", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// A program that runs.
pub(super) struct Started {
    child: Child,
    stdout: File,
    stderr: File,
    name: String,
}

impl Started {
    /// Waits for its end and answers what it wrote.
    pub(super) fn finish(self) -> Result<String, Error> {
        let output = self.end()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn end(self) -> Result<Output, Error> {
        self.end_within(patience::for_program())
    }

    fn end_within(mut self, at_most: Duration) -> Result<Output, Error> {
        let program = self.name.clone();
        match self.output(at_most) {
            Err(source) => Err(Error::Start { program, source }),
            Ok(None) => Err(Error::Hung {
                program,
                seconds: at_most.as_secs(),
            }),
            Ok(Some(output)) if output.status.success() => Ok(output),
            Ok(Some(output)) => Err(Error::Failed {
                program,
                said: said(&output.stderr, output.status),
            }),
        }
    }

    /// None where it had to be killed.
    fn output(&mut self, at_most: Duration) -> io::Result<Option<Output>> {
        /// For a killed process to be gone, and so to write no more; one that hangs in the kernel never is.
        const GONE: Duration = Duration::from_secs(1);
        let Some(status) = wait(&mut self.child, at_most)? else {
            self.child.kill()?;
            wait(&mut self.child, GONE)?;
            return Ok(None);
        };
        Ok(Some(Output {
            status,
            stdout: text_of(&mut self.stdout)?,
            stderr: text_of(&mut self.stderr)?,
        }))
    }
}

/// Waits for its end; none where it has not come by then.
fn wait(child: &mut Child, at_most: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + at_most;
    let handle = pidfd_open(Pid::from_child(child), PidfdFlags::empty());
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        match &handle {
            Ok(handle) => {
                // A signal that comes meanwhile only leads round once more.
                let _ = poll(
                    &mut [PollFd::new(handle, PollFlags::IN)],
                    Timespec::try_from(left).ok().as_ref(),
                );
            }
            // Before Linux 5.3 there is none.
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn text_of(file: &mut File) -> io::Result<Vec<u8>> {
    let mut text = vec![];
    file.rewind()?;
    file.read_to_end(&mut text)?;
    Ok(text)
}

/// Users other than root often lack these.
const SYSTEM_DIRECTORIES: &str = "/usr/local/sbin:/usr/sbin:/sbin";

pub(super) fn on_path(program: &str) -> Option<PathBuf> {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":");
    path.push(SYSTEM_DIRECTORIES);
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

fn said(stderr: &[u8], status: ExitStatus) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("Try `"))
        .collect();
    if lines.is_empty() {
        status.to_string()
    } else {
        lines.join("; ")
    }
}

/// Legacy iptables locks a file that only root of the machine may write; in a user namespace the
/// namespace itself is the file. Other variants do not look at it.
fn private_lock_file() -> Option<OsString> {
    const SHARED: &str = "/run/xtables.lock";
    let shared = std::fs::OpenOptions::new().append(true).create(true).open(SHARED);
    shared.is_err().then(|| "/proc/self/ns/net".into())
}

fn name(program: &Path) -> String {
    program
        .file_name()
        .unwrap_or(program.as_os_str())
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(script: &str, at_most: Duration) -> Result<Output, Error> {
        start(Path::new("/bin/sh"), &["-c", script], "", None)?.end_within(at_most)
    }

    #[test]
    fn what_hangs_is_killed_and_named() {
        let soon = Duration::from_millis(50);
        let hung = start(Path::new("/bin/sh"), &["-c", "exec sleep 1000"], "", None).unwrap();
        let pid = hung.child.id();
        let error = hung.end_within(soon).unwrap_err();
        assert!(
            matches!(&error, Error::Hung { program, .. } if program == "sh"),
            "{error}"
        );
        assert!(error.to_string().contains("sh did not end within 0 s"), "{error}");
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        // Nor does one that has closed what it writes to.
        let error = ended("exec 1>&- 2>&-; exec sleep 1000", soon).unwrap_err();
        assert!(matches!(error, Error::Hung { .. }), "{error}");
    }

    #[test]
    fn what_ends_in_time_is_heard() {
        let at_most = Duration::from_secs(60);
        let output = ended("cat; echo out; echo err >&2", at_most).unwrap();
        assert_eq!((&*output.stdout, &*output.stderr), (&b"out\n"[..], &b"err\n"[..]));
        let error = ended("echo no >&2; exit 3", at_most).unwrap_err();
        assert!(
            matches!(&error, Error::Failed { said, .. } if said == "no"),
            "{error}"
        );
    }
}
