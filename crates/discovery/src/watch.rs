//! Hears of changes in one directory (inotify).

use std::io::{self, PipeReader};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

/// A watched directory. One that is removed or renamed and made anew under the same path is taken up by
/// [`Watch::renew`].
#[derive(Debug)]
pub(crate) struct Watch {
    path: PathBuf,
    inotify: OwnedFd,
    /// Device and inode of what is watched; `None` while there is nothing to watch.
    watched: Option<(u64, u64)>,
}

/// What a wait ended with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The writer's end of the stop pipe is closed.
    Stop,
    /// The time is up.
    Nothing,
    /// Something changed; [`Watch::changes`] tells what.
    Changes,
}

/// A file that changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) name: String,
    /// Its writer has closed it, or it was moved here: nothing more is to be waited for.
    pub(crate) is_complete: bool,
}

impl Watch {
    /// Watches a directory.
    ///
    /// # Errors
    /// Where it cannot be watched.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let mut watch = Self::later(path)?;
        watch.renew()?;
        Ok(watch)
    }

    /// Ready to watch a directory from the first [`Watch::renew`] on.
    ///
    /// # Errors
    /// Where there are too many watchers.
    pub(crate) fn later(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            inotify: inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?,
            watched: None,
        })
    }

    /// Watches what is under the path now, if that is another directory than before, and says so.
    ///
    /// # Errors
    /// Where it cannot be watched.
    pub(crate) fn renew(&mut self) -> io::Result<bool> {
        let id = std::fs::metadata(&self.path).map(|m| (m.dev(), m.ino())).ok();
        if id == self.watched && id.is_some() {
            return Ok(false);
        }
        self.watched = None;
        let events = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        inotify::add_watch(&self.inotify, &self.path, events)?;
        self.watched = id;
        Ok(true)
    }

    /// Waits for changes, for the stop, or for the time to be up.
    ///
    /// # Errors
    /// Where nothing can be heard.
    pub(crate) fn wait(&self, stop: &PipeReader, time: Duration) -> io::Result<Heard> {
        let timeout = Timespec::try_from(time).ok();
        let mut polled = [
            PollFd::new(stop, PollFlags::IN),
            PollFd::new(&self.inotify, PollFlags::IN),
        ];
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !polled[0].revents().is_empty() {
            return Ok(Heard::Stop);
        }
        if polled[1].revents().is_empty() {
            return Ok(Heard::Nothing);
        }
        Ok(Heard::Changes)
    }

    /// What changed since the last call, without waiting. Of some changes (a directory that went away) no
    /// file is told.
    ///
    /// # Errors
    /// Where nothing can be heard.
    pub(crate) fn changes(&self) -> io::Result<Vec<Change>> {
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut changes = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().and_then(|name| name.to_str().ok());
                    changes.extend(name.map(|name| {
                        Change {
                            name: name.to_owned(),
                            is_complete: event
                                .events()
                                .intersects(ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO),
                        }
                    }));
                }
                Err(Errno::AGAIN) => return Ok(changes),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
