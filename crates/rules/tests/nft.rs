//! Rules in the language of nftables: what is written for a plan, and what is made of a listing.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot make its own data has failed"
)]

use rules::nft::{self, TableFamily};
use rules::plan::Facts;
use rules::ruleset::{IpProtocol, Ruleset};
use rules::{Family, Fate, Flags, Intent, Origin, Packet, State, evaluate, plan};

fn rendered(flags: &Flags, families: &[Family]) -> Vec<Ruleset> {
    nft::render(&plan(&flags.intent().unwrap(), &Facts::fresh(families)).unwrap())
}

fn flags(cidrs: &str) -> Flags {
    Flags {
        proxy_uid: Some("1337,1338".to_owned()),
        outbound_cidrs: Some(cidrs.to_owned()),
        outbound_exclude_ports: Some("22,80,81".to_owned()),
        inbound_ports: Some("*".to_owned()),
        ..Flags::default()
    }
}

#[test]
fn one_transaction_replaces_what_is_there() {
    let wanted = rendered(&flags("10.0.0.0/8,11.0.0.0/9,fd00::/8"), &Family::ALL);
    let text = nft::transaction(&[TableFamily::Ip], &wanted, true);
    assert_eq!(
        text,
        r#"table ip weir
delete table ip weir
table inet weir {
	chain nat-WEIR_ASKED {
		counter comment "weir asked: -i 10.0.0.0/8,11.0.0.0/9,fd00::/8 -o 22,80,81 -p 15001 -b * -z 15006 -e 15008 -u 1337,1338 -g 1337,1"
		counter comment "weir asked: 338"
	}
	chain nat-prerouting {
		type nat hook prerouting priority -100; policy accept;
		tcp flags & (fin | syn | rst | ack) != syn counter return comment "weir: opens no connection"
		tcp dport 15008 counter return comment "weir: excluded port"
		meta l4proto tcp counter redirect to :15006 comment "weir: everything else"
	}
	chain nat-output {
		type nat hook output priority -100; policy accept;
		tcp flags & (fin | syn | rst | ack) != syn counter return comment "weir: opens no connection"
		tcp dport { 22, 80-81 } counter return comment "weir: excluded port"
		ip saddr 127.0.0.6 oifname "lo" counter return comment "weir: proxy to its application"
		ip6 saddr ::6 oifname "lo" counter return comment "weir: proxy to its application"
		ip daddr != 127.0.0.1 oifname "lo" tcp dport != 15008 meta skuid 1337-1338 counter redirect to :15006 comment "weir: proxy calls its own workload: inbound"
		ip6 daddr != ::1 oifname "lo" tcp dport != 15008 meta skuid 1337-1338 counter redirect to :15006 comment "weir: proxy calls its own workload: inbound"
		meta skuid 1337-1338 counter return comment "weir: made by the proxy"
		oifname "lo" counter return comment "weir: stays in the pod: loopback and own addresses"
		meta skgid 1337-1338 counter return comment "weir: made by the proxy"
		ip daddr 10.0.0.0-11.127.255.255 meta l4proto tcp counter redirect to :15001 comment "weir: included network"
		ip6 daddr fd00::/8 meta l4proto tcp counter redirect to :15001 comment "weir: included network"
	}
}
"#
    );
    assert_eq!(nft::parse(&text), wanted);
}

#[test]
fn what_one_family_has_alone_says_so() {
    // The IPv4 network is everything, and no test is left of it.
    let wanted = rendered(&flags("0.0.0.0/0"), &Family::ALL);
    let text = nft::transaction(&[], &wanted, true);
    assert!(
        text.contains("meta nfproto ipv4 meta l4proto tcp counter redirect to :15001"),
        "{text}"
    );
    assert_eq!(nft::parse(&text), wanted);
    let alone = rendered(&flags("*"), &[Family::V4]);
    let text = nft::transaction(&[], &alone, true);
    assert!(
        text.starts_with("table ip weir {") && !text.contains("ip6"),
        "{text}"
    );
    assert_eq!(nft::parse(&text), alone);
}

#[test]
fn the_rules_of_weir_run_survive_the_text() {
    let own = ["10.77.0.1", "10.77.0.2", "fd00:77::1"].map(|own| own.parse().unwrap());
    let mark = "0x539/0xfff".parse().unwrap();
    let intent = Intent::contained(own.to_vec(), Some(mark));
    let wanted = nft::render(&plan(&intent, &Facts::fresh(&Family::ALL)).unwrap());
    for inet in [true, false] {
        assert_eq!(nft::parse(&nft::transaction(&[], &wanted, inet)), wanted);
    }
}

/// As nft 1.0.6 lists it, with words for priorities, counters, wide hexadecimal numbers, and a named set.
const LISTED: &str = r#"table inet weir {
	set others {
		type ipv4_addr . inet_service
		elements = { 10.0.0.1 . 80,
			     10.0.0.2 . 443 }
	}

	chain nat-output {
		type nat hook output priority dstnat; policy accept;
		meta mark & 0x00000fff == 0x00000539 counter packets 3 bytes 180 return comment "weir: a, \{b\}"
		tcp dport { 22, 80-81,
			90 } counter packets 0 bytes 0 return
		STATEMENT
		counter packets 0 bytes 0 redirect to :15001
	}
}
"#;

