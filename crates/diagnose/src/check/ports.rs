//! The proxy's ports: whether others have them, and whether connections going out could come to have them.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use model::{ErrorName, Severity, ports};
use netsys::socket_table::{Listener, listeners};
use netsys::{process, sysctl};
use rules::Intent;
use rules::ruleset::IpProtocol;

use super::ground::Ground;
use super::processes::Found;
use super::{Finding, Report};

/// Fewer ports for outgoing connections than this run out soon; the kernel's own range has 28,232.
const FEW: usize = 10_000;

pub(super) fn look(ground: &Ground, report: &mut Report) {
    let wanted = wanted(&ground.intent);
    match listeners(IpProtocol::Tcp) {
        Ok(listeners) => {
            let owners = owners(&ground.processes.found);
            let uids = ground.signs().map_or_else(Vec::new, |signs| signs.uids.clone());
            let is_proxy = |listener: &Listener| match owners.get(&listener.inode) {
                Some(owner) => owner.is_proxy,
                // In another container: what belongs to the proxy's user and has its port is the proxy.
                None => !ground.processes.are_all && uids.contains(&listener.uid),
            };
            let others: Vec<_> = listeners.iter().filter(|listener| !is_proxy(listener)).collect();
            report.findings.extend(taken(&wanted, &others, &owners));
            report.looked(
                "listeners",
                format!("{} of TCP in this namespace", listeners.len()),
            );
        }
        Err(error) => report.skipped("listeners", format!("the kernel does not list them: {error}")),
    }
    let numbers: Vec<u16> = wanted.iter().map(|(port, _)| *port).collect();
    match sysctl::read("net/ipv4/ip_local_port_range")
        .as_deref()
        .and_then(range)
    {
        Some(local) => {
            let reserved = sysctl::read("net/ipv4/ip_local_reserved_ports").unwrap_or_default();
            report.findings.extend(local_range(&local, &reserved, &numbers));
            report.looked(
                "ports of outgoing connections",
                format!("{} to {}", local.start(), local.end()),
            );
        }
        None => report.skipped(
            "ports of outgoing connections",
            "net.ipv4.ip_local_port_range cannot be read",
        ),
    }
    if let Some(first) = sysctl::number("net/ipv4/ip_unprivileged_port_start") {
        report.findings.extend(privileged(first, &numbers));
    }
}

/// The proxy's ports, and what each is.
fn wanted(intent: &Intent) -> Vec<(u16, &'static str)> {
    vec![
        (ports::ADMIN, "admin"),
        (intent.outbound.to_port, "outbound connections"),
        (intent.inbound.to_port, "inbound connections"),
        (ports::METRICS, "metrics"),
        (ports::HEALTH, "health"),
        (ports::DNS, "DNS"),
    ]
}

/// Which process has a socket.
fn owners(processes: &[Found]) -> HashMap<u64, &Found> {
    let sockets = processes.iter().flat_map(|found| {
        process::sockets(found.pid)
            .into_iter()
            .map(move |inode| (inode, found))
    });
    sockets.collect()
}

/// Those of the ports that others than the proxy listen on.
fn taken(wanted: &[(u16, &str)], others: &[&Listener], owners: &HashMap<u64, &Found>) -> Vec<Finding> {
    let of_port = |(port, what): &(u16, &str)| {
        let (port, what) = (*port, *what);
        let first = others.iter().find(|listener| listener.address.port() == port)?;
        let who = match owners.get(&first.inode) {
            Some(owner) => format!("{} (pid {})", owner.name, owner.pid),
            None => format!("a process of user {}", first.uid),
        };
        Some(Finding {
            severity: Severity::Error,
            name: ErrorName::PortInUse,
            subject: format!("port {port}"),
            found: format!("{who} listens on {}", first.address),
            why: format!("the proxy cannot listen there ({what}), and what is captured ends at a stranger"),
            fix: "end it, or move it to another port".to_owned(),
        })
    };
    wanted.iter().filter_map(of_port).collect()
}

/// Two numbers with a tab between them.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut words = text.split_whitespace().map(str::parse);
    Some(words.next()?.ok()?..=words.next()?.ok()?)
}

/// `8080,15000-15021`.
fn is_reserved(reserved: &str, port: u16) -> bool {
    reserved.split(',').any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let bounds = first.trim().parse().ok().zip(last.trim().parse().ok());
        bounds.is_some_and(|(first, last): (u16, u16)| (first..=last).contains(&port))
    })
}

fn local_range(local: &RangeInclusive<u16>, reserved: &str, wanted: &[u16]) -> Vec<Finding> {
    let mut found = vec![];
    let mut note = |text: String, why: &str, fix: &str| {
        found.push(Finding {
            severity: Severity::Warning,
            name: ErrorName::PortRange,
            subject: "net.ipv4.ip_local_port_range".to_owned(),
            found: text,
            why: why.to_owned(),
            fix: fix.to_owned(),
        });
    };
    let in_danger: Vec<_> = wanted
        .iter()
        .filter(|port| local.contains(port) && !is_reserved(reserved, **port))
        .map(u16::to_string)
        .collect();
    if !in_danger.is_empty() {
        note(
            format!(
                "{} to {} covers {}",
                local.start(),
                local.end(),
                in_danger.join(", ")
            ),
            "an outgoing connection can get such a port, and the proxy then cannot start",
            "net.ipv4.ip_local_reserved_ports=15000-15090, or let the range begin above",
        );
    }
    if local.clone().count() < FEW {
        note(
            format!(
                "{} to {} has {} ports",
                local.start(),
                local.end(),
                local.clone().count()
            ),
            "each proxied connection takes a port twice; to one destination there can be no more at once, those that \
             were just closed included",
            "net.ipv4.ip_local_port_range=\"32768 60999\"",
        );
    }
    found
}

fn privileged(first: u64, wanted: &[u16]) -> Option<Finding> {
    let lowest = wanted.iter().min()?;
    (first > u64::from(*lowest)).then(|| Finding {
        severity: Severity::Error,
        name: ErrorName::LowPorts,
        subject: "net.ipv4.ip_unprivileged_port_start".to_owned(),
        found: format!("ports below {first} take CAP_NET_BIND_SERVICE here"),
        why: format!("a proxy without privilege may not listen on {lowest}"),
        fix: "set it to 1024, or give the proxy the capability".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_reserved_ports_as_the_kernel_prints_them() {
        assert_eq!(range("32768\t60999"), Some(32768..=60999));
        for text in ["", "1", "1 x", "70000 80000", "- -"] {
            assert_eq!(range(text), None, "{text:?}");
        }
        for (reserved, port, expected) in [
            ("", 15001, false),
            ("15001", 15001, true),
            ("8080,15000-15021", 15006, true),
            ("8080,15000-15005", 15006, false),
            ("x-y,15006-", 15006, false),
        ] {
            assert_eq!(is_reserved(reserved, port), expected, "{reserved:?}");
        }
        let names = |local, reserved| local_range(&local, reserved, &[15001, 15006]).len();
        assert_eq!(names(32768..=60999, ""), 0);
        assert_eq!(names(1024..=60999, ""), 1);
        assert_eq!(names(1024..=60999, "15000-15090"), 0);
        assert_eq!(names(40000..=40999, ""), 1);
        assert_eq!(names(15000..=15999, "15001"), 2);
    }
}
