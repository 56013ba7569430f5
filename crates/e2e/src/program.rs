//! Programs in a namespace: run to their end, or in the background until dropped.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use anyhow::{Context, Result};
use netsys::netns::Netns;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::NamedTempFile;

use crate::wait::eventually;

/// Where Debian keeps programs. The caller's own `PATH` may name directories that only root can enter.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An application's user and group id: neither root nor the proxy.
pub const APP_ID: u32 = 1000;

/// Who a program runs as. Without a capability, where it does not say so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunAs {
    /// Uid 0 with every capability.
    Root,
    /// An application's uid and gid, 1000.
    Application,
    /// The proxy's uid and gid, 1337.
    Proxy,
    /// The same with `CAP_NET_ADMIN`, as TPROXY asks for.
    ProxyNetAdmin,
    /// Any other uid and gid.
    Id(u32),
}

impl RunAs {
    fn id(self) -> u32 {
        match self {
            Self::Root => 0,
            Self::Application => APP_ID,
            Self::Proxy | Self::ProxyNetAdmin => model::ports::PROXY_ID,
            Self::Id(id) => id,
        }
    }
}

/// A command that starts in the namespace as that user. `setpriv` changes the user after the namespace
/// has been entered, and sees to it that the program dies when the thread that started it does.
pub(crate) fn command(netns: &Netns, who: RunAs, program: &str) -> Command {
    command_in(None, netns, who, program)
}

/// The same, once a shell has moved to a cgroup (see [`crate::Cgroup::entering`], [`crate::Class::entering`]).
pub(crate) fn command_in(entering: Option<&str>, netns: &Netns, who: RunAs, program: &str) -> Command {
    let mut command = match entering {
        None => Command::new("setpriv"),
        Some(entering) => {
            let script = format!("{entering} && exec \"$@\"");
            let mut command = Command::new("sh");
            command.args(["-c", &script, "sh", "setpriv"]);
            command
        }
    };
    command.args(["--pdeathsig", "KILL"]);
    if who != RunAs::Root {
        let id = who.id().to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
    }
    if who == RunAs::ProxyNetAdmin {
        command.args(["--inh-caps", "+net_admin", "--ambient-caps", "+net_admin"]);
    }
    command
        .args(["--", program])
        .env("PATH", SYSTEM_PATH)
        // The caller's own; another user may not write there.
        .env_remove("XDG_RUNTIME_DIR")
        .stdin(Stdio::null());
    netns.start_in(&mut command);
    command
}

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl Finished {
    pub(crate) fn of(mut command: Command) -> Result<Self> {
        let Output {
            status,
            stdout,
            stderr,
        } = command.output().context("starting it")?;
        Ok(Self {
            status,
            stdout,
            stderr,
        })
    }

    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// A program in the background. When dropped, it and its process group are killed and it is reaped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    name: String,
    said: NamedTempFile,
}

impl Program {
    pub(crate) fn start(command: &mut Command, name: &str) -> Result<Self> {
        let said = NamedTempFile::new()?;
        let stdout = File::options().append(true).open(said.path())?;
        let stderr = stdout.try_clone()?;
        let child = command
            .process_group(0)
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self {
            child,
            name: name.to_owned(),
            said,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Standard output and standard error so far, as they came.
    #[must_use]
    pub fn said(&self) -> String {
        let mut text = Vec::new();
        // A file of ours that cannot be read has said nothing; the test then fails on the text it misses.
        let _ = File::open(self.said.path()).and_then(|mut file| file.read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    }

    /// How it ended, or `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// After 30 s, with what it said.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        eventually(&what, || self.child.try_wait().ok().flatten()).with_context(|| self.said())
    }

    /// Sends a signal to this process alone.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid()?, signal).with_context(|| format!("signalling {}", self.name))
    }

    /// Kills it and all of its process group at once, as a machine failure does.
    pub fn kill(&mut self) {
        // Gone already is as good as killed.
        if let Ok(pid) = self.pid() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }

    fn pid(&self) -> Result<Pid> {
        i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .with_context(|| format!("{} has no process id", self.name))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {} said:\n{}", self.name, self.said());
        }
    }
}
