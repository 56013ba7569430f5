//! The resolver's configuration of whoever lives in the namespace: which servers it asks, which names it tries, and
//! whether it asks past every rule.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use model::{ErrorName, Severity};
use netsys::socket_table::{Listener, listeners};
use rules::intent::Dns;
use rules::ruleset::{IpProtocol, Match, Test};
use rules::{Family, Installed, Selection};

use super::ground::Ground;
use super::report::plural;
use super::{Finding, Question, Report};

/// What the C library takes (resolv.conf(5)): later servers are never asked.
const MOST_SERVERS: usize = 3;
/// What Kubernetes sets for a pod; each name with fewer dots is first asked for in every domain of the list.
const USUAL_NDOTS: u32 = 5;
/// glibc before 2.26 and other libraries take no more.
const MOST_DOMAINS: usize = 6;

pub(super) fn look(question: &Question, ground: &Ground, report: &mut Report) {
    let root = question
        .process
        .map_or_else(|| PathBuf::from("/"), |pid| format!("/proc/{pid}/root").into());
    let file = question
        .resolv_conf
        .clone()
        .unwrap_or_else(|| root.join("etc/resolv.conf"));
    let listeners = match listeners(IpProtocol::Udp) {
        Ok(listeners) => Some(listeners),
        Err(error) => {
            let why = format!("the kernel does not list the sockets of UDP: {error}");
            report.skipped("whether servers on loopback answer", why);
            None
        }
    };
    let listeners = listeners.as_deref();
    match fs::read_to_string(&file) {
        Ok(text) => {
            let mut conf = Conf::parse(&text);
            conf.led_on = conf
                .addresses()
                .filter(|ip| is_led_on(ground.installed.as_ref(), *ip))
                .collect();
            report.findings.extend(conf.judge(&file, listeners));
            let captured = ground.intent.captured_dns().map(|dns| &dns.servers);
            report.findings.extend(conf.beside(&file, captured));
            report.looked(
                "resolv.conf",
                format!("{} in {}", plural(conf.servers.len(), "server"), file.display()),
            );
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            report.findings.extend(Conf::default().judge(&file, listeners));
        }
        Err(error) => report.skipped(
            "resolv.conf",
            format!("{} cannot be read: {error}", file.display()),
        ),
    }
    look_past(&root, ground.intent.captured_dns().is_some(), report);
}

/// What a resolv.conf says.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Conf {
    /// As written.
    servers: Vec<String>,
    domains: Vec<String>,
    ndots: u32,
    /// Servers from which rules lead elsewhere what goes to them.
    led_on: Vec<IpAddr>,
}

