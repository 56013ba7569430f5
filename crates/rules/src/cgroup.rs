//! Cgroups as signs of the proxy: the class id of net_cls (version 1) and a path of version 2. Text that people
//! write is read here, and what the machine has to say about it is [`Facts`].

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The flag that names cgroups of version 2.
pub const PATH_FLAG: &str = "--proxy-cgroup";
/// The flag that names class ids of net_cls.
pub const CLASS_FLAG: &str = "--proxy-class-id";

/// `net_cls.classid` of a cgroup of version 1; never 0, which stands for none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClassId(pub u32);

/// `0x100001`.
impl fmt::Display for ClassId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The text was no class id.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "`{0}` is no class id: write it as net_cls.classid has it (0x100001 or 1048577) or as tc does (10:1), and not 0"
)]
pub struct BadClassId(String);

impl FromStr for ClassId {
    type Err = BadClassId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = |digits: &str| {
            let digits = digits.trim_start_matches('0');
            u32::from_str_radix(if digits.is_empty() { "0" } else { digits }, 16).ok()
        };
        let id = match (text.split_once(':'), text.strip_prefix("0x")) {
            (Some((major, minor)), _) => {
                let part = |digits: &str| hex(digits).filter(|part| *part <= 0xffff && is_hex(digits));
                part(major)
                    .zip(part(minor))
                    .map(|(major, minor)| major << 16 | minor)
            }
            (None, Some(digits)) => hex(digits).filter(|_| is_hex(digits)),
            (None, None) => text.parse().ok().filter(|_| !text.starts_with('+')),
        };
        id.filter(|id| *id != 0)
            .map(Self)
            .ok_or_else(|| BadClassId(text.to_owned()))
    }
}

fn is_hex(digits: &str) -> bool {
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A cgroup of version 2 by its way from the root of that tree: `system.slice/proxy.service`. Those below it count
/// as it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CgroupPath(String);

/// As many bytes as the kernel's match has room for, its zero included.
const MOST_PATH_BYTES: usize = 512;

impl CgroupPath {
    /// Without a slash at either end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How many steps it is from the root.
    #[must_use]
    pub fn level(&self) -> usize {
        level(&self.0)
    }
}

/// How many steps a path is from the root.
pub(crate) fn level(path: &str) -> usize {
    path.split('/').filter(|name| !name.is_empty()).count()
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text names no cgroup.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{path}` is no cgroup's path: {why}; write it as /proc/PID/cgroup has it after `0::`")]
pub struct BadPath {
    path: String,
    why: &'static str,
}

impl FromStr for CgroupPath {
    type Err = BadPath;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names: Vec<_> = text.split('/').filter(|name| !name.is_empty()).collect();
        let path = names.join("/");
        // The languages of the rules have no way to write them, or the words that the rules keep.
        let is_odd = |c: char| !c.is_ascii_graphic() || matches!(c, '"' | '*');
        let why = if names.is_empty() {
            "it is the root, which every process is below"
        } else if names.iter().any(|name| matches!(*name, "." | "..")) {
            "it has a step that leads nowhere or back"
        } else if path.starts_with("sys/fs/cgroup") {
            "it begins where the tree is mounted"
        } else if path.contains(is_odd) {
            "a rule cannot hold blanks, double quotes, stars and what is not ASCII"
        } else if path.len() >= MOST_PATH_BYTES {
            "it is too long for a rule (511 bytes)"
        } else {
            return Ok(Self(path));
        };
        Err(BadPath {
            path: text.to_owned(),
            why,
        })
    }
}

/// A cgroup of version 2 as a sign.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Cgroup {
    /// Its path.
    pub path: CgroupPath,
    /// The kernel's number for it, which a cgroup that is made anew by the same path does not have; none until
    /// [`Facts`] tell it. A rule is bound to the cgroup that was there when it was loaded, and iptables shows the
    /// path alone, so the rule's comment holds the number: it is how a dead match is found.
    pub id: Option<u64>,
}

/// What the machine has to say about cgroups that an intent names.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Facts {
    /// Why no socket has a class id here, where that is so.
    pub without_classes: Option<String>,
    /// The number of each cgroup, or why there is none.
    pub ids: BTreeMap<CgroupPath, Result<u64, String>>,
}

/// The cgroups of a process, and so of the sockets that it makes; none where that is not known.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Membership {
    /// The class id, 0 where it has none.
    pub class_id: Option<u32>,
    /// The path of version 2, as `/proc/PID/cgroup` has it.
    pub path: Option<String>,
}

impl Membership {
    /// Of a process that no rule could mean: in the root of both.
    #[must_use]
    pub fn none() -> Self {
        Self {
            class_id: Some(0),
            path: Some("/".to_owned()),
        }
    }

    /// Whether it is in the cgroup, or in one below it; none where that is not known.
    pub(crate) fn is_below(&self, path: &str) -> Option<bool> {
        let names = |path: &'_ str| -> Vec<String> {
            let names = path.split('/').filter(|name| !name.is_empty());
            names.map(str::to_owned).collect()
        };
        Some(names(self.path.as_deref()?).starts_with(&names(path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_ids_are_read_as_the_kernel_and_as_tc_write_them() {
        for (text, id) in [
            ("0x100001", Some(0x10_0001)),
            ("1048577", Some(0x10_0001)),
            ("10:1", Some(0x10_0001)),
            ("ffff:FFFF", Some(u32::MAX)),
            ("0x00000000001", Some(1)),
            ("0", None),
            ("0:0", None),
            ("0x", None),
            ("", None),
            (":1", None),
            ("1:", None),
            ("10000:1", None),
            ("1:10000", None),
            ("1:2:3", None),
            ("+7", None),
            ("0x+7", None),
            ("-1", None),
            ("4294967296", None),
            ("0x100000000", None),
        ] {
            assert_eq!(text.parse::<ClassId>().ok(), id.map(ClassId), "{text}");
        }
    }

    #[test]
    fn paths_are_one_way_from_the_root() {
        let long = "a".repeat(MOST_PATH_BYTES);
        for (text, path, level) in [
            ("/system.slice/proxy.service", "system.slice/proxy.service", 2),
            (
                "system.slice/foo\\x2dbar.service/",
                "system.slice/foo\\x2dbar.service",
                2,
            ),
            ("//a///b@c", "a/b@c", 2),
            (&long[1..], &long[1..], 1),
        ] {
            let read: CgroupPath = text.parse().unwrap();
            assert_eq!((read.as_str(), read.level()), (path, level), "{text}");
        }
        for text in [
            "",
            "/",
            "a/../b",
            "./a",
            "/sys/fs/cgroup/a",
            "a\"b",
            "a*",
            "a\nb",
            "a b",
            "é",
            &long,
        ] {
            assert!(text.parse::<CgroupPath>().is_err(), "{text}");
        }
    }
}
