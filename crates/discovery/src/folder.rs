//! The files of a manifests folder: which there are, which changed since last time, and which are still
//! being written. Blocking; called by the thread of [`crate::manifests`].

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::catalog::Catalog;
use crate::parse::{self, Parsed, Reader};
use crate::watch::Watch;

/// How long a file of which nothing was heard is left alone after it was written to: half a file may well
/// be valid YAML with half the objects.
pub(crate) const SETTLE: Duration = Duration::from_millis(50);
/// The same for a file whose writer still has it open, and for an empty one: some editors truncate a file,
/// close it, and fill it then.
const SETTLE_OPEN: Duration = Duration::from_secs(1);
/// A larger file is refused.
const LARGEST: u64 = 256 * 1024 * 1024;

/// A folder as it was read last.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Files that are in the catalog.
    read: BTreeMap<Arc<str>, Last>,
    /// Files of which something was heard since they were last read, and whether they are complete.
    heard: BTreeMap<String, bool>,
    /// Sub-directories that were spoken of.
    sub_directories: Vec<PathBuf>,
}

/// A file as it was read last.
#[derive(Debug)]
struct Last {
    stamp: Stamp,
    digest: u64,
    reader: Reader,
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// Read so soon after it was written that a further write may have left the same stamp.
    is_fresh: bool,
}

/// What a look at the folder found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Whether the catalog was changed.
    pub(crate) changed: bool,
    /// When to look again even if nothing more is heard: a file was not ready to be read.
    pub(crate) again_in: Option<Duration>,
}

impl Folder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            read: BTreeMap::new(),
            heard: BTreeMap::new(),
            sub_directories: Vec::new(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Brings the catalog up to the folder, but for files that are still being written, of which `watch`
    /// tells. Without one everything is read as it is.
    ///
    /// # Errors
    /// Where the folder itself cannot be read; the catalog then stays as it is.
    pub(crate) fn look(&mut self, catalog: &mut Catalog, watch: Option<&Watch>) -> io::Result<Look> {
        let found = self.list()?;
        self.heard.retain(|name, _| found.contains_key(name.as_str()));
        self.hear(watch);
        let mut look = Look {
            changed: false,
            again_in: None,
        };
        let mut is_waiting = false;
        for (name, metadata) in &found {
            let stamp = Stamp::of(metadata);
            let last = self.read.get(name).map(|last| last.stamp);
            if last.is_some_and(|last| !last.is_fresh && last.is_same_file(stamp)) {
                continue;
            }
            let heard = self.heard.get(&**name).copied();
            let again_in = match watch {
                Some(_) => unsettled(metadata, heard),
                None => None,
            };
            is_waiting |= again_in.is_some();
            let again_in = again_in.or_else(|| self.read_one(name, stamp, catalog, watch, &mut look));
            look.again_in = look.again_in.into_iter().chain(again_in).min();
        }
        // What is gone from one file may be about to come in one that is still being written.
        if !is_waiting {
            self.drop_gone(&found, catalog, watch, &mut look)?;
        }
        Ok(look)
    }

    /// A folder that is removed loses its files first: they count as gone when it is still there a while later.
    fn drop_gone(
        &mut self,
        found: &BTreeMap<Arc<str>, Metadata>,
        catalog: &mut Catalog,
        watch: Option<&Watch>,
        look: &mut Look,
    ) -> io::Result<()> {
        let gone: Vec<Arc<str>> = self
            .read
            .keys()
            .filter(|name| !found.contains_key(*name))
            .cloned()
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        let again_in = match watch {
            Some(_) => still_changing(&fs::metadata(&self.path)?, found.is_empty()),
            None => None,
        };
        if again_in.is_some() {
            look.again_in = look.again_in.into_iter().chain(again_in).min();
            return Ok(());
        }
        for name in &gone {
            catalog.remove(name);
            self.read.remove(name);
        }
        look.changed = true;
        Ok(())
    }

    /// Reads one file into the catalog, unless it changed meanwhile. Says when to look again, if at all.
    fn read_one(
        &mut self,
        name: &Arc<str>,
        stamp: Stamp,
        catalog: &mut Catalog,
        watch: Option<&Watch>,
        look: &mut Look,
    ) -> Option<Duration> {
        self.heard.remove(&**name);
        let (text, read_stamp) = read(&self.path.join(&**name));
        self.hear(watch);
        // A change is heard of a moment after it is made, so the file itself is asked, too.
        let has_changed = read_stamp.is_some_and(|read_stamp| !read_stamp.is_same_file(stamp))
            || self.heard.contains_key(&**name);
        if has_changed && watch.is_some() {
            return Some(SETTLE);
        }
        let digest = digest(&text);
        let before = self.read.remove(name);
        let is_same = before.as_ref().is_some_and(|before| before.digest == digest);
        let mut reader = before.map(|before| before.reader).unwrap_or_default();
        if !is_same {
            catalog.put(name, parsed(&mut reader, name, text));
            look.changed = true;
        }
        let last = Last {
            stamp,
            digest,
            reader,
        };
        self.read.insert(Arc::clone(name), last);
        stamp.is_fresh.then_some(SETTLE)
    }

    /// Notes what was heard of the files.
    fn hear(&mut self, watch: Option<&Watch>) {
        // What cannot be heard is seen by looking again.
        let changes = watch.and_then(|watch| watch.changes().ok()).unwrap_or_default();
        for change in changes {
            self.heard.insert(change.name, change.is_complete);
        }
    }

    /// Files by name: `*.yaml`, `*.yml` and `*.json`, links followed; hidden ones and sub-directories are
    /// not looked at, which is also what keeps a mounted ConfigMap's `..data` from being read twice.
    fn list(&mut self) -> io::Result<BTreeMap<Arc<str>, Metadata>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
                continue;
            };
            // Gone since it was listed, or a dangling link: no file.
            let Ok(metadata) = fs::metadata(entry.path()) else {
                continue;
            };
            if metadata.is_dir() && !self.sub_directories.contains(&entry.path()) {
                tracing::info!(
                    "{} is a sub-directory and is not read; start Weir with it, or move its files up",
                    entry.path().display()
                );
                self.sub_directories.push(entry.path());
            }
            let extension = Path::new(name).extension().and_then(|e| e.to_str());
            if metadata.is_file() && matches!(extension, Some("yaml" | "yml" | "json")) {
                found.insert(name.into(), metadata);
            }
        }
        Ok(found)
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            is_fresh: age(metadata).is_some_and(|age| age < SETTLE),
        }
    }

    fn is_same_file(self, other: Self) -> bool {
        let plain = |s: Self| (s.device, s.inode, s.size, s.modified, s.changed);
        plain(self) == plain(other)
    }
}

