//! Cgroups as the machine has them: whether those that an intent names are there, and where programs that look
//! for them find them. Asked by `weir init`, and by what runs `nft`.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rules::Intent;
use rules::cgroup::{CgroupPath, ClassId, Facts};
use rules::intent::{Proxy, Signs};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, fsconfig_create, fsmount, fsopen,
    mount_bind, mount_change,
};

use crate::{netns, sys};

/// Where programs look for cgroups.
const USUAL_ROOT: &str = "/sys/fs/cgroup";

/// What the machine says about the cgroups that an intent names.
#[must_use]
pub fn facts(intent: &Intent) -> Facts {
    match &intent.proxy {
        Proxy::Inside(signs) => of_signs(signs),
        Proxy::Outside { .. } => Facts::default(),
    }
}

fn of_signs(signs: &Signs) -> Facts {
    let mut facts = Facts::default();
    if !signs.class_ids.is_empty() {
        facts.without_classes = without_classes();
    }
    if !signs.cgroups.is_empty() {
        let root = v2_root();
        let paths = signs.cgroups.iter().map(|cgroup| &cgroup.path);
        facts.ids = paths.map(|path| (path.clone(), id(&root, path))).collect();
    }
    facts
}

/// The number of a cgroup is the inode of its folder.
fn id(root: &io::Result<Option<PathBuf>>, path: &CgroupPath) -> Result<u64, String> {
    let root = match root {
        Ok(Some(root)) => root,
        Ok(None) => {
            return Err(
                "cgroup v2 is not mounted here: mount it (mount -t cgroup2 none /sys/fs/cgroup), \
                 or name the proxy by another sign"
                    .to_owned(),
            );
        }
        Err(error) => return Err(format!("cannot read where cgroup v2 is mounted: {error}")),
    };
    let folder = root.join(path.as_str());
    match fs::metadata(&folder) {
        Ok(found) if found.is_dir() => Ok(found.ino()),
        Ok(_) => Err(format!("{} is no cgroup but a file of one", folder.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!(
            "there is no such cgroup ({} is not there): start the proxy in it first, or make it; \
             `cat /proc/PID/cgroup` of the proxy shows its own after `0::`",
            folder.display()
        )),
        Err(error) => Err(format!("cannot look at {}: {error}", folder.display())),
    }
}

/// The folder of a cgroup of version 2.
///
/// # Errors
/// In words, why there is none.
pub fn folder(path: &CgroupPath) -> Result<PathBuf, String> {
    let root = v2_root();
    id(&root, path)?;
    match root {
        Ok(Some(root)) => Ok(root.join(path.as_str())),
        _ => Err("cgroup v2 is not mounted here".to_owned()),
    }
}

/// The folder of a cgroup of version 1 that gives its processes this class id.
///
/// # Errors
/// In words, why there is none.
pub fn folder_of_class(id: ClassId) -> Result<PathBuf, String> {
    if let Some(why) = without_classes() {
        return Err(why);
    }
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let root = class_root_of(&mounts).ok_or("net_cls is mounted, and not to be seen from here")?;
    let mut left = vec![root];
    while let Some(folder) = left.pop() {
        let classid = fs::read_to_string(folder.join("net_cls.classid")).unwrap_or_default();
        if classid.trim().parse() == Ok(id.0) {
            return Ok(folder);
        }
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        left.extend(folders.map(|entry| entry.path()));
    }
    Err(format!(
        "no cgroup has the class id {id}: start the proxy in one that has it (net_cls.classid)"
    ))
}

/// Where a tree of version 1 with class ids is mounted.
fn class_root_of(mounts: &str) -> Option<PathBuf> {
    let of_line = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let is_v1 = kind.next() == Some("cgroup");
        let options = kind.nth(1).filter(|_| is_v1)?;
        options.split(',').find(|option| *option == "net_cls")?;
        Some(PathBuf::from(unescaped(mount.split(' ').nth(4)?)))
    };
    mounts.lines().find_map(of_line)
}

/// Where the tree of version 2 is mounted: in the usual place, else wherever it was first; none where it is not.
///
/// # Errors
/// Where `/proc` is not mounted.
pub fn v2_root() -> io::Result<Option<PathBuf>> {
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo")?;
    Ok(v2_root_of(&mounts))
}

/// The tree of version 2 itself, wherever it is mounted; where it is not, as this process sees it, and shown to
/// nobody else.
///
/// # Errors
/// Where it is not mounted and may not be (needs `CAP_SYS_ADMIN`).
pub(crate) fn v2_tree() -> io::Result<OwnedFd> {
    if let Some(root) = v2_root()? {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        return Ok(rustix::fs::open(&root, flags, Mode::empty())?);
    }
    let filesystem = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&filesystem)?;
    Ok(fsmount(
        &filesystem,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?)
}

