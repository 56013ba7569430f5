//! The command's own `resolv.conf`, where the caller's names a server of one link alone: there is no such link inside.
//! Whichever server the command asks there, Weir answers.

use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rules::intent::Dns;

/// A file for as long as this lives.
pub(super) struct InPlace(PathBuf);

impl InPlace {
    /// Written at that path, which only this user reaches; none where the file will do as it is.
    pub(super) fn of(file: &Path, at: PathBuf) -> io::Result<Option<Self>> {
        let Ok(text) = fs::read_to_string(file) else {
            return Ok(None);
        };
        let Some(text) = reachable(&text) else {
            return Ok(None);
        };
        let mut options = fs::OpenOptions::new();
        let mut written = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&at)?;
        let in_place = Self(at);
        io::Write::write_all(&mut written, text.as_bytes())?;
        Ok(Some(in_place))
    }

    pub(super) fn path(&self) -> PathBuf {
        self.0.clone()
    }
}

impl Drop for InPlace {
    fn drop(&mut self) {
        // What is mounted somewhere lives on there.
        let _ = fs::remove_file(&self.0);
    }
}

/// The same with a server of this machine's in the place of each that is of one link; none where there is none.
fn reachable(text: &str) -> Option<String> {
    let is_of_link = |line: &&str| {
        let mut words = line.split_whitespace();
        let address = (words.next() == Some("nameserver"))
            .then(|| words.next())
            .flatten();
        let address = address.and_then(|address| address.split('%').next()?.parse::<IpAddr>().ok());
        address.is_some_and(|address| Dns::OF_ONE_LINK.contains(&address))
    };
    text.lines().find(is_of_link)?;
    let lines = text.lines().map(|line| match is_of_link(&line) {
        true => "nameserver 127.0.0.1\n".to_owned(),
        false => format!("{line}\n"),
    });
    Some(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_one_link_are_replaced_and_nothing_else() {
        assert_eq!(
            reachable("search a\nnameserver 10.0.0.1\nnameserver fe90:\n"),
            None
        );
        assert_eq!(
            reachable("search a\nnameserver fe80::1%eth0\nnameserver 10.0.0.1").as_deref(),
            Some("search a\nnameserver 127.0.0.1\nnameserver 10.0.0.1\n")
        );
    }
}
