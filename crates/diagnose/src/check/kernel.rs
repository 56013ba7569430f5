//! What the kernel has set for the namespace and for the process: loopback, IPv6, tracked connections, descriptors,
//! user namespaces.

use model::{ErrorName, Severity};
use netsys::conntrack::{self, Usage};
use netsys::{limits, links, sock, sysctl};
use rules::Family;

use super::ground::Ground;
use super::{Finding, Question, Report};

/// Percent of the table of tracked connections.
const NEARLY_FULL: u64 = 80;
const FULL: u64 = 95;
/// A proxied connection takes two descriptors, and four more while its bytes are spliced.
const FEW_DESCRIPTORS: u64 = 4096;

pub(super) fn look(question: &Question, ground: &Ground, report: &mut Report) {
    look_at_loopback(ground, report);
    look_at_conntrack(report);
    look_at_descriptors(question, report);
    match &question.contained {
        Ok(()) => report.looked("namespaces for weir run", "one was made, and is gone"),
        Err(why) => report.findings.push(no_user_namespace(why)),
    }
}

fn look_at_loopback(ground: &Ground, report: &mut Report) {
    let v6 = Ipv6::read();
    match links::links() {
        Ok(links) if !links.iter().any(|link| link.is_loopback && link.is_up) => {
            report.findings.push(no_loopback());
        }
        Ok(_) => {
            let is_on = ground.families().contains(&Family::V6);
            let bound = sock::can_bind(std::net::Ipv6Addr::LOCALHOST.into());
            report.findings.extend(v6.judge(is_on, bound.is_ok()));
        }
        Err(error) => report.skipped("lo", format!("netlink was refused: {error}")),
    }
    report.looked("lo and IPv6", v6.says());
}

fn no_loopback() -> Finding {
    Finding {
        severity: Severity::Error,
        name: ErrorName::Loopback,
        subject: "lo".to_owned(),
        found: "the loopback device is down".to_owned(),
        why: "captured connections go to the proxy by 127.0.0.1 and ::1, and cannot get there".to_owned(),
        fix: "ip link set lo up".to_owned(),
    }
}

/// `disable_ipv6` of every device.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Ipv6 {
    all_off: bool,
    lo_off: bool,
    on: Vec<String>,
    off: Vec<String>,
}

impl Ipv6 {
    fn read() -> Self {
        let is_off =
            |device: &str| sysctl::number(&format!("net/ipv6/conf/{device}/disable_ipv6")) == Some(1);
        let devices = sysctl::devices("net/ipv6/conf")
            .into_iter()
            .filter(|device| device != "lo");
        let (off, on) = devices.partition(|device| is_off(device));
        Self {
            all_off: is_off("all"),
            lo_off: is_off("lo"),
            on,
            off,
        }
    }

    fn says(&self) -> String {
        let list = |devices: &[String]| match devices.is_empty() {
            true => "no device".to_owned(),
            false => devices.join(", "),
        };
        format!("IPv6 is on at {}, off at {}", list(&self.on), list(&self.off))
    }

    fn judge(&self, is_captured: bool, has_loopback: bool) -> Option<Finding> {
        let off_at_lo = is_captured && (self.lo_off || !has_loopback);
        if off_at_lo {
            let on = match self.on.first() {
                Some(device) => format!("on at {device}"),
                None => "on for devices to come".to_owned(),
            };
            return Some(Finding {
                severity: Severity::Error,
                name: ErrorName::PassthroughAddress,
                subject: "IPv6 at lo".to_owned(),
                found: format!("IPv6 is {on} and off at lo"),
                why: "captured IPv6 connections go to the proxy by ::1, and the proxy calls its application from ::6"
                    .to_owned(),
                fix: "net.ipv6.conf.lo.disable_ipv6=0; or switch IPv6 off everywhere (all and default)".to_owned(),
            });
        }
        (self.all_off && !self.on.is_empty()).then(|| Finding {
            severity: Severity::Warning,
            name: ErrorName::HalfFamily,
            subject: "net.ipv6.conf".to_owned(),
            found: format!("IPv6 is off for all, but on at {}", self.on.join(", ")),
            why: "somebody wanted it off: what has an IPv6 address now may hang until it falls back to IPv4"
                .to_owned(),
            fix: "switch it on or off everywhere: net.ipv6.conf.all.disable_ipv6, then each device"
                .to_owned(),
        })
    }
}

