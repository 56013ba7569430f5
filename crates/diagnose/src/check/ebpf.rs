//! eBPF programs that can lead connections away where no rule hears of it: at the sockets of who runs here, at the
//! devices, at the choice of a listener. What a program does cannot be read off it, only that it is in a place to.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use model::{ErrorName, Severity};
use netsys::ebpf::{self, Attached, Hook};
use netsys::process;
use rules::Intent;

use super::ground::Ground;
use super::report::plural;
use super::{Finding, Report};

/// Whose programs are called so; the kernel keeps 15 bytes of a name. Sources: `bpf/` of cilium/cilium, `felix/bpf-gpl`
/// of projectcalico/calico, `bpf/` of merbridge/merbridge and of kmesh-net/kmesh, `src/core/bpf` of systemd/systemd.
const OWNERS: [(&str, Owner); 9] = [
    ("cil_", Owner::Cilium),
    ("sock4_", Owner::Cilium),
    ("sock6_", Owner::Cilium),
    ("cali", Owner::Calico),
    ("mb_", Owner::Merbridge),
    ("cgroup_connect4", Owner::Kmesh),
    ("cgroup_connect6", Owner::Kmesh),
    ("kmesh", Owner::Kmesh),
    ("sd_", Owner::Systemd),
];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Owner {
    Cilium,
    Calico,
    Merbridge,
    Kmesh,
    Systemd,
}

/// What programs at a hook can do to captured traffic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Role {
    Connect,
    LookUp,
    OriginalDestination,
    SocketEvents,
    Listener,
    ComesIn,
    GoesOut,
    Sockets,
}

pub(super) fn look(ground: &Ground, report: &mut Report) {
    let places = [
        ("eBPF programs at cgroups", ebpf::at_cgroups(&cgroups(ground))),
        ("eBPF programs at devices", ebpf::at_devices()),
        ("eBPF programs at listeners", ebpf::at_namespace()),
    ];
    let mut found = vec![];
    let mut refused = vec![];
    for (subject, looked) in places {
        match looked {
            Ok(attached) => found.extend(attached),
            Err(error) => refused.push((subject, error)),
        }
    }
    report.findings.extend(judge(&ground.intent, &found));
    if refused.len() < 3 {
        let programs: BTreeSet<_> = found.iter().map(|attached| attached.id).collect();
        report.looked("eBPF", plural(programs.len(), "program"));
    }
    for (subject, error) in refused {
        report.skipped(subject, why_refused(&error));
    }
}

/// Those of whoever runs here; where nobody does that can be seen, of this process.
fn cgroups(ground: &Ground) -> BTreeSet<String> {
    let of = |pid: u32| process::cgroups(pid).path;
    let mut paths: BTreeSet<_> = ground
        .processes
        .found
        .iter()
        .filter_map(|found| of(found.pid))
        .collect();
    if paths.is_empty() {
        paths.extend(of(std::process::id()));
    }
    paths
}

fn why_refused(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "it takes CAP_NET_ADMIN over the machine, and a seccomp profile that lets bpf(2) pass: run as root, or on \
             the machine with --pid"
                .to_owned()
        }
        io::ErrorKind::Unsupported => "this kernel has no bpf(2)".to_owned(),
        _ => error.to_string(),
    }
}

/// A finding for each role and owner.
fn judge(intent: &Intent, attached: &[Attached]) -> Vec<Finding> {
    let mut by: BTreeMap<(Role, Option<Owner>), Vec<&Attached>> = BTreeMap::new();
    for attached in attached {
        if let Some(role) = role(intent, attached.hook) {
            by.entry((role, owner(attached))).or_default().push(attached);
        }
    }
    by.into_iter()
        .map(|((role, owner), attached)| finding(role, owner, &attached))
        .collect()
}

fn owner(attached: &Attached) -> Option<Owner> {
    let name = attached.name.as_deref()?;
    let known = OWNERS.iter().find(|(start, _)| name.starts_with(start));
    known.map(|(_, owner)| *owner)
}

/// None where nothing that is wanted depends on it.
fn role(intent: &Intent, hook: Hook) -> Option<Role> {
    let goes_out = !intent.outbound.is_none();
    let comes_in = !intent.inbound.ports.is_none();
    let by_tproxy = comes_in && intent.inbound.tproxy().is_some();
    let (role, matters) = match hook {
        Hook::Connect(_) => (Role::Connect, goes_out),
        Hook::Send(_) => (Role::LookUp, intent.captured_dns().is_some()),
        Hook::SocketName(_) => (Role::OriginalDestination, by_tproxy),
        Hook::SocketOption => (Role::OriginalDestination, goes_out || comes_in),
        Hook::SocketEvents => (Role::SocketEvents, goes_out || comes_in),
        Hook::Listener => (Role::Listener, goes_out || comes_in),
        Hook::DeviceIn | Hook::Xdp => (Role::ComesIn, comes_in),
        Hook::DeviceOut => (Role::GoesOut, goes_out),
        Hook::SocketIn | Hook::SocketOut => (Role::Sockets, goes_out || comes_in),
    };
    matters.then_some(role)
}

