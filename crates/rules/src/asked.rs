//! What was asked for, kept with the rules themselves: a chain that nothing jumps to, whose rules do nothing and
//! whose comments are the flags of `weir init`. By it `weir verify` knows what should hold even where rules are
//! missing, and an operator reads in any dump what the rules are for.

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};

use crate::cgroup;
use crate::family::Family;
use crate::flags::{FIELDS, Flags};
use crate::intent::TRACKING_FLAG;
use crate::intent::{
    Devices, Dns, Families, Inbound, InboundMode, Intent, LOOPBACK_V4, Outbound, Place, Proxy, Selection,
    Signs, Tracking, WithoutProxy,
};
use crate::ruleset::{Chain, ChainKind, Match, Rule, Ruleset, Target, Test};

/// The chain.
pub const CHAIN: &str = "WEIR_ASKED";
/// Its comments begin with this.
const PREFIX: &str = "weir asked: ";
/// Characters of the flags in one comment: nftables takes 127 in all.
const PIECE: usize = 100;

/// The word for exact services: what they are is not kept, being many and changing.
const SERVICES: &str = "--services";
const GROUPS: &str = "ISTIO_OUTBOUND_OWNER_GROUPS=";
const EXCLUDE_GROUPS: &str = "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE=";
/// The servers of resolv.conf at the time.
const SERVERS: &str = "nameservers=";
const LOOPBACK: &str = "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR=";

/// The flags and variables of `weir init` that ask for the same; none for what no flags can ask for.
#[must_use]
pub fn words(intent: &Intent) -> Option<String> {
    let Intent {
        proxy: Proxy::Inside(signs),
        outbound,
        inbound,
        dns,
        uncarried: _,
        place,
        devices: Devices {
            excluded,
            virtual_machines,
        },
        families,
        drop_invalid,
    } = intent
    else {
        return None;
    };
    let mut words = Words::default();
    words.outbound(outbound);
    words.inbound(inbound);
    if let Some(dns) = dns {
        words.dns(dns);
    }
    words.list("-c", excluded);
    words.list("-k", virtual_machines);
    words.signs(signs);
    match families {
        Families::InUse => {}
        Families::Both => words.flag("--families", "both"),
        Families::Only(Family::V4) => words.flag("--families", "ipv4"),
        Families::Only(Family::V6) => words.flag("--families", "ipv6"),
    }
    if *drop_invalid {
        words.flag("--drop-invalid", "true");
    }
    if *place == Place::Host {
        words.word("--host");
    }
    Some(words.0)
}

#[derive(Default)]
struct Words(String);

impl Words {
    fn word(&mut self, word: impl Display) {
        let space = if self.0.is_empty() { "" } else { " " };
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{space}{word}");
    }

    fn flag(&mut self, name: &str, value: impl Display) {
        self.word(format_args!("{name} {value}"));
    }

    /// Nothing for an empty list.
    fn list<T: Display + Ord>(&mut self, name: &str, items: &[T]) {
        if !items.is_empty() {
            self.flag(name, joined(items));
        }
    }

    fn selection<T: Display + Ord>(&mut self, name: &str, selection: &Selection<T>) {
        match selection {
            Selection::All => self.flag(name, "*"),
            Selection::Only(items) => self.list(name, items),
        }
    }

    fn outbound(&mut self, outbound: &Outbound) {
        let Outbound {
            to_port,
            cidrs,
            exclude_cidrs,
            ports,
            exclude_ports,
            loopback_v4,
            lent: _,
            services,
            groups,
            exclude_groups,
        } = outbound;
        self.selection("-i", cidrs);
        self.list("-x", exclude_cidrs);
        self.list("-q", ports);
        self.list("-o", exclude_ports);
        self.flag("-p", to_port);
        if services.is_some() {
            self.word(SERVICES);
        }
        if let Selection::Only(groups) = groups {
            self.word(format_args!("{GROUPS}{}", joined(groups)));
        }
        if !exclude_groups.is_empty() {
            self.word(format_args!("{EXCLUDE_GROUPS}{}", joined(exclude_groups)));
        }
        if *loopback_v4 != LOOPBACK_V4 {
            self.word(format_args!("{LOOPBACK}{loopback_v4}"));
        }
    }

    fn dns(&mut self, dns: &Dns) {
        let Dns {
            servers,
            to_port: _,
            without_proxy,
        } = dns;
        self.flag("--redirect-dns", "true");
        match servers {
            Selection::All => self.flag("--capture-all-dns", "true"),
            Selection::Only(servers) => self.word(format_args!("{SERVERS}{}", joined(servers))),
        }
        if *without_proxy == WithoutProxy::Fail {
            self.flag("--dns-fail-closed", "true");
        }
    }

