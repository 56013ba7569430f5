//! Who runs in the namespace as the user or group by which the proxy is recognised.

use model::{ErrorName, Severity};
use netsys::process::Ids;
use netsys::socket_table::{Listener, listeners, users};
use rules::Intent;
use rules::intent::Signs;
use rules::ruleset::IpProtocol;

use super::ground::Ground;
use super::processes::{Found, Processes};
use super::report::plural;
use super::{Finding, Report};

pub(super) fn look(ground: &Ground, report: &mut Report) {
    let Some(signs) = ground.signs() else {
        return;
    };
    let Processes {
        found,
        silent,
        are_all,
    } = &ground.processes;
    report.findings.extend(judge(&signs.uids, &signs.gids, found));
    report.looked("processes", format!("{} in this namespace", found.len()));
    // Whoever has other ids is no clash, wherever it is.
    let has_them = |ids: &&Ids| signs.uids.contains(&ids.uid) || signs.gids.contains(&ids.gid);
    let unsure = silent.iter().filter(has_them).count();
    if unsure > 0 {
        report.skipped(
            "processes of other users",
            format!("{unsure} with the proxy's ids do not say which namespace they are in: run as root"),
        );
    }
    if !are_all {
        look_at_sockets(ground, signs, report);
    }
}

/// Where processes of other containers share the network, their sockets alone can be seen, and not their groups.
fn look_at_sockets(ground: &Ground, signs: &Signs, report: &mut Report) {
    let ids = signs.uids.iter().map(|uid| format!("user {uid}"));
    let ids: Vec<_> = ids
        .chain(signs.gids.iter().map(|gid| format!("group {gid}")))
        .collect();
    report.skipped(
        "processes of other containers",
        format!(
            "from in here only this container's can be seen; whether another one that shares its network runs as {} \
             is told on the machine (weir check --pid PID), or by runAsUser and runAsGroup in the pod's manifest",
            ids.join(" or ")
        ),
    );
    let (Ok(users), Ok(listeners)) = (users(), listeners(IpProtocol::Tcp)) else {
        // Said where the ports are looked at.
        return;
    };
    let Intent {
        outbound, inbound, ..
    } = &ground.intent;
    let is_seen = |uid: u32| ground.processes.found.iter().any(|found| found.uid == uid);
    for (uid, sockets) in users
        .into_iter()
        .filter(|(uid, _)| signs.uids.contains(uid) && !is_seen(*uid))
    {
        // What listens there is taken for the proxy, and its sockets for the proxy's.
        let is_proxy = |listener: &Listener| {
            listener.uid == uid && [outbound.to_port, inbound.to_port].contains(&listener.address.port())
        };
        if !listeners.iter().any(is_proxy) {
            report.findings.push(unseen_clash(uid, sockets));
        }
    }
}

fn unseen_clash(uid: u32, sockets: usize) -> Finding {
    Finding {
        found: format!(
            "a process that cannot be seen from this container has {} as the proxy's user {uid}, and no proxy listens",
            plural(sockets, "socket")
        ),
        ..clash_of(format!("user {uid}"))
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
        found: format!("{} {runs} as the proxy's {id}", names.join(", ")),
        ..clash_of(id.to_owned())
    })
}

/// All but what was found.
fn clash_of(subject: String) -> Finding {
    Finding {
        severity: Severity::Error,
        name: ErrorName::ProxyId,
        subject,
        found: String::new(),
        why: "the rules take it for the proxy, so nothing that it sends is captured".to_owned(),
        fix: "run it as another user; or recognise the proxy otherwise: weir init -u, --proxy-mark, --proxy-cgroup"
            .to_owned(),
    }
}
