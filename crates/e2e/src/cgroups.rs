//! Cgroups for tests: folders of both versions that go with the test, programs that start in them, and sockets
//! that are made there. A test's own process never moves: that would move every other test with it.

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use netsys::cgroups::v2_root;
use netsys::fdpass::{self, Channel, DESCRIPTORS_MAX};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::net::Pod;
use crate::program::{APP_ID, Program, RunAs, command};
use crate::wait::eventually;

/// Another one at each call.
fn new_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("weir-e2e-{}-{number}", std::process::id())
}

/// A cgroup of version 2, two steps from the root.
#[derive(Debug)]
pub struct Cgroup {
    root: PathBuf,
    /// Its path, without a slash in front.
    pub path: String,
}

impl Cgroup {
    /// A new one, with nothing in it.
    ///
    /// # Errors
    /// Without root, or where version 2 is not mounted.
    pub fn create() -> Result<Self> {
        let cgroup = Self {
            root: v2_root()?.context("cgroup v2 is not mounted")?,
            path: format!("{}/proxy", new_name()),
        };
        fs::create_dir_all(cgroup.folder()).context("making a cgroup")?;
        Ok(cgroup)
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.root.join(&self.path)
    }

    /// What a shell says to move there.
    #[must_use]
    pub fn entering(&self) -> String {
        format!("echo $$ >'{}'", self.folder().join("cgroup.procs").display())
    }

    /// Takes it away and makes another one by the same name, as a service manager does when a service is
    /// started again.
    ///
    /// # Errors
    /// Where somebody stays in it.
    pub fn make_anew(&self) -> Result<()> {
        self.remove()?;
        fs::create_dir(self.folder()).context("making a cgroup anew")
    }

    /// Takes it away.
    ///
    /// # Errors
    /// Where somebody stays in it.
    pub fn remove(&self) -> Result<()> {
        let folder = self.folder();
        let what = format!("{} to be empty", folder.display());
        // Who was killed is in it until the kernel has put all of it away.
        eventually(&what, || fs::remove_dir(&folder).ok())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let folder = self.folder();
        if folder.exists() && !std::thread::panicking() {
            // Who does not leave has failed a test of its own.
            let _ = self.remove();
        }
        let _ = fs::remove_dir(&folder);
        let _ = folder.parent().map(fs::remove_dir);
    }
}

/// A class id of net_cls (cgroup version 1), in a cgroup of its own. The tree is mounted for one process, which
/// keeps it, and nowhere else.
#[derive(Debug)]
pub struct Class {
    folder: PathBuf,
    keeper: Program,
    _mount: TempDir,
}

/// Mounts the tree at `$0`, makes the cgroup `$1` there with the class id `$2`, says so, and stays.
const KEEPER: &str = r#"
mount -t cgroup -o net_cls none "$0"
mkdir "$0/$1"
echo "$2" >"$0/$1/net_cls.classid"
echo kept
exec sleep infinity
"#;

impl Class {
    /// A new one.
    ///
    /// # Errors
    /// Without root, or where the kernel has no net_cls.
    pub fn create(pod: &Pod, id: u32) -> Result<Self> {
        let (mount, name) = (tempfile::tempdir()?, new_name());
        let folder = mount.path().to_string_lossy().into_owned();
        let arguments = ["-m", "sh", "-ec", KEEPER, &folder, &name, &id.to_string()];
        let mut keeper = pod.start(RunAs::Root, "unshare", arguments)?;
        let said = eventually("net_cls to be mounted", || {
            (keeper.said().contains("kept") || keeper.ended().is_some()).then(|| keeper.said())
        })?;
        ensure!(said.contains("kept"), "net_cls: {said}");
        // As the keeper sees it.
        let seen = format!("/proc/{}/root{folder}/{name}", keeper.id());
        Ok(Self {
            folder: seen.into(),
            keeper,
            _mount: mount,
        })
    }

    /// Puts the calling thread there, until it ends.
    ///
    /// # Errors
    /// Where the keeper has ended.
    pub fn enter(&self) -> Result<()> {
        let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
        fs::write(self.folder.join("tasks"), thread).with_context(|| self.keeper.said())
    }
}

impl Drop for Class {
    fn drop(&mut self) {
        // A thread that has ended is in it until the kernel has put all of it away.
        if let Err(error) = eventually("the class to be empty", || fs::remove_dir(&self.folder).ok()) {
            eprintln!("{error:#}");
        }
    }
}

/// A process in a cgroup of version 2 that makes sockets for a test, as an application's user.
#[derive(Debug)]
pub struct Maker {
    channel: Channel,
    program: Program,
}

/// Reads how many sockets of which family and kind are wanted, and passes them out.
const MAKER: &str = r#"
import json, socket
to = socket.socket(fileno=0)
while True:
    asked = to.recv(65536)
    if not asked:
        break
    made = [socket.socket(family, kind) for family, kind in json.loads(asked)]
    socket.send_fds(to, [b"made"], [one.fileno() for one in made])
    for one in made:
        one.close()
"#;

impl Maker {
    /// Starts it there.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(pod: &Pod, cgroup: &Cgroup) -> Result<Self> {
        let script = format!(
            "{} && exec setpriv --reuid {APP_ID} --regid {APP_ID} --clear-groups -- python3 -c \"$0\"",
            cgroup.entering()
        );
        let (channel, its) = fdpass::pair()?;
        let mut command = command(pod.netns(), RunAs::Root, "sh");
        command.args(["-c", &script, MAKER]);
        command.stdin(Stdio::from(its.as_fd().try_clone_to_owned()?));
        let program = Program::start(&mut command, "a maker of sockets")?;
        Ok(Self { channel, program })
    }

    /// Sockets that were made there.
    ///
    /// # Errors
    /// Where the process has ended.
    pub fn sockets(&self, kinds: &[(Domain, Type)]) -> Result<Vec<Socket>> {
        let mut all = vec![];
        for some in kinds.chunks(DESCRIPTORS_MAX) {
            let each = some
                .iter()
                .map(|(domain, kind)| format!("[{},{}]", i32::from(*domain), i32::from(*kind)));
            let asked = format!("[{}]", each.collect::<Vec<_>>().join(","));
            self.channel.send(asked.as_bytes(), &[])?;
            let answer = self.channel.receive()?;
            let (_, made) = answer.with_context(|| self.program.said())?;
            ensure!(
                made.len() == some.len(),
                "{} sockets: {}",
                made.len(),
                self.program.said()
            );
            all.extend(made.into_iter().map(Socket::from));
        }
        Ok(all)
    }
}