impl Conf {
    /// Anything is one: what is not known is passed over, as the C library does it.
    fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().map(str::to_owned)),
                // The last one counts.
                Some("search" | "domain") => conf.domains = words.map(str::to_owned).collect(),
                Some("options") => {
                    let mut ndots = words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    conf.ndots = ndots.next_back().unwrap_or(conf.ndots);
                }
                _ => {}
            }
        }
        conf
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.servers.iter().filter_map(|server| address(server))
    }

    /// Whether it is here that it should be served, and nobody does.
    fn is_dead(&self, listeners: &[Listener], ip: IpAddr) -> bool {
        ip.is_loopback() && !self.led_on.contains(&ip) && !is_served(listeners, ip)
    }

    /// What does not go together with the capture of look-ups at these servers.
    fn beside(&self, file: &Path, captured: Option<&Selection<IpAddr>>) -> Vec<Finding> {
        let Some(captured) = captured else {
            return vec![];
        };
        let found = self.addresses().filter_map(|ip| {
            let (found, why, fix) = if ip.is_loopback() && !self.led_on.contains(&ip) && *captured == Selection::All {
                (
                    format!("the server {ip} is on loopback, and look-ups to any server are captured"),
                    "those that it passes on to other servers come back to it in a circle, and no name outside the mesh \
                     is found",
                    "leave out --capture-all-dns, or have the rules let the server's user pass too (weir init -u)",
                )
            } else if Dns::OF_ONE_LINK.contains(&ip) {
                (
                    format!("the server {ip} is of one link, and look-ups there are not captured"),
                    "who asks it has a socket that cannot reach the proxy on loopback: names of the mesh are what that \
                     server says",
                    "name another address of that server",
                )
            } else {
                return None;
            };
            Some(Finding {
                severity: Severity::Warning,
                name: ErrorName::ResolvConf,
                subject: file.display().to_string(),
                found,
                why: why.to_owned(),
                fix: fix.to_owned(),
            })
        });
        found.collect()
    }

    /// Without a list of listeners, whoever is named is taken to answer.
    fn judge(&self, file: &Path, listeners: Option<&[Listener]>) -> Vec<Finding> {
        let mut found = vec![];
        let mut note = |text: String, why: &str, fix: &str| {
            found.push(Finding {
                severity: Severity::Warning,
                name: ErrorName::ResolvConf,
                subject: file.display().to_string(),
                found: text,
                why: why.to_owned(),
                fix: fix.to_owned(),
            });
        };
        if self.servers.is_empty() {
            note(
                "it names no server".to_owned(),
                "applications ask 127.0.0.1, and names outside the mesh are not found",
                "add a line: nameserver ADDRESS",
            );
        }
        for server in &self.servers {
            match address(server) {
                None => note(
                    format!("the server `{server}` is no address"),
                    "the C library passes the line over",
                    "write an IPv4 or IPv6 address",
                ),
                Some(ip) if listeners.is_some_and(|those| self.is_dead(those, ip)) => note(
                    format!(
                        "the server {ip} is on loopback, and nobody listens there on UDP port 53 in this namespace"
                    ),
                    "each look-up waits for its time-out: the file is another namespace's, such as the machine's with \
                     systemd-resolved",
                    "name a server that can be reached from here (of systemd-resolved: /run/systemd/resolve/resolv.conf)",
                ),
                Some(_) => {}
            }
        }
        if self.servers.len() > MOST_SERVERS {
            note(
                format!("it names {} servers", self.servers.len()),
                "only the first three are ever asked",
                "leave the three that should be",
            );
        }
        if self.ndots > USUAL_NDOTS {
            note(
                format!("ndots is {}", self.ndots),
                "almost every name is asked for in each domain of the search list first, for both families",
                "options ndots:5, or lower; in a pod spec.dnsConfig.options",
            );
        }
        if self.domains.len() > MOST_DOMAINS {
            note(
                format!("its search list has {} domains", self.domains.len()),
                "a short name costs as many queries, twice; some libraries take six at most",
                "leave those that are used",
            );
        }
        found
    }
}

/// A zone may stand after an address: `fe80::1%eth0`.
fn address(server: &str) -> Option<IpAddr> {
    server.split('%').next()?.parse().ok()
}

/// Docker's own server in a container: rules there lead it on to a port of Docker's choice.
const OF_DOCKER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 11));

/// Whether a rule speaks of that address and leads elsewhere what goes there. Where rules cannot be read, Docker's
/// are taken to be there.
fn is_led_on(installed: Option<&Installed>, ip: IpAddr) -> bool {
    let Some(installed) = installed else {
        return ip == OF_DOCKER;
    };
    let chains = installed.of(Family::of(ip)).flat_map(|table| &table.chains);
    chains.flat_map(|chain| &chain.rules).any(|rule| {
        let is_of_it = |found: &Match| matches!(&found.test, Test::Destination(net) if net.contains(&ip) && !found.negated);
        // In both languages the target's word is this one.
        let leads = rule.to_string().to_ascii_lowercase().contains("dnat ");
        leads && rule.matches.iter().any(is_of_it)
    })
}

fn is_served(listeners: &[Listener], ip: IpAddr) -> bool {
    const DNS: u16 = 53;
    listeners
        .iter()
        .any(|listener| listener.takes(SocketAddr::new(ip, DNS)))
}

