//! A class of net_cls that goes with the test, for its own threads, which may be in another one each.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::cgroup::new_name;
use crate::net::Pod;
use crate::program::{Program, RunAs};
use crate::wait::eventually;

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

    /// What a shell says to move there.
    #[must_use]
    pub fn entering(&self) -> String {
        format!("echo $$ >'{}'", self.folder.join("tasks").display())
    }

    /// The process whose mounts show the tree.
    #[must_use]
    pub fn keeper(&self) -> u32 {
        self.keeper.id()
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
