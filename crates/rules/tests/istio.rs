//! Standing in for istio-iptables: for the same flags, each packet has the same fate under Weir's rules
//! as under a rule set laid out as istio-iptables documents its own (see docs/istio-iptables.md), and as
//! under Weir's rules for nftables, which survive being printed and read back.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot make its own data has failed"
)]

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use rules::plan::Facts;
use rules::ruleset::IpProtocol;
use rules::{Family, Fate, Flags, Origin, Packet, evaluate, nft, parse, plan, render};

/// One setting of the flags, with one user and one group: more of them are a set for Weir and not for the model.
#[derive(Clone, Debug)]
struct Setting {
    uid: u32,
    gid: u32,
    inbound: String,
    inbound_exclude: Vec<u16>,
    cidrs: String,
    exclude_cidrs: Vec<&'static str>,
    ports: Vec<u16>,
    exclude_ports: Vec<u16>,
}

fn joined<T: ToString>(list: &[T]) -> String {
    list.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

impl Setting {
    fn flags(&self) -> Flags {
        Flags {
            proxy_uid: Some(self.uid.to_string()),
            proxy_gid: Some(self.gid.to_string()),
            inbound_ports: Some(self.inbound.clone()),
            inbound_exclude_ports: Some(joined(&self.inbound_exclude)),
            outbound_cidrs: Some(self.cidrs.clone()),
            outbound_exclude_cidrs: Some(joined(&self.exclude_cidrs)),
            outbound_ports: Some(joined(&self.ports)),
            outbound_exclude_ports: Some(joined(&self.exclude_ports)),
            ..Flags::default()
        }
    }

    fn list(text: &str, family: Family) -> impl Iterator<Item = &str> {
        let items = text.split(',').filter(|item| !item.is_empty());
        items.filter(move |item| {
            item.parse::<IpNet>()
                .is_ok_and(|net| Family::of(net.addr()) == family)
        })
    }

    /// The nat table in the documented order.
    fn model(&self, family: Family) -> String {
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
        if self.inbound == "*" {
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
        }
        rule(format!("OUT -s {passthrough} -o lo -j RETURN"));
        for (option, id) in [("--uid-owner", self.uid), ("--gid-owner", self.gid)] {
            rule(format!(
                "OUT ! -d {loopback} -o lo -p tcp -m tcp ! --dport 15008 -m owner {option} {id} -j TO_IN"
            ));
            if !self
                .cidrs
                .split(',')
                .any(|net| net.starts_with("127.") || net.starts_with("::1"))
            {
                rule(format!("OUT -o lo -m owner ! {option} {id} -j RETURN"));
            }
            rule(format!("OUT -m owner {option} {id} -j RETURN"));
        }
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
        let chains = [
            "PREROUTING ACCEPT",
            "OUTPUT ACCEPT",
            "IN -",
            "OUT -",
            "TO_IN -",
            "TO_OUT -",
        ];
        let mut text = "*nat\n".to_owned();
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
}

const PORTS: [u16; 6] = [22, 80, 8080, 15001, 15008, 15020];
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

fn some<T: Copy + std::fmt::Debug + 'static>(of: &[T], most: usize) -> impl Strategy<Value = Vec<T>> {
    prop::sample::subsequence(of.to_vec(), 0..=most)
}

fn setting() -> impl Strategy<Value = Setting> {
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
        some(&PORTS, 2),
        some(&PORTS, 2),
    )
        .prop_map(
            |((uid, gid), inbound, inbound_exclude, cidrs, exclude_cidrs, ports, exclude_ports)| Setting {
                uid,
                gid,
                inbound,
                inbound_exclude,
                cidrs,
                exclude_cidrs,
                ports,
                exclude_ports,
            },
        )
}

const OWN: [&str; 2] = ["10.77.0.1", "fd00:77::1"];

/// Packets that can exist: what goes to an address of its own leaves by `lo`.
fn packets() -> Vec<Packet> {
    let mut packets = vec![];
    let destinations = [
        "10.77.0.1",
        "10.96.0.10",
        "10.1.2.3",
        "192.0.2.7",
        "198.51.100.1",
        "127.0.0.1",
        "127.0.0.5",
        "fd00:77::1",
        "fd00::9",
        "2001:db8::7",
        "2001:db8::8",
        "::1",
    ];
    for destination in destinations.map(|text| text.parse::<IpAddr>().unwrap()) {
        let own = OWN.map(|text| text.parse::<IpAddr>().unwrap());
        let [v4, v6] = own;
        let is_own = destination.is_loopback() || own.contains(&destination);
        let (source, passthrough) = match destination {
            IpAddr::V4(_) => (v4, "127.0.0.6".parse().unwrap()),
            IpAddr::V6(_) => (v6, "::6".parse().unwrap()),
        };
        for port in PORTS {
            let packet = |origin, source, device: &str| Packet {
                origin,
                protocol: IpProtocol::Tcp,
                source,
                source_port: 40000,
                destination,
                destination_port: port,
                device: device.to_owned(),
            };
            for (uid, gid) in [
                (0, 0),
                (1000, 1000),
                (1337, 1337),
                (1337, 1000),
                (1000, 1337),
                (0, 1337),
            ] {
                let origin = Origin::Socket { uid, gid, mark: 0 };
                let device = if is_own { "lo" } else { "eth0" };
                packets.push(packet(origin, source, device));
                if is_own {
                    packets.push(packet(origin, passthrough, device));
                }
                packets.push(Packet {
                    protocol: IpProtocol::Udp,
                    ..packet(origin, source, device)
                });
            }
            if own.contains(&destination) {
                let remote = match destination {
                    IpAddr::V4(_) => "10.77.0.2".parse().unwrap(),
                    IpAddr::V6(_) => "fd00:77::2".parse().unwrap(),
                };
                packets.push(packet(Origin::Remote, remote, "eth0"));
            }
        }
    }
    packets
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_packet_goes_the_same_way(setting in setting()) {
        let intent = setting.flags().intent().unwrap();
        // Without a capture flag Weir installs nothing at all: written down as a difference.
        prop_assume!(!intent.captures_nothing());
        let plan = plan(&intent, &Facts::fresh(&Family::ALL)).unwrap();
        let native = nft::render(&plan);
        for inet in [true, false] {
            let text = nft::transaction(&[], &native, inet);
            prop_assert_eq!(&nft::parse(&text), &native, "{}", text);
        }
        for (ours, native) in render(&plan).into_iter().zip(native) {
            let model = parse(ours.family, &setting.model(ours.family)).unwrap();
            let packets = packets().into_iter().filter(|packet| Family::of(packet.destination) == ours.family);
            for packet in packets {
                let (we, they) = (evaluate(&ours, &packet), evaluate(&model, &packet));
                prop_assert_ne!(they.fate, Fate::Unknown, "{:?}", they.path.last());
                prop_assert_eq!(we.fate, they.fate, "{:?}\nours:\n{}theirs:\n{}", packet, ours, model);
                let by_nft = evaluate(&native, &packet).fate;
                prop_assert_eq!(by_nft, we.fate, "{:?}\nnftables:\n{}iptables:\n{}", packet, native, ours);
            }
        }
    }
}