    fn inbound(&mut self, inbound: &Inbound) {
        let Inbound {
            mode,
            to_port,
            tunnel_port,
            ports,
            exclude_ports,
            exclude_sources,
        } = inbound;
        self.selection("-b", ports);
        self.list("-d", exclude_ports);
        self.flag("-z", to_port);
        self.flag("-e", tunnel_port);
        self.list("--inbound-exclude-sources", exclude_sources);
        match mode {
            InboundMode::Redirect => {}
            InboundMode::Tproxy(tproxy) => {
                self.flag("-m", "TPROXY");
                self.flag("-t", tproxy.mark.value);
                self.flag("-r", tproxy.table);
                match tproxy.tracking {
                    Tracking::On => {}
                    Tracking::Off => self.flag(TRACKING_FLAG, "off"),
                    Tracking::OffIfPossible => self.flag(TRACKING_FLAG, "auto"),
                }
            }
        }
    }

    fn signs(&mut self, signs: &Signs) {
        let Signs {
            uids,
            gids,
            marks,
            class_ids,
            cgroups,
        } = signs;
        self.list("-u", uids);
        self.list("-g", gids);
        self.list("--proxy-mark", marks);
        self.list(cgroup::CLASS_FLAG, class_ids);
        let paths: Vec<_> = cgroups.iter().map(|cgroup| &cgroup.path).collect();
        self.list(cgroup::PATH_FLAG, &paths);
    }
}

/// In one order, so that the same lists are the same words however they were written.
fn joined<T: Display + Ord>(items: &[T]) -> String {
    let items: BTreeSet<&T> = items.iter().collect();
    let items: Vec<_> = items.into_iter().map(T::to_string).collect();
    items.join(",")
}

/// The chain that keeps the words.
#[must_use]
pub fn chain(words: &str) -> Chain {
    // Only ASCII is ever written: numbers, networks, names of devices and paths of cgroups.
    let pieces = words.as_bytes().chunks(PIECE).map(String::from_utf8_lossy);
    let rules = pieces.map(|piece| Rule {
        matches: vec![Match {
            negated: false,
            test: Test::Comment(format!("{PREFIX}{piece}")),
        }],
        target: Target::Continue,
    });
    Chain {
        name: CHAIN.to_owned(),
        kind: ChainKind::User,
        rules: rules.collect(),
    }
}

/// The words that a rule set keeps, where it does.
#[must_use]
pub fn kept(ruleset: &Ruleset) -> Option<String> {
    let chain = ruleset.tables.iter().find_map(|table| table.chain(CHAIN))?;
    let pieces = chain
        .rules
        .iter()
        .filter_map(|rule| rule.comment()?.strip_prefix(PREFIX));
    let words: String = pieces.collect();
    (!words.is_empty()).then_some(words)
}

/// The flags that the words are; none where they are of another version. `--services` is answered apart.
#[must_use]
pub fn flags(words: &str) -> Option<(Flags, bool)> {
    let mut flags = Flags::default();
    let mut services = false;
    let mut left = words.split(' ').filter(|word| !word.is_empty());
    while let Some(word) = left.next() {
        if let Some(servers) = word.strip_prefix(SERVERS) {
            let servers = servers.split(',').filter(|server| !server.is_empty());
            flags.dns_servers = servers.map(|server| server.parse().ok()).collect::<Option<_>>()?;
            continue;
        }
        if let Some((variable, value)) = word.split_once('=') {
            *flag_of(&mut flags, variable)? = Some(value.to_owned());
            continue;
        }
        match word {
            SERVICES => services = true,
            "--host" => flags.host = true,
            flag => *flag_of(&mut flags, flag)? = Some(left.next()?.to_owned()),
        }
    }
    Some((flags, services))
}

/// The command that asks for the same, to be pasted into a shell; `prefix` goes before the program. Which manifests the
/// services came from is not kept: `FOLDER` stands for them.
#[must_use]
pub fn command(words: &str, prefix: impl Display) -> String {
    let (mut input, mut variables, mut flags) = (String::new(), String::new(), String::new());
    let mut left = words.split(' ').filter(|word| !word.is_empty());
    while let Some(word) = left.next() {
        // Writing to a string cannot fail.
        let _ = match word {
            SERVICES => write!(flags, " {SERVICES} FOLDER"),
            "--host" => write!(flags, " {word}"),
            _ if let Some(servers) = word.strip_prefix(SERVERS) => {
                flags.push_str(" --resolv-conf=/dev/stdin");
                write!(
                    input,
                    "printf 'nameserver %s\\n' {} | ",
                    servers.replace(',', " ")
                )
            }
            _ if word.starts_with('-') => {
                let value = left.next().unwrap_or_default();
                // Of some flags a value that stands apart is not taken.
                let between = if word.starts_with("--") { '=' } else { ' ' };
                let quote = if value.contains(['*', '\\']) { "'" } else { "" };
                write!(flags, " {word}{between}{quote}{value}{quote}")
            }
            _ => write!(variables, "{word} "),
        };
    }
    format!("{input}{variables}{prefix}weir init{flags}")
}

