//! `weir verify` against the real kernel: right set-ups are proven each time, wrong ones are caught, and nothing stays.

mod cgroups;
mod devices;
mod elsewhere;
mod foreign;
mod nothing_stays;
mod proxies;
mod right;
mod rules_missing;

use std::thread;

use anyhow::{Context, Result, anyhow};
use e2e::{Finished, Net, Pod, RunAs, weir};
use serde_json::Value;

/// A pod of a network of its own, as others have.
pub(crate) struct World {
    pub(crate) pod: Pod,
    // Dropped last: the pod is plugged into it.
    _net: Net,
}

impl World {
    pub(crate) fn create() -> Result<Self> {
        let net = Net::create()?;
        let pod = net.pod("verified")?;
        Ok(Self { pod, _net: net })
    }
}

/// What `f` makes of each, on threads of their own: much of the time goes into waiting for what does not come.
pub(crate) fn side_by_side<T: Send, R: Send>(
    all: impl IntoIterator<Item = T>,
    f: impl Fn(T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    thread::scope(|scope| {
        let start = |one| {
            let f = &f;
            scope.spawn(move || f(one))
        };
        let under_way: Vec<_> = all.into_iter().map(start).collect();
        let ended = under_way.into_iter().map(thread::ScopedJoinHandle::join);
        ended
            .map(|end| end.map_err(|_| anyhow!("it panicked"))?)
            .collect()
    })
}

/// Every back-end, by its name.
pub(crate) const BACKENDS: [&str; 3] = ["nft", "iptables-nft", "iptables-legacy"];

pub(crate) fn init(pod: &Pod, flags: &str) -> Result<Finished> {
    let words: Vec<_> = std::iter::once("init").chain(flags.split(' ')).collect();
    weir::run(pod, &words)
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) code: i32,
    pub(crate) said: String,
    pub(crate) report: Option<Value>,
}

impl Verified {
    /// All that was tried.
    pub(crate) fn findings(&self) -> Result<Vec<Value>> {
        let report = self.report.as_ref().with_context(|| self.said.clone())?;
        Ok(report["findings"].as_array().context("findings")?.clone())
    }

    /// The reasons of all that is not proven.
    pub(crate) fn why(&self) -> String {
        let findings = self
            .report
            .iter()
            .flat_map(|report| report["findings"].as_array().cloned().unwrap_or_default());
        let wrong = findings.filter(|finding| finding["verdict"] != "proven");
        let line = |finding: Value| {
            let text = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
            let [verdict, probe, family, sent, arrived, why] =
                ["verdict", "probe", "family", "sent", "arrived", "why"].map(text);
            format!("{verdict}: {probe}, {family}, {sent}: {arrived}; {why}\n")
        };
        wrong.map(line).collect::<String>() + &self.said
    }
}

/// `weir verify -o json`, by root, with more words.
pub(crate) fn verify(pod: &Pod, words: &str) -> Result<Verified> {
    verify_as(pod, words, &[])
}

/// The same by a program that takes rights away first.
pub(crate) fn verify_as(pod: &Pod, words: &str, by: &[&str]) -> Result<Verified> {
    let binary = weir::binary()?.to_string_lossy().into_owned();
    let mut all: Vec<&str> = by.to_vec();
    all.extend([binary.as_str(), "verify", "-o", "json"]);
    all.extend(words.split(' ').filter(|word| !word.is_empty()));
    let (program, arguments) = all.split_first().context("a program")?;
    let finished = pod.try_run(RunAs::Root, program, arguments)?;
    Ok(Verified {
        code: finished.status.code().context("an exit code")?,
        said: finished.errors(),
        report: serde_json::from_slice(&finished.stdout).ok(),
    })
}
