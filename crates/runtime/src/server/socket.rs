//! A listening socket file: made in a directory that only its owner can enter, taken over from a
//! process that died, removed at the end.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Why a socket file cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process listens there.
    #[error("socket {path} belongs to a running process; stop it or give another path")]
    InUse {
        /// The socket file.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{path} exists and is not a socket; remove it or give another path")]
    NotASocket {
        /// What is there.
        path: PathBuf,
    },
    /// Another user could put a socket of his own there.
    #[error("directory {directory} of the socket belongs to another user; give another path")]
    ForeignDirectory {
        /// The directory.
        directory: PathBuf,
    },
    /// The system refuses.
    #[error("cannot listen on socket {path} ({doing}); give another path")]
    Io {
        /// The socket file.
        path: PathBuf,
        /// Which step failed.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A listening socket file, removed on drop.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: the file is removed only while it is still this one.
    id: (u64, u64),
}

impl Socket {
    /// Listens at a path. A missing parent directory is made, for its owner alone; a socket file that
    /// no process listens on any more is replaced. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// Where the path is in use, is something else, or cannot be made.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let fail = |doing| {
            let path = path.to_owned();
            move |source| SocketError::Io { path, doing, source }
        };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            let mut directory = DirBuilder::new();
            directory
                .recursive(true)
                .mode(0o700)
                .create(parent)
                .map_err(fail("making its directory"))?;
            let owner = fs::metadata(parent).map_err(fail("reading its directory"))?.uid();
            if owner != 0 && owner != rustix::process::geteuid().as_raw() {
                return Err(SocketError::ForeignDirectory {
                    directory: parent.to_owned(),
                });
            }
        }
        remove_stale(path)?;
        let listener = UnixListener::bind(path).map_err(fail("binding"))?;
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(fail("setting its mode"))?;
        let id = fs::symlink_metadata(path)
            .map(|it| (it.dev(), it.ino()))
            .map_err(fail("reading it back"))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            id,
        })
    }

    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|it| (it.dev(), it.ino()) == self.id) {
            // Where it cannot be removed, the next process finds it stale.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let fail = |doing, source| SocketError::Io {
        path: path.to_owned(),
        doing,
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail("looking whether it exists", error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| fail("removing a stale one", error))
        }
        Err(error) => Err(fail("asking who listens", error)),
        Ok(_) => Err(SocketError::InUse {
            path: path.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_a_live_one_and_a_file_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir/proxy.sock");
        let socket = Socket::bind(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
        assert!(matches!(Socket::bind(&path), Err(SocketError::InUse { .. })));
        drop(socket);
        assert!(!path.exists());

        // As a killed process leaves it: closed, the file still there.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = Socket::bind(&path).unwrap();

        // Another process replaced the file: it is not ours to remove.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        drop(socket);
        assert!(matches!(Socket::bind(&path), Err(SocketError::NotASocket { .. })));
    }
}
