//! Settings of the flags, and the rule set that istio-iptables documents for each.

use std::net::IpAddr;

use ipnet::IpNet;
use model::ports;
use proptest::prelude::*;
use rules::{Family, Flags, Origin, Packet, State};

/// One setting of the flags, with one user and one group: more of them are a set for Weir and not for the model.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    uid: u32,
    gid: u32,
    inbound: String,
    inbound_exclude: Vec<u16>,
    cidrs: String,
    exclude_cidrs: Vec<&'static str>,
    ports: Vec<u16>,
    exclude_ports: Vec<u16>,
    excluded_devices: Vec<&'static str>,
    virtual_machines: Vec<&'static str>,
    /// None of them is all.
    /// All without any; where there are none, of none.
    groups: Option<Vec<u32>>,
    exclude_groups: Vec<u32>,
    drop_invalid: bool,
    /// Whether inbound is captured by TPROXY.
    tproxy: bool,
    pub(crate) dns: Dns,
}

/// DNS capture, as both have it: no servers without `all` is none.
#[derive(Clone, Debug)]
pub(crate) struct Dns {
    all: bool,
    servers: Vec<&'static str>,
    pub(crate) fail_closed: bool,
}

impl Dns {
    pub(crate) fn is_for(&self, server: &str) -> bool {
        !self.all && self.servers.contains(&server)
    }

    fn is_on(&self) -> bool {
        self.all || !self.servers.is_empty()
    }

    /// What of the proxy's is not turned inwards, and what stays on `lo`.
    fn over_lo(&self, option: &str) -> (&'static str, &'static str) {
        match (self.is_on(), option) {
            (true, "--uid-owner") => ("multiport ! --dports 53,15008", "-p tcp -m tcp ! --dport 53 "),
            (true, _) => ("tcp ! --dport 15008", "-p tcp -m tcp ! --dport 53 "),
            (false, _) => ("tcp ! --dport 15008", ""),
        }
    }

    fn redirects(&self, family: Family) -> Vec<String> {
        let each = |to: String| {
            ["tcp", "udp"].map(|protocol| {
                format!("OUT {to}-p {protocol} -m {protocol} --dport 53 -j REDIRECT --to-ports 15053")
            })
        };
        self.destinations(family).into_iter().flat_map(each).collect()
    }

    /// What a query goes to, as a match each.
    fn destinations(&self, family: Family) -> Vec<String> {
        if self.all {
            return vec![String::new()];
        }
        let of_family = |server: &&&str| (family == Family::V6) == server.contains(':');
        let servers = self.servers.iter().filter(of_family);
        servers.map(|server| format!("-d {server} ")).collect()
    }
}

