//! A cgroup of version 2 that goes with the test. A test's own process never moves: that would move every other
//! test with it.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use netsys::cgroups::v2_root;

use crate::wait::eventually;

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

/// Another one at each call.
pub(crate) fn new_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("weir-e2e-{}-{number}", std::process::id())
}
