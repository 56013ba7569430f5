//! What `weir init` says when it has done its work.

use std::fmt::{Display, Write};

use netsys::rules::{Backend, Choice, Done};
use rules::intent::{Devices, Dns, Outbound, Proxy, Selection, Signs, WithoutProxy};
use rules::{Intent, Plan};

/// Said where no flag asks for anything, and an earlier run has made rules.
pub(super) const NOTHING_ASKED_FOR: &str = "\
No flag asks for anything, so nothing was changed: the rules that an earlier run has made go on capturing.
To take them out: weir init --cleanup
";

/// Said where no flag asks for anything.
pub(super) const NOTHING_CAPTURED: &str = "\
Nothing is captured, because no flag asks for it, and nothing was changed.
To capture everything as a sidecar does, use the preset: weir init --sidecar
(that is -i '*' -b '*' -d 15020,15021,15090). To take out rules: weir init --cleanup
";

/// What is captured, for whom, and by which back-end.
pub(super) fn installed(intent: &Intent, plan: &Plan, choices: &[Choice], done: &Done) -> String {
    let mut text = String::from(match done.changed {
        true => "Captured:\n",
        false => "Nothing to do: this is captured already.\n",
    });
    let mut line = |label: &str, what: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {label:<9} {what}");
    };
    line("outbound", outbound(intent));
    if let Some(groups) = groups(&intent.outbound) {
        line("groups", groups);
    }
    line("inbound", inbound(intent, plan));
    if let Some(captured) = intent.captured_dns()
        && !intent.outbound.groups.is_none()
    {
        line("DNS", dns(captured));
    }
    if let Some(devices) = devices(&intent.devices) {
        line("devices", devices);
    }
    if intent.drop_invalid {
        line("dropped", "what comes in and belongs to no connection".to_owned());
    }
    if let Proxy::Inside(signs) = &intent.proxy {
        line("proxy", proxy(signs));
    }
    for choice in choices {
        let rendered = match choice.backend {
            Backend::Nft => rules::nft::render(plan),
            _ => rules::render(plan),
        };
        let rules = rendered
            .iter()
            .filter(|ruleset| ruleset.family == choice.family)
            .map(|ruleset| ruleset.purposes().count())
            .sum::<usize>();
        line(
            &choice.family.to_string(),
            format!("{rules} rules by {} ({})", choice.backend, choice.why),
        );
    }
    text
}

/// What is captured of connections that are made in the namespace.
pub(super) fn outbound(intent: &Intent) -> String {
    let outbound = &intent.outbound;
    let mut parts = vec![];
    match &outbound.cidrs {
        _ if let Some(services) = &outbound.services => {
            parts.push(format!("TCP to {} services' addresses and ports", services.len()));
        }
        Selection::All => parts.push("all TCP".to_owned()),
        Selection::Only(nets) => {
            if !nets.is_empty() {
                parts.push(format!("TCP to {}", list(nets)));
            }
            if !outbound.ports.is_empty() {
                parts.push(format!("TCP to ports {}", list(&outbound.ports)));
            }
        }
    }
    if outbound.groups.is_none() && intent.devices.virtual_machines.is_empty() {
        parts.clear();
    }
    let excluded = [
        (!outbound.exclude_cidrs.is_empty()).then(|| list(&outbound.exclude_cidrs)),
        (!outbound.exclude_ports.is_empty()).then(|| format!("ports {}", list(&outbound.exclude_ports))),
    ];
    described(
        &parts,
        &excluded.into_iter().flatten().collect::<Vec<_>>(),
        outbound.to_port,
    )
}

/// Whose connections, where not everybody's.
fn groups(outbound: &Outbound) -> Option<String> {
    match &outbound.groups {
        Selection::Only(groups) if groups.is_empty() => {
            Some("none, as ISTIO_OUTBOUND_OWNER_GROUPS is empty".to_owned())
        }
        Selection::Only(groups) => Some(format!("{} only", list(groups))),
        Selection::All if outbound.exclude_groups.is_empty() => None,
        Selection::All => Some(format!("all, except {}", list(&outbound.exclude_groups))),
    }
}

