//! Where the socket files of running proxies are: `weir proxy` and `weir run` make theirs there, and clear away
//! what killed ones left; `weir pc` looks for them there.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::{env, fs, process};

use crate::errors::{OrNamed, fail};
use anyhow::Result;
use model::ErrorName;

/// The directory of this user: `$XDG_RUNTIME_DIR/weir`, or `/tmp/weir-UID` where there is no such variable or
/// it names no directory of this user. Only its owner can enter it.
pub(crate) fn directory() -> Result<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    // Under su and sudo the variable may still name the directory of somebody else.
    let is_ours =
        |directory: &PathBuf| fs::metadata(directory).is_ok_and(|it| it.is_dir() && it.uid() == uid);
    let directory = match env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(is_ours) {
        Some(runtime) => runtime.join("weir"),
        None => PathBuf::from(format!("/tmp/weir-{uid}")),
    };
    match DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        other => {
            other.or_named_with(ErrorName::AdminSocket, || {
                format!(
                    "cannot make {}; set XDG_RUNTIME_DIR to a directory of your own",
                    directory.display()
                )
            })?;
        }
    }
    // In /tmp anybody may have been there first.
    let metadata = fs::symlink_metadata(&directory)?;
    let is_private = metadata.is_dir() && metadata.uid() == uid && metadata.mode() & 0o077 == 0;
    if !is_private {
        fail!(
            AdminSocket,
            "{} is not a directory of this user alone; remove it, or set XDG_RUNTIME_DIR to a directory of your own",
            directory.display()
        );
    }
    Ok(directory)
}

/// The socket file for this process. What proxies left behind that were killed is cleared away.
pub(crate) fn path() -> Result<PathBuf> {
    files()?
        .iter()
        .filter(|file| is_left_behind(file))
        .for_each(|file| {
            // Somebody else may have been quicker.
            let _ = fs::remove_file(file);
        });
    Ok(directory()?.join(format!("{}.sock", process::id())))
}

/// The socket files that there are.
pub(crate) fn files() -> Result<Vec<PathBuf>> {
    let directory = directory()?;
    let entries = fs::read_dir(&directory).or_named_with(ErrorName::System, || {
        format!("cannot read {}", directory.display())
    })?;
    let is_socket = |path: &PathBuf| {
        let metadata = fs::symlink_metadata(path);
        metadata.is_ok_and(|it| it.file_type().is_socket())
            && path.extension().is_some_and(|extension| extension == "sock")
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(is_socket)
        .collect();
    files.sort();
    Ok(files)
}

/// Nobody listens, and the process that it is named for is gone: one that is about to listen is there.
fn is_left_behind(file: &Path) -> bool {
    let refuses =
        || UnixStream::connect(file).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
    let id = file.file_stem().and_then(OsStr::to_str);
    id.is_some_and(|id| !Path::new("/proc").join(id).exists()) && refuses()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_what_a_dead_process_left_is_cleared_away() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        // Beyond any process id.
        let (dead, heard, own) = (
            at("4194305.sock"),
            at("4194306.sock"),
            at(&format!("{}.sock", process::id())),
        );
        drop(UnixListener::bind(&dead).unwrap());
        let _heard = UnixListener::bind(&heard).unwrap();
        drop(UnixListener::bind(&own).unwrap());
        assert!(is_left_behind(&dead));
        assert!(!is_left_behind(&heard), "somebody listens");
        assert!(!is_left_behind(&own), "its process lives");
        assert!(!is_left_behind(&at("4194307.sock")), "it is not there");
    }
}
