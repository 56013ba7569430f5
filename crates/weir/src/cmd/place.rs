//! Which network namespace a command is about: the one it runs in, one with a name or a path, or a process's.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use anyhow::Result;
use diagnose::place::Shell;
use model::ErrorName;
use netsys::netns::Netns;
use netsys::process;
use serde::{Serialize, Serializer};

use crate::errors::OrNamed;

/// Where `ip netns` has its names.
const NAMES: &str = "/run/netns";
/// Where files are that go with names of `ip netns`.
const FILES: &str = "/etc/netns";

/// Where a command looks.
#[derive(clap::Args)]
#[command(next_help_heading = "Where")]
pub(crate) struct Place {
    /// A namespace by its path or its name under /run/netns [default: the one this runs in]
    #[arg(long, global = true, value_name = "PATH|NAME", conflicts_with = "pid")]
    netns: Option<String>,
    /// The namespace of this process
    #[arg(long, global = true, value_name = "PID")]
    pid: Option<u32>,
}

impl Place {
    /// The namespace, where it is another than the caller's.
    pub(crate) fn open(&self) -> Result<Option<Netns>> {
        match (&self.netns, self.pid) {
            (Some(name), _) => named(name).map(Some),
            (None, Some(pid)) => of_process(pid).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// Runs `f` there.
    pub(crate) fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        match self.open()? {
            None => Ok(f()),
            Some(netns) => netns.run(f).or_named(
                ErrorName::Namespace,
                "cannot enter the network namespace: that needs CAP_SYS_ADMIN, so run as root",
            ),
        }
    }

    /// Whether the caller's own is meant.
    pub(crate) fn is_here(&self) -> bool {
        self.netns.is_none() && self.pid.is_none()
    }

    /// How a command that is printed gets there.
    pub(crate) fn shell(&self) -> Shell {
        match (&self.netns, self.pid) {
            (Some(name), _) => shell(name),
            (None, Some(pid)) => Shell::of_process(pid),
            (None, None) => Shell::here(),
        }
    }

    /// The process that it was named by.
    pub(crate) fn process(&self) -> Option<u32> {
        self.pid
    }

    /// The resolver's configuration that `ip netns exec` would show there, where there is one.
    pub(crate) fn resolv_conf(&self) -> Option<PathBuf> {
        let name = self.netns.as_deref().filter(|name| !name.contains('/'))?;
        let file = Path::new(FILES).join(name).join("resolv.conf");
        file.exists().then_some(file)
    }
}

/// A network namespace, as people know it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Named {
    /// The one that this runs in.
    Here,
    /// A name under `/run/netns`.
    Name(String),
    /// One without a name, by the number that `/proc/PID/ns/net` shows.
    Number(u64),
    Unknown,
}

impl Named {
    /// That of a number.
    pub(crate) fn new(number: Option<u64>) -> Self {
        let Some(number) = number else {
            return Self::Unknown;
        };
        if process::netns_of(std::process::id()) == Some(number) {
            return Self::Here;
        }
        let entries = fs::read_dir(NAMES).into_iter().flatten().flatten();
        let mut names = entries.filter(|entry| {
            let metadata = fs::metadata(entry.path());
            metadata.is_ok_and(|metadata| metadata.ino() == number)
        });
        let name = names.next();
        name.map_or(Self::Number(number), |entry| {
            Self::Name(entry.file_name().to_string_lossy().into_owned())
        })
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here => f.write_str("this one"),
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => write!(f, "net:[{number}]"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl Serialize for Named {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How a command that is printed gets into the namespace of that path or name.
pub(crate) fn shell(name: &str) -> Shell {
    Shell::by_path(&path_of(name))
}

/// A name is one that `ip netns` gave.
pub(crate) fn path_of(name: &str) -> PathBuf {
    match name.contains('/') {
        true => PathBuf::from(name),
        false => Path::new(NAMES).join(name),
    }
}

/// The namespace of that path or name.
pub(crate) fn named(name: &str) -> Result<Netns> {
    let path = path_of(name);
    Netns::open(&path).or_named_with(ErrorName::Namespace, || {
        format!("--netns {name}: cannot open {} (see `ip netns`)", path.display())
    })
}

fn of_process(pid: u32) -> Result<Netns> {
    Netns::open(Path::new(&format!("/proc/{pid}/ns/net"))).or_named_with(ErrorName::Namespace, || {
        format!("--pid {pid}: cannot open its network namespace; is it running, and is this root?")
    })
}
