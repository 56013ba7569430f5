//! Where the socket files of running proxies are: `weir proxy` and `weir run` make theirs there, `weir pc`
//! looks for them there.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;
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

/// The socket file of this process.
pub(crate) fn path() -> Result<PathBuf> {
    Ok(directory()?.join(format!("{}.sock", process::id())))
}
