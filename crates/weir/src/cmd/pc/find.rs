//! Which proxy `weir pc` asks: the one that is named, or the only one that answers.

use std::fmt::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use anyhow::Result;
use model::{ErrorName, ports};
use registry::Dump;

use super::fetch::{self, Admin};
use crate::errors::{OrNamed, fail, named};
use crate::socket;

/// Where a dump is.
pub(crate) const PATH: &str = "/config_dump";

/// The dump of the proxy that is named, or of the only one there is.
pub(crate) fn dump(named: Option<&str>) -> Result<String> {
    match named {
        Some(named) => {
            let admin = admin_of(named)?;
            fetch::get(&admin, PATH).map_err(|error| error.context(format!("cannot ask the proxy {named}")))
        }
        None => only_one(),
    }
}

/// A process id, a socket file, or an address.
fn admin_of(named: &str) -> Result<Admin> {
    if named.parse::<u32>().is_ok() {
        let file = socket::directory()?.join(format!("{named}.sock"));
        if !file.exists() {
            fail!(
                NoProxy,
                "no proxy of this user has the process id {named}; see them with `ls {}`",
                shown()
            );
        }
        return Ok(Admin::Socket(file));
    }
    if Path::new(named).exists() || named.contains('/') {
        return Ok(Admin::Socket(named.into()));
    }
    let address = named
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next());
    address.map(Admin::Address).or_named_with(ErrorName::NoProxy, || {
        format!(
            "--proxy {named} is no process id, no socket file and no HOST:PORT; see them with `ls {}`",
            shown()
        )
    })
}

fn only_one() -> Result<String> {
    let mut answers: Vec<(PathBuf, String)> = sockets()?
        .into_iter()
        // A socket file that nobody answers is what a killed proxy left behind.
        .filter_map(|path| Some((path.clone(), fetch::get(&Admin::Socket(path), PATH).ok()?)))
        .collect();
    match answers.len() {
        0 => {
            let admin = SocketAddr::from(([127, 0, 0, 1], ports::ADMIN));
            fetch::get(&Admin::Address(admin), PATH).or_named_with(ErrorName::NoProxy, || {
                format!(
                    "no running proxy found: none answers in {} nor at {admin}; start one (`weir run`, `weir proxy`), \
                     name one with --proxy, or read a saved dump with --file",
                    shown()
                )
            })
        }
        1 => Ok(answers.remove(0).1),
        _ => Err(named(ErrorName::NoProxy, several(&answers))),
    }
}

fn several(answers: &[(PathBuf, String)]) -> String {
    let mut text = format!("{} proxies run here; say which:", answers.len());
    for (path, dump) in answers {
        let id = path.file_stem().unwrap_or_default().to_string_lossy();
        let whose = match serde_json::from_str::<Dump>(dump).map(|dump| dump.own) {
            Ok(Some(own)) => own.to_string(),
            _ => "nobody's".to_owned(),
        };
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  --proxy {id:<8} {whose}");
    }
    text
}

fn sockets() -> Result<Vec<PathBuf>> {
    let directory = socket::directory()?;
    let entries = std::fs::read_dir(&directory).or_named_with(ErrorName::System, || {
        format!("cannot read {}", directory.display())
    })?;
    let mut sockets: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "sock"))
        .collect();
    sockets.sort();
    Ok(sockets)
}

fn shown() -> String {
    socket::directory().map_or_else(|error| format!("{error:#}"), |path| path.display().to_string())
}
