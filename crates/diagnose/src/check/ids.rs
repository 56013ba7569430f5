//! Who runs in the namespace as the user or group by which the proxy is recognised.

use std::io;

use model::{ErrorName, Severity};
use netsys::netns::Netns;
use netsys::process::{self, Ids};

use super::ground::Ground;
use super::{Finding, Report};

/// A process of the namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) pid: u32,
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Whether it is a proxy of Weir's.
    pub(super) is_proxy: bool,
}

/// Those of the calling thread's namespace, this one apart; and the ids of those that do not say where they are.
pub(super) fn processes() -> io::Result<(Vec<Found>, Vec<Ids>)> {
    let (_, here) = Netns::current()?.id()?;
    let me = std::process::id();
    let (mut found, mut silent) = (vec![], vec![]);
    for pid in process::all()?.into_iter().filter(|pid| *pid != me) {
        if process::netns_of(pid) != Some(here) {
            if process::is_hidden(pid) {
                silent.extend(process::ids(pid));
            }
            continue;
        }
        let words = process::words(pid);
        // Those of the kernel have no words, and one that has ended has no ids.
        if let Ok(ids) = process::ids(pid)
            && !words.is_empty()
        {
            found.push(Found {
                pid,
                name: process::name(pid).unwrap_or_default(),
                uid: ids.uid,
                gid: ids.gid,
                is_proxy: is_proxy(&words),
            });
        }
    }
    Ok((found, silent))
}

fn is_proxy(words: &[String]) -> bool {
    let program = words.first().and_then(|word| word.rsplit('/').next());
    let command = words.get(1).map(String::as_str);
    // A program that was started by a descriptor has the descriptor's name.
    let is_weir =
        program.is_some_and(|program| program == "weir" || program.bytes().all(|b| b.is_ascii_digit()));
    is_weir && command == Some("proxy")
}

pub(super) fn look(ground: &Ground, report: &mut Report) {
    let Some(signs) = ground.signs() else {
        return;
    };
    match processes() {
        Ok((found, silent)) => {
            report.findings.extend(judge(&signs.uids, &signs.gids, &found));
            report.looked("processes", format!("{} in this namespace", found.len()));
            // Whoever has other ids is no clash, wherever it is.
            let has_them = |ids: &&Ids| signs.uids.contains(&ids.uid) || signs.gids.contains(&ids.gid);
            let unsure = silent.iter().filter(has_them).count();
            if unsure > 0 {
                report.skipped(
                    "processes of other users",
                    format!(
                        "{unsure} with the proxy's ids do not say which namespace they are in: run as root"
                    ),
                );
            }
        }
        Err(error) => report.skipped("processes", format!("/proc cannot be read: {error}")),
    }
}

/// One finding for each id that others than the proxy have.
fn judge(uids: &[u32], gids: &[u32], found: &[Found]) -> Vec<Finding> {
    let others = || found.iter().filter(|process| !process.is_proxy);
    let by_uid = uids.iter().map(|uid| {
        let those: Vec<_> = others().filter(|process| process.uid == *uid).collect();
        (format!("user {uid}"), those)
    });
    let by_gid = gids.iter().map(|gid| {
        // Who has both is said once.
        let those: Vec<_> = others()
            .filter(|process| process.gid == *gid && !uids.contains(&process.uid))
            .collect();
        (format!("group {gid}"), those)
    });
    by_uid
        .chain(by_gid)
        .filter_map(|(id, those)| clash(&id, &those))
        .collect()
}

fn clash(id: &str, those: &[&Found]) -> Option<Finding> {
    const NAMED: usize = 3;
    let mut names: Vec<_> = those
        .iter()
        .take(NAMED)
        .map(|process| format!("{} (pid {})", process.name, process.pid))
        .collect();
    names.first()?;
    if those.len() > NAMED {
        names.push(format!("{} more", those.len() - NAMED));
    }
    let runs = if those.len() == 1 { "runs" } else { "run" };
    Some(Finding {
        severity: Severity::Error,
        name: ErrorName::ProxyId,
        subject: id.to_owned(),
        found: format!("{} {runs} as the proxy's {id}", names.join(", ")),
        why: "the rules take it for the proxy, so nothing that it sends is captured".to_owned(),
        fix: "run it as another user; or recognise the proxy otherwise: weir init -u, --proxy-mark, --proxy-cgroup"
            .to_owned(),
    })
}
