//! Which proxy `weir pc` asks: the one that is named, or that of this network namespace, or the only one that
//! this user runs. Where it is not the one of this namespace, standard error says whose it is.

use std::path::PathBuf;

use anyhow::Result;
use model::ErrorName;
use netsys::process;

use super::ask::{Found, by_name, by_process, say, well_known, whose};
use super::fetch::{self, Admin};
use super::proxies::{self, Proxy};
use crate::cmd::place::Place;
use crate::errors::{OrNamed, named};
use crate::socket;

pub(crate) use super::ask::PATH;

/// The dump of the proxy that is named, or of the only one there is.
pub(crate) fn dump(named: Option<&str>) -> Result<String> {
    match named {
        Some(named) => by_name(named).map(|found| found.dump),
        None => unnamed().map(|found| found.dump),
    }
}

/// The dump of the proxy that takes this namespace's connections; none where none answers as one.
pub(crate) fn dump_here() -> Result<Option<String>> {
    let (found, _) = here()?;
    Ok(found.map(|found| found.dump))
}

/// The proxy that is named, or that of a place.
pub(super) fn find(named: Option<&str>, place: &Place) -> Result<Found> {
    match (named, place.process()) {
        (Some(named), _) => by_name(named),
        (None, Some(pid)) => by_process(pid),
        (None, None) if place.is_here() => unnamed(),
        (None, None) => Found::new(well_known(), place.open()?)
            .or_named(ErrorName::NoProxy, "no proxy answers in that network namespace"),
    }
}

/// The first of these that there is: the one here, the only one of this user elsewhere.
fn unnamed() -> Result<Found> {
    let mut elsewhere = match here()? {
        (Some(found), _) => return Ok(found),
        (None, elsewhere) => elsewhere,
    };
    match elsewhere.len() {
        0 => Err(none()),
        1 => {
            let proxy = elsewhere.remove(0);
            let netns = proxy.netns.clone();
            let found = proxy.answered()?;
            say(&format!(
                "no proxy in this network namespace; this is {}, in {netns}",
                whose(&found)
            ));
            Ok(found)
        }
        _ => Err(several(&elsewhere, "run in other network namespaces")),
    }
}

/// The first of these that there is: the `weir run` that this is in, the proxy of this network namespace, the only
/// one of this user in it. Where there is none, those of this user elsewhere come beside.
fn here() -> Result<(Option<Found>, Vec<Proxy>)> {
    if let Some(file) = around() {
        return Found::new(Admin::Socket(file), None).map(|found| (Some(found), vec![]));
    }
    let own = Found::new(well_known(), None);
    let own = match own {
        // A proxy that hangs is still the one of this namespace, and no other speaks for it.
        Err(error) if fetch::is_silent(&error) => return Err(error),
        // Other programs have admin ports with that number, too.
        Ok(found) if found.read().is_some() => Some(found),
        _ => None,
    };
    let (mut here, elsewhere): (Vec<Proxy>, Vec<Proxy>) =
        proxies::of_user()?.into_iter().partition(Proxy::is_here);
    if let Some(found) = own {
        let pid = found.read().and_then(|dump| dump.process).map(|it| it.pid);
        here.retain(|proxy| Some(&proxy.id) != pid.map(|pid| pid.to_string()).as_ref());
        if !here.is_empty() {
            say(&format!(
                "this is {}; `weir pc proxies` lists the others here",
                whose(&found)
            ));
        }
        return Ok((Some(found), elsewhere));
    }
    match here.len() {
        0 => Ok((None, elsewhere)),
        1 => Ok((Some(here.remove(0).answered()?), elsewhere)),
        _ => Err(several(&here, "run here")),
    }
}

fn none() -> anyhow::Error {
    let directory = socket::directory();
    let shown = directory.map_or_else(|error| format!("{error:#}"), |path| path.display().to_string());
    let text = format!(
        "no running proxy found: none answers in {shown} nor at {}; start one (`weir run`, `weir proxy`), \
         name one with --proxy or --pid, or read a saved dump with --file",
        well_known()
    );
    named(ErrorName::NoProxy, text)
}

fn several(all: &[Proxy], place: &str) -> anyhow::Error {
    let lines = all
        .iter()
        .map(|proxy| format!("\n  --proxy {:<8} {}", proxy.id, proxy.pod()));
    let text = format!(
        "{} proxies {place}; say which:{}",
        all.len(),
        lines.collect::<String>()
    );
    named(ErrorName::NoProxy, text)
}

/// The socket file of the `weir run` whose command this belongs to.
fn around() -> Option<PathBuf> {
    let directory = socket::directory().ok()?;
    let here = process::netns_of(std::process::id())?;
    let mut inner = std::process::id();
    // No deeper than shells nest.
    for _ in 0..64 {
        let outer = process::parent(inner)?;
        let file = directory.join(format!("{outer}.sock"));
        if file.exists() && process::netns_of(outer) != Some(here) && process::netns_of(inner) == Some(here) {
            return Some(file);
        }
        inner = outer;
    }
    None
}