fn flag_of<'a>(flags: &'a mut Flags, word: &str) -> Option<&'a mut Option<String>> {
    let field = FIELDS.iter().find(|field| field.word() == word)?;
    Some((field.kept)(flags))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Facts;

    fn flags_of(sidecar: bool, fill: impl Fn(&mut Flags)) -> Flags {
        let mut flags = Flags {
            sidecar,
            ..Flags::default()
        };
        fill(&mut flags);
        flags
    }

    /// What a dump of the rules keeps is the intent that they were made from.
    #[test]
    fn the_intent_comes_back_from_the_rules() {
        let text = |text: &str| Some(text.to_owned());
        let cases = [
            flags_of(true, |_| {}),
            flags_of(true, |flags| {
                flags.mode = text("TPROXY");
                flags.tproxy_table = text("77");
                flags.tproxy_conntrack = text("auto");
                flags.families = text("ipv6");
                flags.drop_invalid = text("true");
            }),
            flags_of(false, |flags| {
                flags.outbound_cidrs = text("10.96.0.0/12,fd00:96::/32");
                flags.outbound_exclude_cidrs = text("10.96.7.0/24");
                flags.outbound_exclude_ports = text("22,443");
                flags.inbound_ports = text("80,8080");
                flags.proxy_uid = text("1337,1338");
                flags.proxy_mark = text("0x539/0xfff");
                flags.exclude_interfaces = text("eth1,tap+");
                flags.owner_groups = text("1000,2000");
                flags.exclude_sources = text("192.0.2.0/24");
                flags.loopback_cidr = text("127.0.0.0/8");
                flags.host = true;
            }),
            flags_of(false, |flags| {
                let nets: Vec<_> = (10..200).map(|net| format!("{net}.0.0.0/16")).collect();
                flags.outbound_cidrs = Some(nets.join(","));
                flags.proxy_mark = text("7");
            }),
            flags_of(true, |flags| {
                flags.redirect_dns = text("true");
                flags.dns_servers = vec!["10.96.0.10".parse().unwrap(), "fd00:96::a".parse().unwrap()];
            }),
            flags_of(true, |flags| {
                flags.redirect_dns = text("true");
                flags.capture_all_dns = text("true");
                flags.dns_fail_closed = text("true");
            }),
            flags_of(true, |flags| {
                flags.proxy_class_id = text("7,10:1");
                flags.proxy_cgroup = text("/a/b\\x2dc.service");
            }),
        ];
        let mut facts = Facts::fresh(&Family::ALL);
        let path = "a/b\\x2dc.service".parse().unwrap();
        facts.cgroups.ids.insert(path, Ok(44));
        for given in cases {
            let intent = given.intent().unwrap();
            let plan = crate::plan(&intent, &facts).unwrap();
            for ruleset in crate::render(&plan).iter().chain(&crate::nft::render(&plan)) {
                let kept = kept(ruleset).unwrap();
                let (flags, services) = flags(&kept).unwrap();
                assert_eq!(
                    (flags.intent().unwrap(), services),
                    (intent.clone(), false),
                    "{kept}"
                );
            }
        }
    }

    #[test]
    fn the_command_is_what_a_shell_takes() {
        for (words, prefix, command) in [
            (
                "-i * -x 10.0.0.0/8 -p 15001",
                "",
                "weir init -i '*' -x 10.0.0.0/8 -p 15001",
            ),
            (
                "-b * ISTIO_OUTBOUND_OWNER_GROUPS=7,8",
                "nsenter -t 7 -n ",
                "ISTIO_OUTBOUND_OWNER_GROUPS=7,8 nsenter -t 7 -n weir init -b '*'",
            ),
            (
                "--redirect-dns true nameservers=10.0.0.1,fd00::1 --services",
                "",
                "printf 'nameserver %s\\n' 10.0.0.1 fd00::1 | weir init --redirect-dns=true --resolv-conf=/dev/stdin \
                 --services FOLDER",
            ),
        ] {
            assert_eq!(super::command(words, prefix), command);
        }
    }

    #[test]
    fn what_another_version_wrote_is_not_guessed_at() {
        for words in ["--of-the-future 1", "-i", "-i * word"] {
            assert!(flags(words).is_none(), "{words}");
        }
    }
}