impl Role {
    fn subject(self) -> &'static str {
        match self {
            Self::Connect => "eBPF at connect",
            Self::LookUp => "eBPF at look-ups",
            Self::OriginalDestination => "eBPF at what sockets tell",
            Self::SocketEvents => "eBPF at TCP sockets",
            Self::Listener => "eBPF at listeners",
            Self::ComesIn => "eBPF before the rules",
            Self::GoesOut => "eBPF behind the rules",
            Self::Sockets => "eBPF at a cgroup's packets",
        }
    }

    /// What cannot lead anything past the rules is but good to know.
    fn severity(self) -> Severity {
        match self {
            Self::GoesOut | Self::Sockets => Severity::Note,
            _ => Severity::Warning,
        }
    }

    fn why(self) -> &'static str {
        match self {
            Self::Connect => {
                "it is asked at connect(), before any rule: where it gives the connection an endpoint's address, the \
                 proxy no longer learns which service was meant, and may be passed by"
            }
            Self::LookUp => {
                "it is asked when a datagram is sent, before any rule: a look-up that it sends to another server is \
                 captured only if that one's are"
            }
            Self::OriginalDestination => {
                "the proxy asks its socket where a captured connection was going, and this program can change the answer"
            }
            Self::SocketEvents => {
                "it can hand bytes from one local socket to another, past the network: no rule, counter or capture of \
                 packets then sees them"
            }
            Self::Listener => {
                "it chooses the listener of what comes in, and can give another socket what the rules lead to the proxy"
            }
            Self::ComesIn => {
                "it sees what comes in before any rule, and can drop it, change where it goes, or send it elsewhere"
            }
            Self::GoesOut => {
                "it sees what goes out after all rules, what the proxy sends as well, and can drop it or send it elsewhere"
            }
            Self::Sockets => {
                "it can drop what these processes send and receive, after all rules: a captured connection goes to \
                 127.0.0.1 or ::1, which it must let pass"
            }
        }
    }
}

fn finding(role: Role, owner: Option<Owner>, attached: &[&Attached]) -> Finding {
    let whose = owner.map_or_else(String::new, |owner| format!("{}'s ", owner.name()));
    let fix = match (owner, role) {
        (Some(owner), role) if owner.is_about(role) => owner.fix().to_owned(),
        (_, Role::ComesIn | Role::GoesOut) => by_hand_at_device(attached),
        _ => format!(
            "`bpftool prog show id {}` says who loaded it; have that leave these processes alone. Once Weir's rules \
             are in, `weir verify` sends connections and sees",
            attached.first().map_or(0, |first| first.id)
        ),
    };
    Finding {
        severity: role.severity(),
        name: ErrorName::Ebpf,
        subject: role.subject().to_owned(),
        found: format!("{whose}{} at {}", programs(attached), places(attached)),
        why: role.why().to_owned(),
        fix,
    }
}

/// `cil_sock4_conne (connect4, id 12)`, each once.
fn programs(attached: &[&Attached]) -> String {
    let one = |attached: &&Attached| {
        let Attached { hook, id, name, .. } = attached;
        match name.as_deref() {
            Some("") => format!("a program without a name ({hook}, id {id})"),
            Some(name) => format!("{name} ({hook}, id {id})"),
            None => format!("a program ({hook}, id {id}; its name takes CAP_SYS_ADMIN to read)"),
        }
    };
    let all: BTreeSet<_> = attached.iter().map(one).collect();
    some(&all.into_iter().collect::<Vec<_>>())
}

fn places(attached: &[&Attached]) -> String {
    let all: BTreeSet<_> = attached.iter().map(|attached| attached.place.clone()).collect();
    some(&all.into_iter().collect::<Vec<_>>())
}

