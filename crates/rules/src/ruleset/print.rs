//! A rule set as text: what `iptables-save` prints and `iptables-restore` reads. Tests that only nftables
//! has are written in the same manner, for people.

use std::fmt;

use crate::family::Family;
use crate::ipset;

use super::{
    ChainKind, ForeignTarget, ForeignTest, IpProtocol, Policy, PortRange, Rule, Ruleset, Table, Target, Test,
};

/// As `iptables-save` prints it and `iptables-restore` reads it, without counters and dates.
impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tables.iter().try_for_each(|table| table.fmt(f))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "*{}", self.name.as_str())?;
        for chain in &self.chains {
            let policy = match chain.kind {
                ChainKind::Builtin(Policy::Accept) => "ACCEPT",
                ChainKind::Builtin(Policy::Drop) => "DROP",
                ChainKind::User => "-",
            };
            writeln!(f, ":{} {policy} [0:0]", chain.name)?;
        }
        for chain in &self.chains {
            for rule in &chain.rules {
                writeln!(f, "-A {}{rule}", chain.name)?;
            }
        }
        writeln!(f, "COMMIT")
    }
}

/// Everything after the chain's name, with a leading space.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The module is named once for the matches of it that follow each other: port tests need the
        // protocol's, and several owner tests in a row are several matches to the kernel all the same.
        let mut protocol = IpProtocol::Tcp;
        let mut open = "";
        for found in &self.matches {
            if let Test::Protocol(name) = found.test {
                protocol = name;
            }
            let module = found.test.module(protocol);
            if !module.is_empty() && (module != open || !found.test.shares_module()) {
                write!(f, " -m {module}")?;
            }
            open = module;
            if found.test == Test::Socket {
                continue;
            }
            let not = if found.negated { " !" } else { "" };
            write!(f, "{not} {}", found.test)?;
        }
        match &self.target {
            Target::Continue => Ok(()),
            Target::Accept => f.write_str(" -j ACCEPT"),
            Target::Drop => f.write_str(" -j DROP"),
            Target::Return => f.write_str(" -j RETURN"),
            Target::Reject(with) => write!(f, " -j REJECT --reject-with {with}"),
            Target::Jump(chain) => write!(f, " -j {chain}"),
            Target::Goto(chain) => write!(f, " -g {chain}"),
            Target::Redirect(port) => write!(f, " -j REDIRECT --to-ports {port}"),
            // A dump adds what it does without being told: any address, no mark.
            Target::Tproxy { port, mark, .. } => {
                write!(f, " -j TPROXY --on-port {port}")?;
                match mark {
                    Some(mark) => write!(f, " --tproxy-mark {mark:#x}/0xffffffff"),
                    None => Ok(()),
                }
            }
            Target::Mark(mark) => write!(f, " -j MARK --set-xmark {mark:#x}/0xffffffff"),
            Target::MarkConnection(mark) => write!(f, " -j CONNMARK --set-xmark {mark:#x}/0xffffffff"),
            Target::SaveMark => {
                f.write_str(" -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff")
            }
            Target::RestoreMark => {
                f.write_str(" -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff")
            }
            Target::Notrack => f.write_str(" -j CT --notrack"),
            Target::Zone(zone) => write!(f, " -j CT --zone {zone}"),
            Target::Remember(memory) => write!(f, " -m recent {}", memory.told()),
            Target::Foreign(ForeignTarget { text, .. }) | Target::Other(text) => write!(f, " -j {text}"),
        }
    }
}