fn joined<T: ToString>(list: &[T]) -> String {
    list.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

impl Setting {
    pub(crate) fn flags(&self) -> Flags {
        Flags {
            proxy_uid: Some(self.uid.to_string()),
            proxy_gid: Some(self.gid.to_string()),
            inbound_ports: Some(self.inbound.clone()),
            inbound_exclude_ports: Some(joined(&self.inbound_exclude)),
            outbound_cidrs: Some(self.cidrs.clone()),
            outbound_exclude_cidrs: Some(joined(&self.exclude_cidrs)),
            outbound_ports: Some(joined(&self.ports)),
            outbound_exclude_ports: Some(joined(&self.exclude_ports)),
            exclude_interfaces: Some(joined(&self.excluded_devices)),
            kube_virt_interfaces: Some(joined(&self.virtual_machines)),
            owner_groups: self.groups.as_deref().map(joined),
            owner_groups_exclude: Some(joined(&self.exclude_groups)),
            drop_invalid: Some(self.drop_invalid.to_string()),
            mode: self.tproxy.then(|| "TPROXY".to_owned()),
            redirect_dns: Some(self.dns.is_on().to_string()),
            capture_all_dns: Some(self.dns.all.to_string()),
            dns_fail_closed: Some(self.dns.fail_closed.to_string()),
            dns_servers: self
                .dns
                .servers
                .iter()
                .map(|server| server.parse().unwrap())
                .collect(),
            ..Flags::default()
        }
    }

    /// What the two do otherwise on purpose (docs/istio-iptables.md): DNS of one link, and some with TPROXY.
    pub(crate) fn differs(&self, packet: &Packet) -> bool {
        let port = packet.destination_port;
        let is_of_link = rules::intent::Dns::OF_ONE_LINK.contains(&packet.destination);
        if self.dns.all && is_of_link && port == 53 {
            return true;
        }
        if !self.tproxy {
            return false;
        }
        let by_proxy = match packet.origin {
            Origin::Socket { uid, gid, mark } => mark == 0 && (uid == self.uid || gid == self.gid),
            Origin::Remote => false,
        };
        // What the proxy sends in a client's name, which istio-iptables redirects where it knows it by its user.
        let in_clients_name = match packet.origin {
            Origin::Socket { uid, gid, mark } => {
                // Known by its group, it gets that far at loopback that is listed, and at port 53 with DNS.
                let is_late = self.lists_loopback() || (self.dns.is_on() && port == 53);
                mark != 0 && (uid == self.uid || (gid == self.gid && is_late))
            }
            Origin::Remote => false,
        };
        let is_asked = match self.inbound.as_str() {
            "*" => !self.inbound_exclude.contains(&port),
            list => list.split(',').any(|listed| listed == port.to_string()),
        };
        let is_alike = is_asked && !self.exclude_ports.contains(&port) && port != TUNNEL;
        match packet.origin {
            // By flags, not by what conntrack takes for a connection.
            Origin::Remote => packet.state == State::Invalid || port == TUNNEL,
            // Nobody calls from there but where it is not TPROXY.
            Origin::Socket { .. } => {
                in_clients_name
                    || is_passthrough(packet.source)
                    || (by_proxy && packet.device == "lo" && !is_alike)
            }
        }
    }

    fn lists_loopback(&self) -> bool {
        self.cidrs
            .split(',')
            .any(|net| net.starts_with("127.") || net.starts_with("::1"))
    }

    /// The mangle table in the documented order.
    fn mangle(&self, loopback: &str, passthrough: &str) -> String {
        let mut rules = vec![];
        let mut rule = |text: String| rules.push(text);
        for device in &self.excluded_devices {
            rule(format!("PREROUTING -i {device} -j RETURN"));
            rule(format!("OUTPUT -o {device} -j RETURN"));
        }
        if self.drop_invalid {
            rule("PREROUTING -m conntrack --ctstate INVALID -j DROP".to_owned());
        }
        rule("DIVERT -j MARK --set-xmark 0x539/0xffffffff".to_owned());
        rule("DIVERT -j ACCEPT".to_owned());
        rule(format!(
            "TO_PROXY ! -d {loopback} -p tcp -j TPROXY --on-port 15006 --tproxy-mark 0x539/0xffffffff"
        ));
        rule("IN -p tcp -m mark --mark 0x539 -j RETURN".to_owned());
        rule(format!("IN -s {passthrough} -i lo -p tcp -j RETURN"));
        rule("IN -i lo -p tcp -m mark ! --mark 0x53a -j RETURN".to_owned());
        let capture = |port: &str| {
            [
                format!("IN -p tcp {port}-m conntrack --ctstate RELATED,ESTABLISHED -j DIVERT"),
                format!("IN -p tcp {port}-j TO_PROXY"),
            ]
        };
        if self.inbound == "*" {
            rule("PREROUTING -p tcp -j IN".to_owned());
            for port in &self.inbound_exclude {
                rule(format!("IN -p tcp --dport {port} -j RETURN"));
            }
            capture("").into_iter().for_each(&mut rule);
        } else if !self.inbound.is_empty() {
            rule("PREROUTING -p tcp -j IN".to_owned());
            for port in self.inbound.split(',') {
                capture(&format!("--dport {port} "))
                    .into_iter()
                    .for_each(&mut rule);
            }
        }
        const MASKS: &str = "--nfmask 0xffffffff --ctmask 0xffffffff";
        rule(format!(
            "PREROUTING -p tcp -m mark --mark 0x539 -j CONNMARK --save-mark {MASKS}"
        ));
        rule("OUTPUT -o lo -p tcp -m mark --mark 0x539 -j RETURN".to_owned());
        for (option, id) in [("--uid-owner", self.uid), ("--gid-owner", self.gid)] {
            rule(format!(
                "OUTPUT ! -d {loopback} -o lo -p tcp -m owner {option} {id} -j MARK --set-xmark 0x53a/0xffffffff"
            ));
        }
        rule(format!(
            "OUTPUT -p tcp -m connmark --mark 0x539 -j CONNMARK --restore-mark {MASKS}"
        ));
        let chains = [
            "PREROUTING ACCEPT",
            "OUTPUT ACCEPT",
            "IN -",
            "DIVERT -",
            "TO_PROXY -",
        ];
        table("mangle", &chains, &rules)
    }

    fn list(text: &str, family: Family) -> impl Iterator<Item = &str> {
        let items = text.split(',').filter(|item| !item.is_empty());
        items.filter(move |item| {
            item.parse::<IpNet>()
                .is_ok_and(|net| Family::of(net.addr()) == family)
        })
    }

    /// Each is put before all others, one after the other.
    fn of_virtual_machines(&self, family: Family) -> Vec<String> {
        let mut first: Vec<String> = self
            .virtual_machines
            .iter()
            .map(|device| format!("PREROUTING -i {device} -j RETURN"))
            .collect();
        for device in &self.virtual_machines {
            if self.cidrs == "*" {
                first.push(format!("PREROUTING -i {device} -j TO_OUT"));
            }
            for net in Self::list(&self.cidrs, family) {
                first.push(format!("PREROUTING -i {device} -d {net} -j TO_OUT"));
            }
        }
        first.reverse();
        first
    }

    /// The nat table in the documented order.
    pub(crate) fn model(&self, family: Family) -> String {
        let (passthrough, loopback) = match family {
            Family::V4 => ("127.0.0.6/32", "127.0.0.1/32"),
            Family::V6 => ("::6/128", "::1/128"),
        };
        let mut rules = vec![
            "IN -p tcp --dport 15008 -j RETURN".to_owned(),
            "TO_OUT -p tcp -j REDIRECT --to-ports 15001".to_owned(),
            "TO_IN -p tcp -j REDIRECT --to-ports 15006".to_owned(),
        ];
        let mut rule = |text: String| rules.push(text);
        for device in &self.excluded_devices {
            rule(format!("PREROUTING -i {device} -j RETURN"));
            rule(format!("OUTPUT -o {device} -j RETURN"));
        }
        if self.tproxy {
            // In the other table.
        } else if self.inbound == "*" {
            rule("PREROUTING -p tcp -j IN".to_owned());
            for port in &self.inbound_exclude {
                rule(format!("IN -p tcp --dport {port} -j RETURN"));
            }
            rule("IN -p tcp -j TO_IN".to_owned());
        } else if !self.inbound.is_empty() {
            rule("PREROUTING -p tcp -j IN".to_owned());
            for port in self.inbound.split(',') {
                rule(format!("IN -p tcp --dport {port} -j TO_IN"));
            }
        }
        rule("OUTPUT -j OUT".to_owned());
        for port in &self.exclude_ports {
            rule(format!("OUT -p tcp --dport {port} -j RETURN"));
            rule(format!("OUT -p udp -m udp --dport {port} -j RETURN"));
        }
        rule(format!("OUT -s {passthrough} -o lo -j RETURN"));
        for (option, id) in [("--uid-owner", self.uid), ("--gid-owner", self.gid)] {
            let (not_turned, stays) = self.dns.over_lo(option);
            rule(format!(
                "OUT ! -d {loopback} -o lo -p tcp -m {not_turned} -m owner {option} {id} -j TO_IN"
            ));
            if !self.lists_loopback() {
                rule(format!("OUT -o lo {stays}-m owner ! {option} {id} -j RETURN"));
            }
            rule(format!("OUT -m owner {option} {id} -j RETURN"));
        }
        if let Some(groups) = &self.groups {
            let none: String = groups
                .iter()
                .map(|group| format!("-m owner ! --gid-owner {group} "))
                .collect();
            rule(format!("OUT {none}-j RETURN"));
        } else {
            for group in &self.exclude_groups {
                rule(format!("OUT -m owner --gid-owner {group} -j RETURN"));
            }
        }
        self.dns.redirects(family).into_iter().for_each(&mut rule);
        rule(format!("OUT -d {loopback} -j RETURN"));
        for net in Self::list(&joined(&self.exclude_cidrs), family) {
            rule(format!("OUT -d {net} -j RETURN"));
        }
        for port in &self.ports {
            rule(format!("OUT -p tcp --dport {port} -j TO_OUT"));
        }
        if self.cidrs == "*" {
            rule("OUT -j TO_OUT".to_owned());
        }
        for net in Self::list(&self.cidrs, family) {
            rule(format!("OUT -d {net} -j TO_OUT"));
        }
        rules.splice(0..0, self.of_virtual_machines(family));
        let chains = [
            "PREROUTING ACCEPT",
            "OUTPUT ACCEPT",
            "IN -",
            "OUT -",
            "TO_IN -",
            "TO_OUT -",
        ];
        let mangle = match (self.tproxy, self.drop_invalid) {
            (true, _) => self.mangle(loopback, passthrough),
            (false, true) => table(
                "mangle",
                &["PREROUTING ACCEPT"],
                &["PREROUTING -m conntrack --ctstate INVALID -j DROP".to_owned()],
            ),
            (false, false) => String::new(),
        };
        mangle + &table("nat", &chains, &rules)
    }
}

fn table(name: &str, chains: &[&str], rules: &[String]) -> String {
    let mut text = format!("*{name}\n");
    for chain in chains {
        text.push_str(&format!(":{chain} [0:0]\n"));
    }
    for rule in rules {
        // As a dump has it, the protocol's extension is named.
        let rule = rule.replace("-p tcp --dport", "-p tcp -m tcp --dport");
        text.push_str(&format!("-A {rule}\n"));
    }
    text + "COMMIT\n"
}

fn is_passthrough(source: IpAddr) -> bool {
    source == IpAddr::from(ports::PASSTHROUGH_V4) || source == IpAddr::from(ports::PASSTHROUGH_V6)
}

const TUNNEL: u16 = 15008;
pub(crate) const PORTS: [u16; 7] = [22, 53, 80, 8080, 15001, 15008, 15020];
/// DNS servers: elsewhere, in the pod, and on loopback.
const SERVERS: [&str; 6] = [
    "10.96.0.10",
    "10.77.0.1",
    "127.0.0.5",
    "127.0.0.1",
    "fd00::9",
    "::1",
];
const NETS: [&str; 9] = [
    "10.0.0.0/8",
    "10.96.0.0/12",
    "192.0.2.7/32",
    "127.0.0.0/8",
    "127.0.0.1/32",
    "fd00::/8",
    "2001:db8::7/128",
    "::1/128",
    "0.0.0.0/0",
];

/// A trailing `+` stands for any ending.
const DEVICES: [&str; 4] = ["eth1", "tap+", "tap0", "lo"];
const GROUPS: [u32; 3] = [1337, 1000, 77];

fn some<T: Copy + std::fmt::Debug + 'static>(of: &[T], most: usize) -> impl Strategy<Value = Vec<T>> {
    prop::sample::subsequence(of.to_vec(), 0..=most)
}