/// The first few of them.
fn some(all: &[String]) -> String {
    const NAMED: usize = 4;
    let named = all[..all.len().min(NAMED)].join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// How to see and remove it.
fn by_hand_at_device(attached: &[&Attached]) -> String {
    let Some(Attached { hook, place, id, .. }) = attached.first() else {
        return String::new();
    };
    let way = if *hook == Hook::DeviceOut {
        "egress"
    } else {
        "ingress"
    };
    let see = match hook {
        Hook::Xdp => format!("ip link set dev {place} xdp off"),
        _ => format!("tc filter del dev {place} {way}"),
    };
    format!(
        "`bpftool prog show id {id}` says who loaded it; if nobody needs it here: {see}, or `bpftool net` for what is \
         attached by tcx"
    )
}

impl Owner {
    fn name(self) -> &'static str {
        match self {
            Self::Cilium => "Cilium",
            Self::Calico => "Calico",
            Self::Merbridge => "Merbridge",
            Self::Kmesh => "Kmesh",
            Self::Systemd => "systemd",
        }
    }

    /// Whether its own switch is about that.
    fn is_about(self, role: Role) -> bool {
        match self {
            Self::Cilium | Self::Calico => matches!(role, Role::Connect | Role::LookUp),
            Self::Systemd => role == Role::Sockets,
            Self::Merbridge | Self::Kmesh => true,
        }
    }

    fn fix(self) -> &'static str {
        match self {
            Self::Cilium => {
                "set socketLB.hostNamespaceOnly=true in Cilium: it then leaves alone what pods connect to, and the \
                 programs stay"
            }
            Self::Calico => {
                "set bpfConnectTimeLoadBalancing: Disabled and bpfHostNetworkedNATWithoutCTLB: Enabled in Calico's \
                 FelixConfiguration"
            }
            Self::Merbridge => {
                "two meshes would capture the same connections: take Merbridge off the machine"
            }
            Self::Kmesh => {
                "two meshes would capture the same connections: take the label istio.io/dataplane-mode off the pod \
                 and its namespace, or Kmesh off the machine"
            }
            Self::Systemd => {
                "the unit's IPAddressAllow= must have localhost (systemctl show -p IPAddressAllow -p IPAddressDeny UNIT)"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rules::{Family, Flags};

    use super::*;

    fn at(hook: Hook, name: Option<&str>, id: u32, place: &str) -> Attached {
        Attached {
            hook,
            place: place.to_owned(),
            id,
            name: name.map(str::to_owned),
        }
    }

    fn intent(arguments: fn(&mut Flags)) -> Intent {
        let mut flags = Flags {
            sidecar: true,
            ..Flags::default()
        };
        arguments(&mut flags);
        flags.intent().unwrap()
    }

    #[test]
    fn one_finding_for_each_owner_and_what_its_programs_can_do() {
        let attached = [
            at(Hook::Connect(Family::V4), Some("cil_sock4_conne"), 7, "cgroup /a"),
            at(Hook::Connect(Family::V6), Some("cil_sock6_conne"), 8, "cgroup /a"),
            at(Hook::Connect(Family::V4), Some("cil_sock4_conne"), 7, "cgroup /b"),
            at(Hook::Connect(Family::V4), None, 9, "cgroup /b"),
            at(Hook::Send(Family::V4), Some("cil_sock4_sendm"), 10, "cgroup /a"),
            at(Hook::SocketOut, Some("sd_fw_egress"), 11, "cgroup /a"),
        ];
        let found = judge(&intent(|_| ()), &attached);
        let said: Vec<_> = found
            .iter()
            .map(|finding| (finding.severity, finding.found.as_str()))
            .collect();
        assert_eq!(
            said,
            [
                (
                    Severity::Warning,
                    "a program (connect4, id 9; its name takes CAP_SYS_ADMIN to read) at cgroup /b"
                ),
                (
                    Severity::Warning,
                    "Cilium's cil_sock4_conne (connect4, id 7), cil_sock6_conne (connect6, id 8) at cgroup /a, cgroup /b"
                ),
                (
                    Severity::Note,
                    "systemd's sd_fw_egress (cgroup_skb egress, id 11) at cgroup /a"
                ),
            ]
        );
        assert!(found[1].fix.contains("hostNamespaceOnly"), "{}", found[1].fix);
    }

    #[test]
    fn only_what_is_wanted_can_be_led_away() {
        let attached = [
            at(Hook::Connect(Family::V4), Some("x"), 1, "cgroup /"),
            at(Hook::Send(Family::V4), Some("x"), 1, "cgroup /"),
            at(Hook::SocketName(Family::V4), Some("x"), 1, "cgroup /"),
            at(Hook::DeviceIn, Some("x"), 1, "eth0"),
        ];
        let subjects = |arguments| {
            let found = judge(&intent(arguments), &attached);
            found
                .into_iter()
                .map(|finding| finding.subject)
                .collect::<Vec<_>>()
        };
        assert_eq!(subjects(|_| ()), ["eBPF at connect", "eBPF before the rules"]);
        assert_eq!(
            subjects(|flags| {
                flags.redirect_dns = Some("true".to_owned());
                flags.capture_all_dns = Some("true".to_owned());
            }),
            ["eBPF at connect", "eBPF at look-ups", "eBPF before the rules"]
        );
        assert_eq!(
            subjects(|flags| flags.mode = Some("TPROXY".to_owned())),
            [
                "eBPF at connect",
                "eBPF at what sockets tell",
                "eBPF before the rules"
            ]
        );
    }

    #[test]
    fn of_many_the_first_are_named() {
        let names = ["a", "b", "c", "d", "e", "f"].map(str::to_owned);
        assert_eq!(some(&names), "a, b, c, d and 2 more");
        assert_eq!(some(&names[..1]), "a");
    }
}