fn fate(statement: &str, port: u16) -> Fate {
    let rulesets = nft::parse(&LISTED.replace("STATEMENT", statement));
    assert_eq!(rulesets.len(), 2);
    evaluate(&rulesets[0], &to("192.0.2.1", port)).fate
}

fn to(destination: &str, port: u16) -> Packet {
    Packet {
        origin: Origin::Socket {
            uid: 1000,
            gid: 1000,
            mark: 0,
        },
        protocol: IpProtocol::Tcp,
        source: "10.77.0.1".parse().unwrap(),
        source_port: 40_000,
        destination: destination.parse().unwrap(),
        destination_port: port,
        device: "eth0".to_owned(),
        state: State::New,
        connection_mark: 0,
        transparent: false,
        dns_answers: true,
    }
}

#[test]
fn a_listing_is_read_and_what_is_not_known_is_never_guessed() {
    let to_proxy = Fate::Redirect { port: 15001 };
    assert_eq!(fate("", 443), to_proxy);
    assert_eq!(fate("", 90), Fate::Direct);
    assert_eq!(
        fate("ip daddr { 192.0.2.0-192.0.2.9, 10.0.0.0/8 } return", 443),
        Fate::Direct
    );
    assert_eq!(
        fate("ip6 daddr != ::1 return", 443),
        to_proxy,
        "of the other family"
    );
    assert_eq!(
        fate("meta skuid != { 0, 5-999 } counter packets 1 bytes 2 drop", 443),
        Fate::Drop
    );
    assert_eq!(fate("ct state established,related drop", 443), to_proxy);
    assert_eq!(fate("limit rate 3/minute return", 443), Fate::Unknown);
    assert_eq!(fate("ip daddr . tcp dport @others return", 443), Fate::Unknown);
    assert_eq!(fate("meta skuid 1000 return", 443), Fate::Direct);
}

#[test]
fn a_chain_at_another_place_is_not_what_was_written() {
    let wanted = rendered(&flags("*"), &Family::ALL);
    let text = nft::transaction(&[], &wanted, true);
    for (of, by) in [
        ("hook output priority -100", "hook output priority -99"),
        ("hook prerouting priority -100", "hook input priority -100"),
        ("counter return comment", "counter comment"),
        ("policy accept", "policy drop"),
        ("oifname", "iifname"),
    ] {
        assert_ne!(nft::parse(&text.replacen(of, by, 1)), wanted, "{of} -> {by}");
    }
}

#[test]
fn services_are_one_set_of_addresses_and_ports_a_family() {
    let mut intent = Flags {
        sidecar: true,
        ..Flags::default()
    }
    .intent()
    .unwrap();
    let services = ["10.96.0.11:443", "10.96.0.10:80", "[fd00:96::10]:80"];
    intent.outbound.services = Some(services.map(|service| service.parse().unwrap()).to_vec());
    let plan = plan(&intent, &Facts::fresh(&Family::ALL)).unwrap();
    let wanted = nft::render(&plan);
    let text = nft::transaction(&[], &wanted, true);
    for rule in [
        "ip daddr . tcp dport { 10.96.0.10 . 80, 10.96.0.11 . 443 } counter redirect to :15001",
        "ip6 daddr . tcp dport { fd00:96::10 . 80 } counter redirect to :15001",
    ] {
        assert!(text.contains(rule), "{text}");
    }
    assert_eq!(nft::parse(&text), wanted);
    // Rules for each member decide the same.
    let by_iptables = rules::render(&plan);
    for (destination, port, expected) in [
        ("10.96.0.10", 80, Fate::Redirect { port: 15001 }),
        ("10.96.0.10", 443, Fate::Direct),
        ("10.96.0.12", 80, Fate::Direct),
    ] {
        for ruleset in [&wanted[0], &by_iptables[0]] {
            assert_eq!(
                evaluate(ruleset, &to(destination, port)).fate,
                expected,
                "{destination}:{port}"
            );
        }
    }
    assert!(plan.needs_sets);
}

#[test]
fn ten_thousand_services_are_one_rule() {
    let mut intent = Flags::default().intent().unwrap();
    let service = |n: u32| (std::net::Ipv4Addr::from_bits(0x0a60_0000 + n), 80).into();
    intent.outbound.services = Some((0..10_000).map(service).collect());
    let wanted = nft::render(&plan(&intent, &Facts::fresh(&[Family::V4])).unwrap());
    let of_services = wanted[0].purposes().filter(|purpose| *purpose == "service");
    assert_eq!(of_services.count(), 1);
    assert_eq!(nft::parse(&nft::transaction(&[], &wanted, true)), wanted);
}