impl Test {
    /// The extension that reads it; empty for those that iptables has itself.
    pub(crate) fn module(&self, protocol: IpProtocol) -> &'static str {
        match self {
            Self::SourcePort(_) | Self::DestinationPort(_) => match protocol {
                IpProtocol::Udp => "udp",
                IpProtocol::Sctp => "sctp",
                _ => "tcp",
            },
            Self::Opens => "tcp",
            Self::DestinationPorts(_) => "multiport",
            Self::Uid(..) | Self::Gid(..) | Self::Uids(_) | Self::Gids(_) => "owner",
            Self::Mark(_) => "mark",
            Self::Class(_) | Self::Classes(_) | Self::Cgroup(_) => "cgroup",
            Self::ConnectionMark(_) => "connmark",
            Self::State(_) | Self::Original => "conntrack",
            Self::Socket | Self::Transparent => "socket",
            Self::DestinationServices(_) => "set",
            Self::Alive(_) => "recent",
            Self::Comment(_) => "comment",
            _ => "",
        }
    }

    /// Whether a second test of the same extension goes into the same match. Owner tests could, but a
    /// dump shows them apart where they were given apart, so they are always kept apart.
    fn shares_module(&self) -> bool {
        matches!(self, Self::SourcePort(_) | Self::DestinationPort(_) | Self::Opens)
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(net) => write!(f, "-s {net}"),
            Self::Sources(addresses) => write!(f, "-s {addresses}"),
            Self::Destination(net) => write!(f, "-d {net}"),
            Self::Destinations(addresses) => write!(f, "-d {addresses}"),
            Self::InInterface(name) => write!(f, "-i {name}"),
            Self::OutInterface(name) => write!(f, "-o {name}"),
            Self::Protocol(protocol) => write!(f, "-p {protocol}"),
            Self::SourcePort(range) => write!(f, "--sport {range}"),
            Self::DestinationPort(range) => write!(f, "--dport {range}"),
            Self::DestinationPorts(ranges) => {
                let ranges: Vec<_> = ranges.iter().map(PortRange::to_string).collect();
                write!(f, "--dports {}", ranges.join(","))
            }
            Self::DestinationServices(services) => {
                let family = services.first().map_or(Family::V4, |one| Family::of(one.ip()));
                f.write_str(&ipset::option(family))
            }
            Self::Opens => f.write_str("--tcp-flags FIN,SYN,RST,ACK SYN"),
            Self::Uid(first, last) => write_ids(f, "--uid-owner", &[(*first, *last)]),
            Self::Uids(ranges) => write_ids(f, "--uid-owner", ranges),
            Self::Gid(first, last) => write_ids(f, "--gid-owner", &[(*first, *last)]),
            Self::Gids(ranges) => write_ids(f, "--gid-owner", ranges),
            Self::Class(id) => write!(f, "--cgroup {id}"),
            Self::Classes(ranges) => write_ids(f, "--cgroup", ranges),
            Self::Cgroup(path) => write!(f, "--path {}", quoted(path)),
            Self::Mark(mark) | Self::ConnectionMark(mark) => write!(f, "--mark {mark}"),
            Self::State(states) => write!(f, "--ctstate {}", states.join(",")),
            Self::Original => f.write_str("--ctdir ORIGINAL"),
            // The extension's name says it.
            Self::Socket => Ok(()),
            Self::Transparent => f.write_str("--transparent"),
            Self::Zone(zone) => write!(f, "ct zone {zone}"),
            Self::Alive(memory) => f.write_str(&memory.asked()),
            Self::Comment(text) => write!(f, "--comment {}", quoted(text)),
            Self::Foreign(ForeignTest { text, .. }) | Self::Other(text) => f.write_str(text),
        }
    }
}

fn write_ids(f: &mut fmt::Formatter<'_>, option: &str, ranges: &[(u32, u32)]) -> fmt::Result {
    write!(f, "{option} {}", id_ranges(ranges))
}

/// `1337,2000-3000`.
pub(crate) fn id_ranges(ranges: &[(u32, u32)]) -> String {
    let each = ranges.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    each.collect::<Vec<_>>().join(",")
}

/// As xtables prints a string: bare where it can be, else in quotes with `\`, `"` and `'` escaped.
fn quoted(text: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || "_-.:/,@%+=".contains(c);
    if !text.is_empty() && text.chars().all(is_bare) {
        return text.to_owned();
    }
    let mut out = String::from('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '\'') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}
