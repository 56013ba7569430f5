//! The proxies that run: those that this user has socket files of, and as root every one on the machine.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use diagnose::tables::Row;
use jiff::Timestamp;
use model::ErrorName;
use netsys::process;
use registry::Dump;
use serde::Serialize;

use super::ask::{self, Found};
use super::fetch::{self, Admin};
use crate::cmd::place;
use crate::errors::OrNamed;
use crate::socket;

/// One that runs: it answers, or listens and is silent.
pub(super) struct Proxy {
    /// What `--proxy` takes: its process id.
    pub(super) id: String,
    pub(super) netns: place::Named,
    since: Option<SystemTime>,
    answer: Result<Found>,
    dump: Option<Dump>,
}

impl Proxy {
    fn new(id: String, answer: Result<Found>, file: Option<&PathBuf>) -> Self {
        let dump: Option<Dump> = answer.as_ref().ok().and_then(Found::read);
        let told = dump.as_ref().and_then(|dump| dump.process.as_ref());
        let made = || fs::metadata(file?).ok()?.modified().ok();
        let since = told.map(|it| SystemTime::UNIX_EPOCH + Duration::from_secs(it.started));
        let by_process = || process::netns_of(id.parse().ok()?);
        Self {
            netns: place::Named::new(told.and_then(|it| it.netns).or_else(by_process)),
            since: since.or_else(made),
            id,
            answer,
            dump,
        }
    }

    pub(super) fn is_here(&self) -> bool {
        self.netns == place::Named::Here
    }

    /// Whose it is.
    pub(super) fn pod(&self) -> String {
        match &self.dump {
            Some(dump) => dump
                .own
                .as_ref()
                .map_or_else(|| "nobody's".to_owned(), ToString::to_string),
            None => "does not answer".to_owned(),
        }
    }

    pub(super) fn answered(self) -> Result<Found> {
        self.answer
    }
}

/// Those of this user, by their socket files. One that nobody listens on is what a killed proxy left behind.
pub(super) fn of_user() -> Result<Vec<Proxy>> {
    let files = socket::files()?.into_iter();
    let proxies = files.filter_map(|file| {
        let id = file.file_stem()?.to_str()?.to_owned();
        let answer = Found::new(Admin::Socket(file.clone()), None);
        let runs = answer.as_ref().err().is_none_or(fetch::is_silent);
        runs.then(|| Proxy::new(id, answer, Some(&file)))
    });
    Ok(proxies.collect())
}

/// A line of `weir pc proxies`.
#[derive(Serialize)]
pub(super) struct ProxyRow {
    /// What `--proxy` takes.
    proxy: String,
    pod: Option<String>,
    netns: place::Named,
    since: Option<Timestamp>,
    version: Option<String>,
    pub(super) answers: bool,
}

impl Row for ProxyRow {
    const COLUMNS: &'static [&'static str] = &["PID", "POD", "NETWORK NAMESPACE", "SINCE", "VERSION"];

    fn cells(&self) -> Vec<String> {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let version = match self.answers {
            true => or_none(self.version.clone()),
            false => "does not answer".to_owned(),
        };
        vec![
            self.proxy.clone(),
            or_none(self.pod.clone()),
            self.netns.to_string(),
            or_none(
                self.since
                    .map(|since| since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
            ),
            version,
        ]
    }
}

impl From<Proxy> for ProxyRow {
    fn from(proxy: Proxy) -> Self {
        let dump = proxy.dump.as_ref();
        Self {
            pod: dump.and_then(|dump| dump.own.as_ref()).map(ToString::to_string),
            version: dump
                .and_then(|dump| dump.process.as_ref())
                .map(|it| it.version.clone()),
            since: proxy.since.and_then(|since| Timestamp::try_from(since).ok()),
            answers: proxy.answer.is_ok(),
            netns: proxy.netns,
            proxy: proxy.id,
        }
    }
}

/// All that can be seen, by process id.
pub(super) fn all() -> Result<Vec<ProxyRow>> {
    let mut proxies = of_user()?;
    let pids = process::all().or_named(ErrorName::System, "cannot read /proc")?;
    for pid in pids.into_iter().filter(|pid| is_proxy(*pid)) {
        let id = pid.to_string();
        if proxies.iter().any(|proxy| proxy.id == id) {
            continue;
        }
        let answer = ask::by_process(pid);
        // Another user's that nobody lets us ask is none of ours.
        if answer.as_ref().err().is_none_or(fetch::is_silent) {
            proxies.push(Proxy::new(id, answer, None));
        }
    }
    proxies.sort_by_key(|proxy| proxy.id.parse().unwrap_or(u32::MAX));
    Ok(proxies.into_iter().map(ProxyRow::from).collect())
}

/// Whether it was started as one: `weir proxy ...` or `weir run ...`.
fn is_proxy(pid: u32) -> bool {
    let words = process::words(pid);
    let program = words.first().and_then(|word| word.rsplit('/').next());
    program == Some("weir") && words.get(1).is_some_and(|word| word == "proxy" || word == "run")
}