fn look_at_conntrack(report: &mut Report) {
    match conntrack::usage() {
        Some(usage) => {
            report.findings.extend(full(usage));
            report.looked(
                "tracked connections",
                format!("{} of {}", usage.entries, usage.limit),
            );
        }
        None => report.looked("tracked connections", "the kernel tracks none"),
    }
}

fn full(Usage { entries, limit }: Usage) -> Option<Finding> {
    let percent = entries.saturating_mul(100).checked_div(limit)?;
    (percent >= NEARLY_FULL).then(|| Finding {
        severity: if percent >= FULL { Severity::Error } else { Severity::Warning },
        name: ErrorName::ConntrackFull,
        subject: "net.netfilter.nf_conntrack_max".to_owned(),
        found: format!("{entries} of {limit} tracked connections, {percent} percent"),
        why: "each captured connection takes a place; when there is none the kernel drops the packet in silence".to_owned(),
        fix: "raise net.netfilter.nf_conntrack_max on the machine; /proc/net/nf_conntrack shows what fills it".to_owned(),
    })
}

fn look_at_descriptors(question: &Question, report: &mut Report) {
    match limits::descriptors_at_most(question.process) {
        Ok(most) => {
            if most < FEW_DESCRIPTORS {
                report.findings.push(few_descriptors(most, question.process));
            }
            report.looked("descriptors", format!("at most {most}"));
        }
        Err(error) => report.skipped("descriptors", format!("its limits cannot be read: {error}")),
    }
}

fn few_descriptors(most: u64, process: Option<u32>) -> Finding {
    let whose = process.map_or_else(
        || "a process started from here".to_owned(),
        |pid| format!("process {pid}"),
    );
    Finding {
        severity: Severity::Warning,
        name: ErrorName::Descriptors,
        subject: "limit of descriptors".to_owned(),
        found: format!("{whose} can have {most}"),
        why: format!(
            "that is no more than {} connections at once through a proxy with this limit",
            most / 2
        ),
        fix: "raise the hard limit: LimitNOFILE of the unit, --ulimit nofile of the container, ulimit -Hn"
            .to_owned(),
    }
}

fn no_user_namespace(why: &str) -> Finding {
    Finding {
        severity: Severity::Note,
        name: ErrorName::UserNamespace,
        subject: "namespaces for weir run".to_owned(),
        found: why.lines().next().unwrap_or_default().to_owned(),
        why: "weir run and weir demo do not work here for this user; sidecars do".to_owned(),
        fix: ErrorName::UserNamespace.explained().fix.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_by_halves() {
        let devices = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let whole = Ipv6 {
            on: devices(&["eth0"]),
            ..Ipv6::default()
        };
        let name = |ipv6: &Ipv6, captured, lo| ipv6.judge(captured, lo).map(|finding| finding.name);
        assert_eq!(name(&whole, true, true), None);
        assert_eq!(name(&whole, true, false), Some(ErrorName::PassthroughAddress));
        let off_at_lo = Ipv6 {
            lo_off: true,
            ..whole.clone()
        };
        assert_eq!(name(&off_at_lo, true, true), Some(ErrorName::PassthroughAddress));
        assert_eq!(name(&off_at_lo, false, false), None);
        let all_off = Ipv6 {
            all_off: true,
            ..whole
        };
        assert_eq!(name(&all_off, true, true), Some(ErrorName::HalfFamily));
        let off = Ipv6 {
            all_off: true,
            lo_off: true,
            off: devices(&["eth0"]),
            on: vec![],
        };
        assert_eq!(name(&off, false, false), None);
    }

    #[test]
    fn the_table_fills() {
        let severity = |entries, limit| full(Usage { entries, limit }).map(|finding| finding.severity);
        assert_eq!(severity(79, 100), None);
        assert_eq!(severity(80, 100), Some(Severity::Warning));
        assert_eq!(severity(95, 100), Some(Severity::Error));
        assert_eq!(severity(u64::MAX, 0), None);
    }
}