/// How long a file is still to be left alone, if at all.
fn unsettled(metadata: &Metadata, heard: Option<bool>) -> Option<Duration> {
    let settle = match (metadata.len(), heard) {
        (0, _) | (_, Some(false)) => SETTLE_OPEN,
        (_, Some(true)) => return None,
        (_, None) => SETTLE,
    };
    settle.checked_sub(age(metadata)?).filter(|rest| !rest.is_zero())
}

/// How long a folder is still to be left alone after something in it came or went, if at all.
fn still_changing(folder: &Metadata, is_empty: bool) -> Option<Duration> {
    let settle = if is_empty { SETTLE_OPEN } else { SETTLE };
    settle.checked_sub(age(folder)?).filter(|rest| !rest.is_zero())
}

/// Time since the last write; `None` where the file's clock is ahead of ours.
fn age(metadata: &Metadata) -> Option<Duration> {
    SystemTime::now().duration_since(metadata.modified().ok()?).ok()
}

fn parsed(reader: &mut Reader, name: &str, text: Result<String, String>) -> Parsed {
    match text {
        Ok(text) => reader.read(name, &text),
        Err(message) => parse::unreadable(name, message),
    }
}

fn digest(text: &Result<String, String>) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// The text of a file, and its stamp once it was read.
fn read(path: &Path) -> (Result<String, String>, Option<Stamp>) {
    let mut bytes = Vec::new();
    let opened = fs::File::open(path).and_then(|file| {
        (&file).take(LARGEST + 1).read_to_end(&mut bytes)?;
        file.metadata()
    });
    let metadata = match opened {
        Ok(metadata) => metadata,
        Err(error) => return (Err(format!("cannot be read: {error}")), None),
    };
    let mut stamp = Stamp::of(&metadata);
    let text = if bytes.len() as u64 > LARGEST {
        Err(format!(
            "is larger than {LARGEST} bytes and is not read; split it"
        ))
    } else {
        // Emptied and filled again while it was read, within one tick of the clock that stamps it: only
        // the size of what was read tells.
        stamp.size = bytes.len() as u64;
        String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            format!("is not UTF-8 text (byte {at}); save it as UTF-8")
        })
    };
    (text, Some(stamp))
}