fn v2_root_of(mounts: &str) -> Option<PathBuf> {
    let of_line = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        let is_v2 = kind.split(' ').next() == Some("cgroup2");
        // What is mounted is the fourth field, and where the fifth.
        let point = mount.split(' ').nth(4).filter(|_| is_v2)?;
        Some(PathBuf::from(unescaped(point)))
    };
    let roots: Vec<_> = mounts.lines().filter_map(of_line).collect();
    let usual = roots.iter().find(|root| root.as_os_str() == USUAL_ROOT);
    usual.or_else(|| roots.first()).cloned()
}

/// The kernel writes a blank as `\040`, and so on.
fn unescaped(text: &str) -> String {
    let blanks = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    blanks
        .iter()
        .fold(text.to_owned(), |text, (code, blank)| text.replace(code, blank))
}

/// Why no process has a class id, where that is so.
fn without_classes() -> Option<String> {
    let known = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    without_classes_of(&known)
}

fn without_classes_of(known: &str) -> Option<String> {
    let mut line = known
        .lines()
        .map(|line| line.split_whitespace())
        .find(|fields| fields.clone().next() == Some("net_cls"))
        .into_iter()
        .flatten()
        .skip(1);
    match line.next() {
        None => Some(
            "this kernel has no class ids (CONFIG_CGROUP_NET_CLASSID): name the proxy by another sign, such as \
             --proxy-cgroup"
                .to_owned(),
        ),
        Some("0") => Some(
            "net_cls is not mounted, so that no process has a class id and the proxy would not be recognised: mount \
             it (mount -t cgroup -o net_cls none FOLDER) and start the proxy in a cgroup with that id first"
                .to_owned(),
        ),
        Some(_) => None,
    }
}

/// Runs `f` where the tree of version 2 is in the usual place, which nft insists on: where it is elsewhere, on a
/// thread with mounts of its own.
///
/// # Errors
/// Where the mounts cannot be changed (needs `CAP_SYS_ADMIN`); `f` has not run then.
pub(crate) fn with_v2_in_place<T: Send>(f: impl FnOnce() -> T + Send) -> io::Result<T> {
    let root = match v2_root()? {
        Some(root) if root.as_os_str() != USUAL_ROOT => root,
        _ => return Ok(f()),
    };
    netns::on_a_thread(|| {
        sys::process::unshare(libc::CLONE_NEWNS)?;
        // Nothing of this shows elsewhere.
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private)?;
        mount_bind(&root, Path::new(USUAL_ROOT))?;
        Ok(f())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_version_2_is_found_wherever_it_is_mounted() {
        const V1: &str = "25 24 0:22 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n";
        const HYBRID: &str = "34 24 0:31 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n";
        const PURE: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        for (mounts, root) in [
            (String::new(), None),
            (V1.to_owned(), None),
            (format!("{V1}{HYBRID}"), Some("/sys/fs/cgroup/unified")),
            (format!("{HYBRID}{PURE}"), Some("/sys/fs/cgroup")),
            (PURE.replace("/sys/fs/cgroup", "/a\\040b"), Some("/a b")),
            ("nonsense\n - cgroup2\n1 2 3 - cgroup2".to_owned(), None),
        ] {
            assert_eq!(v2_root_of(&mounts), root.map(PathBuf::from), "{mounts}");
        }
    }

    #[test]
    fn the_tree_with_class_ids_is_found() {
        const CPU: &str = "25 24 0:22 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        const CLASSES: &str =
            "26 24 0:23 / /sys/fs/cgroup/net_cls,net_prio rw shared:3 - cgroup cgroup rw,net_cls,net_prio\n";
        const NOT_IT: &str = "27 24 0:24 / /net_cls rw - tmpfs net_cls rw,net_cls\n";
        let root = Some(PathBuf::from("/sys/fs/cgroup/net_cls,net_prio"));
        for (mounts, found) in [
            (format!("{CPU}{NOT_IT}{CLASSES}"), root),
            (CPU.to_owned(), None),
            (NOT_IT.to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(class_root_of(&mounts), found, "{mounts}");
        }
    }

    #[test]
    fn what_has_no_class_ids_says_why() {
        const HEAD: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t3\t1\t1\n";
        for (known, why) in [
            (HEAD.to_owned(), Some("this kernel has no class ids")),
            (format!("{HEAD}net_cls\t0\t1\t1\n"), Some("not mounted")),
            (format!("{HEAD}net_cls\t9\t2\t1\n"), None),
            (format!("{HEAD}net_cls\n"), Some("this kernel has no class ids")),
        ] {
            let found = without_classes_of(&known);
            assert_eq!(found.is_some(), why.is_some(), "{known}");
            assert!(found.unwrap_or_default().contains(why.unwrap_or_default()));
        }
    }
}