fn devices(devices: &Devices) -> Option<String> {
    let Devices {
        excluded,
        virtual_machines,
    } = devices;
    let mut parts = vec![];
    if !excluded.is_empty() {
        parts.push(format!("{} left alone", list(excluded)));
    }
    if !virtual_machines.is_empty() {
        parts.push(format!(
            "{} of virtual machines, captured as outbound",
            list(virtual_machines)
        ));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn dns(dns: &Dns) -> String {
    let servers = match &dns.servers {
        Selection::All => format!("any server outside {}", Dns::OF_ONE_LINK),
        Selection::Only(servers) => {
            let can_be = servers
                .iter()
                .filter(|server| !Dns::OF_ONE_LINK.contains(*server));
            list(&can_be.collect::<Vec<_>>())
        }
    };
    let without_proxy = match dns.without_proxy {
        WithoutProxy::Direct => "while a DNS proxy answers there, else direct",
        WithoutProxy::Fail => "always: look-ups fail while no DNS proxy answers there",
    };
    format!(
        "UDP and TCP to port {} of {servers} -> port {}, {without_proxy}",
        Dns::PORT,
        dns.to_port
    )
}

fn inbound(intent: &Intent, plan: &Plan) -> String {
    let inbound = &intent.inbound;
    let mut excluded = vec![];
    let parts = match &inbound.ports {
        Selection::All => {
            let mut ports = vec![inbound.tunnel_port];
            ports.extend(&inbound.exclude_ports);
            excluded.push(format!("ports {}", list(&ports)));
            vec!["all TCP".to_owned()]
        }
        Selection::Only(ports) if ports.is_empty() => vec![],
        Selection::Only(ports) => vec![format!("TCP to ports {}", list(ports))],
    };
    if !inbound.exclude_sources.is_empty() {
        excluded.push(format!("what comes from {}", list(&inbound.exclude_sources)));
    }
    let described = described(&parts, &excluded, inbound.to_port);
    match (inbound.tproxy(), &plan.tproxy) {
        (Some(tproxy), Some(kind)) if !parts.is_empty() => format!(
            "{described} by TPROXY (mark {}, routing table {}), {} conntrack ({})",
            tproxy.mark.value,
            tproxy.table,
            if kind.is_tracked { "followed by" } else { "without" },
            kind.why
        ),
        _ => described,
    }
}

fn described(parts: &[String], excluded: &[String], to_port: u16) -> String {
    if parts.is_empty() {
        return "nothing".to_owned();
    }
    let mut text = parts.join(" and ");
    if !excluded.is_empty() {
        text = format!("{text}, except {}", excluded.join(" and "));
    }
    format!("{text} -> port {to_port}")
}

fn proxy(signs: &Signs) -> String {
    let mut parts = vec![];
    if !signs.uids.is_empty() {
        parts.push(format!("user {}", list(&signs.uids)));
    }
    if !signs.gids.is_empty() {
        parts.push(format!("group {}", list(&signs.gids)));
    }
    if !signs.marks.is_empty() {
        parts.push(format!("mark {}", list(&signs.marks)));
    }
    if !signs.class_ids.is_empty() {
        parts.push(format!("class id {}", list(&signs.class_ids)));
    }
    if !signs.cgroups.is_empty() {
        let paths: Vec<_> = signs.cgroups.iter().map(|cgroup| &cgroup.path).collect();
        parts.push(format!("cgroup {}", list(&paths)));
    }
    format!("{} (left alone)", parts.join(" or "))
}

fn list<T: Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use rules::{Facts, Family, Flags};

    use super::*;

    fn summary(flags: &Flags) -> String {
        let intent = flags.intent().unwrap();
        let mut facts = Facts::fresh(&[Family::V4]);
        if let Proxy::Inside(signs) = &intent.proxy {
            let paths = signs.cgroups.iter().map(|cgroup| cgroup.path.clone());
            facts.cgroups.ids = paths.map(|path| (path, Ok(7))).collect();
        }
        let plan = rules::plan(&intent, &facts).unwrap();
        let choice = Choice {
            family: Family::V4,
            backend: Backend::Nft,
            why: "asked for".to_owned(),
        };
        let text = installed(&intent, &plan, &[choice], &Done { changed: true });
        // How many rules it takes is not what is looked at here.
        let lines = text.lines().filter(|line| !line.contains(" rules by "));
        lines.map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn all_that_was_asked_for_is_said() {
        let text = |text: &str| Some(text.to_owned());
        let usual = Flags {
            sidecar: true,
            ..Flags::default()
        };
        assert_eq!(
            summary(&usual),
            "\
Captured:
  outbound  all TCP -> port 15001
  inbound   all TCP, except ports 15008,15020,15021,15090 -> port 15006
  proxy     user 1337 or group 1337 (left alone)
"
        );
        let everything = Flags {
            outbound_exclude_cidrs: text("10.0.0.0/8"),
            outbound_exclude_ports: text("22"),
            owner_groups_exclude: text("55,56"),
            inbound_exclude_ports: text("80"),
            exclude_sources: text("169.254.7.127"),
            exclude_interfaces: text("eth1"),
            kube_virt_interfaces: text("tap+"),
            drop_invalid: text("true"),
            proxy_mark: text("0x539/0xfff"),
            proxy_class_id: text("10:1"),
            proxy_cgroup: text("system.slice/weir.service"),
            ..usual.clone()
        };
        let all = summary(&everything);
        assert_eq!(
            all,
            "\
Captured:
  outbound  all TCP, except 10.0.0.0/8 and ports 22 -> port 15001
  groups    all, except 55,56
  inbound   all TCP, except ports 15008,80 and what comes from 169.254.7.127/32 -> port 15006
  devices   eth1 left alone; tap+ of virtual machines, captured as outbound
  dropped   what comes in and belongs to no connection
  proxy     mark 0x539/0xfff or class id 0x100001 or cgroup system.slice/weir.service (left alone)
"
        );
        let of_groups = |groups| {
            summary(&Flags {
                owner_groups: text(groups),
                ..usual.clone()
            })
        };
        assert!(of_groups("100,101").contains("\n  groups    100,101 only\n"));
        assert!(of_groups("").contains("\n  outbound  nothing\n  groups    none, as "));
    }
}