fn dns() -> impl Strategy<Value = Dns> {
    (any::<bool>(), some(&SERVERS, 3), any::<bool>()).prop_map(|(all, servers, fail_closed)| Dns {
        all,
        servers,
        fail_closed,
    })
}

pub(crate) fn setting() -> impl Strategy<Value = Setting> {
    let all_or = |list: BoxedStrategy<String>| prop_oneof![Just("*".to_owned()), list];
    (
        (
            prop::sample::select(vec![0_u32, 1337]),
            prop::sample::select(vec![0_u32, 1337]),
        ),
        all_or(some(&PORTS, 2).prop_map(|ports| joined(&ports)).boxed()),
        some(&PORTS, 3),
        all_or(some(&NETS, 4).prop_map(|nets| joined(&nets)).boxed()),
        some(&NETS, 2),
        (some(&PORTS, 2), some(&PORTS, 2)),
        (some(&DEVICES, 2), some(&DEVICES, 2)),
        (
            prop::option::of(some(&GROUPS, 2)),
            some(&GROUPS, 2),
            any::<bool>(),
        ),
        dns(),
    )
        .prop_map(
            |(
                (uid, gid),
                inbound,
                inbound_exclude,
                cidrs,
                exclude_cidrs,
                (ports, exclude_ports),
                (excluded_devices, virtual_machines),
                (groups, exclude_groups, drop_invalid),
                dns,
            )| Setting {
                uid,
                gid,
                inbound,
                inbound_exclude,
                cidrs,
                exclude_cidrs,
                ports,
                exclude_ports,
                excluded_devices,
                virtual_machines,
                groups,
                exclude_groups,
                drop_invalid,
                tproxy: false,
                dns,
            },
        )
}

/// By either means.
pub(crate) fn setting_of_any_mode() -> impl Strategy<Value = Setting> {
    let by_tproxy = setting().prop_map(|setting| Setting {
        tproxy: true,
        // With TPROXY they are captured as without it, which istio-iptables does not do.
        virtual_machines: vec![],
        ..setting
    });
    prop_oneof![setting(), by_tproxy]
}