/// Sockets in files by which names are looked up without a packet in this namespace.
fn look_past(root: &Path, is_captured: bool, report: &mut Report) {
    let is_socket = |path: &str| {
        let file = root.join(path);
        fs::metadata(file).is_ok_and(|metadata| metadata.file_type().is_socket())
    };
    let hosts = fs::read_to_string(root.join("etc/nsswitch.conf")).unwrap_or_default();
    let past = [
        (
            "nscd",
            is_socket("run/nscd/socket") || is_socket("var/run/nscd/socket"),
        ),
        (
            "systemd-resolved",
            asks_resolved(&hosts) && is_socket("run/systemd/resolve/io.systemd.Resolve"),
        ),
    ];
    let found = past.iter().filter(|(_, is_there)| *is_there);
    report.findings.extend(found.map(|(who, _)| Finding {
        severity: if is_captured { Severity::Warning } else { Severity::Note },
        name: ErrorName::DnsBypass,
        subject: (*who).to_owned(),
        found: format!("applications here ask {who} over a file's socket"),
        why: "it asks from its own namespace: no rule here sees these queries, so that names of the mesh are not found \
              where DNS is captured (weir run hides these sockets by itself)"
            .to_owned(),
        fix: "stop it, or take `resolve` out of the line hosts: of nsswitch.conf".to_owned(),
    }));
    let there: Vec<_> = past
        .iter()
        .filter(|(_, is_there)| *is_there)
        .map(|(who, _)| *who)
        .collect();
    report.looked(
        "look-ups past every rule",
        match there.is_empty() {
            true => "neither nscd nor systemd-resolved".to_owned(),
            false => there.join(", "),
        },
    );
}

/// Whether `hosts:` has `resolve`.
fn asks_resolved(nsswitch: &str) -> bool {
    let lines = nsswitch
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("hosts:"));
    lines
        .flat_map(str::split_whitespace)
        .any(|word| word == "resolve")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<String> {
        let findings = Conf::parse(text).judge(Path::new("/etc/resolv.conf"), Some(&[]));
        findings.into_iter().map(|finding| finding.found).collect()
    }

    #[test]
    fn what_is_usual_is_silent() {
        for text in [
            "nameserver 10.96.0.10\nsearch a.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n",
            "# nameserver none\nnameserver 2001:db8::53\n",
            "nameserver fe80::1%eth0\n",
        ] {
            assert_eq!(said(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn what_is_odd_is_told() {
        for (text, expected) in [
            ("", "names no server"),
            ("nameserver\n", "names no server"),
            ("options ndots:x\n\0\u{feff}nameserver 1.1.1.1", "names no server"),
            ("nameserver dns.example", "is no address"),
            ("nameserver 127.0.0.53", "on loopback"),
            ("nameserver ::1", "on loopback"),
            ("nameserver 1.1.1.1\noptions ndots:15", "ndots is 15"),
            ("nameserver 1.1.1.1\nsearch a b c d e f g", "7 domains"),
            (
                "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4",
                "4 servers",
            ),
        ] {
            let said = said(text);
            assert!(
                said.len() == 1 && said[0].contains(expected),
                "{text:?}: {said:?}"
            );
        }
        let at = SocketAddr::from(([127, 0, 0, 53], 53));
        let listener = Listener {
            address: at,
            only_v6: false,
            uid: 0,
            inode: 1,
        };
        let conf = Conf::parse("nameserver 127.0.0.53");
        assert_eq!(conf.judge(Path::new("x"), Some(&[listener])), []);
    }

    #[test]
    fn what_does_not_go_with_capture_is_told() {
        let only = |server: &str| Some(Selection::Only(vec![server.parse().unwrap()]));
        for (server, captured, expected) in [
            ("127.0.0.53", Some(Selection::All), 1),
            ("127.0.0.53", only("127.0.0.53"), 0),
            ("127.0.0.53", None, 0),
            ("fe80::1%eth0", Some(Selection::All), 1),
            ("fe80::1%eth0", only("fe80::1"), 1),
            ("fe80::1%eth0", None, 0),
            ("10.96.0.10", Some(Selection::All), 0),
        ] {
            let conf = Conf::parse(&format!("nameserver {server}"));
            let found = conf.beside(Path::new("x"), captured.as_ref());
            assert_eq!(found.len(), expected, "{server} {captured:?}: {found:?}");
        }
    }

    #[test]
    fn resolved_is_asked_where_the_line_of_hosts_says_so() {
        assert!(asks_resolved(
            "passwd: files\nhosts: files resolve [!UNAVAIL=return] dns\n"
        ));
        assert!(!asks_resolved(
            "hosts: files dns\npasswd: resolve\n# hosts: resolve"
        ));
    }
}
