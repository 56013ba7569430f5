//! Inbound TPROXY: the rules, what they do with packets, and the way back from their text.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot make its own data has failed"
)]

mod asking;

use rules::nft::{self, TableFamily};
use rules::plan::{Facts, PolicyRoute};
use rules::ruleset::{Chain, IpProtocol, Ruleset, Target};
use rules::{Family, Fate, Flags, Origin, Packet, Plan, State, asked, evaluate, plan};

const SETTINGS: [fn(&mut Flags); 6] = [
    |_| {},
    |flags| flags.inbound_ports = Some("80,8080".to_owned()),
    |flags| flags.exclude_sources = Some("10.1.0.0/16,fd01::/16".to_owned()),
    |flags| flags.outbound_exclude_ports = Some("22".to_owned()),
    |flags| flags.exclude_interfaces = Some("eth1".to_owned()),
    |flags| flags.drop_invalid = Some("true".to_owned()),
];

/// Followed by conntrack, and not.
const KINDS: [&str; 2] = ["on", "off"];

fn flags(kind: &str) -> Flags {
    Flags {
        sidecar: true,
        mode: Some("TPROXY".to_owned()),
        tproxy_conntrack: Some(kind.to_owned()),
        ..Flags::default()
    }
}

fn planned(kind: &str, change: fn(&mut Flags)) -> Plan {
    let mut flags = flags(kind);
    change(&mut flags);
    plan(&flags.intent().unwrap(), &Facts::fresh(&Family::ALL)).unwrap()
}

fn all_plans() -> impl Iterator<Item = Plan> {
    let each = |kind| SETTINGS.map(|change| planned(kind, change));
    KINDS.into_iter().flat_map(each)
}

fn both(plan: &Plan) -> [Vec<Ruleset>; 2] {
    [rules::render(plan), nft::render(plan)]
}

fn of_v4(plan: &Plan) -> [Ruleset; 2] {
    both(plan).map(|mut rulesets| rulesets.swap_remove(0))
}

#[test]
fn the_rules_of_both_languages() {
    let plan = planned("on", SETTINGS[0]);
    assert_eq!(
        plan.policy_routes,
        Family::ALL.map(|family| PolicyRoute {
            family,
            mark: 1337,
            table: 133
        })
    );
    assert!(!plan.passthrough_v6, "no call has ::6 as its source");
    let text = rules::render(&plan)[0].table_text("mangle");
    assert_eq!(
        text,
        r#":PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:WEIR_INBOUND - [0:0]
:WEIR_OUTPUT - [0:0]
-A PREROUTING -p tcp -m comment --comment "weir: what arrives" -j WEIR_INBOUND
-A OUTPUT -p tcp -m comment --comment "weir: what is sent" -j WEIR_OUTPUT
-A WEIR_INBOUND -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m connmark --mark 0x53b -m socket --transparent -m comment --comment "weir: goes on to the proxy" -j RETURN
-A WEIR_INBOUND -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m connmark --mark 0x53b -m conntrack --ctdir ORIGINAL -m comment --comment "weir: of a captured connection" -j TPROXY --on-port 15006
-A WEIR_INBOUND -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate ESTABLISHED,UNTRACKED -m comment --comment "weir: goes on with a connection" -j RETURN
-A WEIR_INBOUND -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m socket -m comment --comment "weir: has a socket here" -j RETURN
-A WEIR_INBOUND -i lo -p tcp -m mark --mark 0x539 -m comment --comment "weir: proxy to its application" -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff
-A WEIR_INBOUND -i lo -p tcp -m mark --mark 0x53a -m conntrack --ctstate NEW -m comment --comment "weir: proxy calls its own workload: inbound; remembered" -j CONNMARK --set-xmark 0x53b/0xffffffff
-A WEIR_INBOUND -i lo -p tcp -m mark --mark 0x53a -m comment --comment "weir: proxy calls its own workload: inbound" -j TPROXY --on-port 15006
-A WEIR_INBOUND -i lo -m comment --comment "weir: made in the pod" -j RETURN
-A WEIR_INBOUND -p tcp -m tcp --dport 15008 -m comment --comment "weir: excluded port" -j RETURN
-A WEIR_INBOUND -p tcp -m tcp --dport 15020 -m comment --comment "weir: excluded port" -j RETURN
-A WEIR_INBOUND -p tcp -m tcp --dport 15021 -m comment --comment "weir: excluded port" -j RETURN
-A WEIR_INBOUND -p tcp -m tcp --dport 15090 -m comment --comment "weir: excluded port" -j RETURN
-A WEIR_INBOUND -p tcp -m conntrack --ctstate NEW -m comment --comment "weir: everything else; remembered" -j CONNMARK --set-xmark 0x53b/0xffffffff
-A WEIR_INBOUND -p tcp -m comment --comment "weir: everything else" -j TPROXY --on-port 15006
-A WEIR_OUTPUT -p tcp -m connmark --mark 0x539 -m comment --comment "weir: application to the proxy" -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff
-A WEIR_OUTPUT -m mark --mark 0x539 -m comment --comment "weir: proxy to its application" -j RETURN
-A WEIR_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -m owner --uid-owner 1337 -m comment --comment "weir: proxy calls its own workload: inbound" -j MARK --set-xmark 0x53a/0xffffffff
-A WEIR_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -m owner --gid-owner 1337 -m comment --comment "weir: proxy calls its own workload: inbound" -j MARK --set-xmark 0x53a/0xffffffff
"#
    );
    let text = nft::transaction(&[], &nft::render(&plan), true);
    let (_, mangle) = text.split_once("\tchain nat-WEIR_ASKED {").unwrap();
    let (_, mangle) = mangle.split_once("\t}\n").unwrap();
    let mangle = mangle.split("chain nat-").next().unwrap();
    assert_eq!(
        mangle,
        r#"	chain mangle-prerouting {
		type filter hook prerouting priority -150; policy accept;
		tcp flags & (fin | syn | rst | ack) != syn ct mark 0x53b socket transparent 1 counter return comment "weir: goes on to the proxy"
		tcp flags & (fin | syn | rst | ack) != syn ct mark 0x53b ct direction original counter tproxy to :15006 accept comment "weir: of a captured connection"
		tcp flags & (fin | syn | rst | ack) != syn ct mark 0x53b ct direction original counter drop comment "weir: of a captured connection; no proxy"
		tcp flags & (fin | syn | rst | ack) != syn ct state established,untracked counter return comment "weir: goes on with a connection"
		iifname "lo" meta l4proto tcp meta mark 0x539 counter ct mark set meta mark comment "weir: proxy to its application"
		iifname "lo" meta l4proto tcp meta mark 0x53a counter tproxy to :15006 ct mark set 0x53b accept comment "weir: proxy calls its own workload: inbound"
		iifname "lo" tcp flags & (fin | syn | rst | ack) == syn meta mark 0x53a counter drop comment "weir: proxy calls its own workload: inbound; no proxy"
		iifname "lo" counter return comment "weir: made in the pod"
		tcp dport { 15008, 15020-15021, 15090 } counter return comment "weir: excluded port"
		meta l4proto tcp counter tproxy to :15006 ct mark set 0x53b accept comment "weir: everything else"
		tcp flags & (fin | syn | rst | ack) == syn counter drop comment "weir: everything else; no proxy"
	}
	chain mangle-output {
		type route hook output priority -150; policy accept;
		meta l4proto tcp ct mark 0x539 counter meta mark set ct mark comment "weir: application to the proxy"
		meta mark 0x539 counter return comment "weir: proxy to its application"
		ip daddr != 127.0.0.1 oifname "lo" tcp dport != 15008 meta skuid 1337 counter meta mark set 0x53a comment "weir: proxy calls its own workload: inbound"
		ip6 daddr != ::1 oifname "lo" tcp dport != 15008 meta skuid 1337 counter meta mark set 0x53a comment "weir: proxy calls its own workload: inbound"
		ip daddr != 127.0.0.1 oifname "lo" tcp dport != 15008 meta skgid 1337 counter meta mark set 0x53a comment "weir: proxy calls its own workload: inbound"
		ip6 daddr != ::1 oifname "lo" tcp dport != 15008 meta skgid 1337 counter meta mark set 0x53a comment "weir: proxy calls its own workload: inbound"
	}
	"#
    );
}

#[test]
fn the_rules_of_the_untracked_kind_in_both_languages() {
    let plan = planned("off", SETTINGS[0]);
    let v4 = rules::render(&plan).swap_remove(0);
    let raw = v4.table_text("raw");
    let decides = |line: &&str| !line.contains(asked::CHAIN);
    let raw: Vec<_> = raw.lines().filter(decides).collect();
    assert_eq!(
        raw.join("\n") + "\n",
        r#":PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:WEIR_INBOUND - [0:0]
:WEIR_OUTPUT - [0:0]
-A PREROUTING -p tcp -m comment --comment "weir: tracking of what arrives" -j WEIR_INBOUND
-A OUTPUT -p tcp -m comment --comment "weir: tracking of what is sent" -j WEIR_OUTPUT
-A WEIR_INBOUND -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m socket --transparent -m comment --comment "weir: client to the proxy" -j CT --notrack
-A WEIR_INBOUND -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m comment --comment "weir: opens no connection" -j RETURN
-A WEIR_INBOUND -p tcp -m tcp --dport 15008 -m comment --comment "weir: excluded port" -j RETURN
-A WEIR_INBOUND -p tcp -m tcp --dport 15020 -m comment --comment "weir: excluded port" -j RETURN
-A WEIR_INBOUND -p tcp -m tcp --dport 15021 -m comment --comment "weir: excluded port" -j RETURN
-A WEIR_INBOUND -p tcp -m tcp --dport 15090 -m comment --comment "weir: excluded port" -j RETURN
-A WEIR_INBOUND -p tcp -m comment --comment "weir: everything else" -j CT --notrack
-A WEIR_OUTPUT -p tcp -m mark --mark 0x53b -m comment --comment "weir: proxy to its clients; tcp_fwmark_accept set by weir" -j CT --notrack
-A WEIR_OUTPUT -p tcp -m mark --mark 0x539 -m comment --comment "weir: proxy and application; fwmark_reflect set by weir" -j CT --notrack
"#
    );
    let mangle = v4.table_text("mangle");
    assert!(
        mangle.contains("-j TPROXY --on-port 15006 --tproxy-mark 0x53b/0xffffffff\n")
            && !mangle.contains("--save-mark"),
        "{mangle}"
    );
    let text = nft::transaction(&[], &nft::render(&plan), true);
    for rule in [
        r#"tcp flags & (fin | syn | rst | ack) != syn socket transparent 1 counter notrack comment "weir: client to the proxy""#,
        r#"meta l4proto tcp counter notrack comment "weir: everything else""#,
        r#"meta l4proto tcp meta mark 0x53b counter notrack comment "weir: proxy to its clients; tcp_fwmark_accept set by weir""#,
        r#"meta l4proto tcp counter tproxy to :15006 meta mark set 0x53b accept comment "weir: everything else""#,
    ] {
        assert_eq!(text.matches(rule).count(), 1, "{rule}\n{text}");
    }
}

trait TableText {
    fn table_text(&self, name: &str) -> String;
}

impl TableText for Ruleset {
    fn table_text(&self, name: &str) -> String {
        let text = self.to_string();
        let start = format!("*{name}\n");
        let (_, rest) = text.split_once(&start).unwrap();
        rest.split("COMMIT").next().unwrap().to_owned()
    }
}

#[test]
fn the_text_of_the_rules_is_read_as_the_rules() {
    for plan in all_plans() {
        for ruleset in rules::render(&plan) {
            let dumped = ruleset.to_string();
            assert_eq!(rules::parse(ruleset.family, &dumped).unwrap(), ruleset);
            // As the kernel tells it.
            let any = if ruleset.family == Family::V4 {
                "0.0.0.0"
            } else {
                "::"
            };
            let dumped = dumped
                .replace("--on-port 15006", &format!("--on-port 15006 --on-ip {any}"))
                .replace(
                    &format!("--on-ip {any}\n"),
                    &format!("--on-ip {any} --tproxy-mark 0x0/0x0\n"),
                );
            assert!(dumped.contains("--tproxy-mark"));
            assert_eq!(rules::parse(ruleset.family, &dumped).unwrap(), ruleset);
        }
        let wanted = nft::render(&plan);
        let text = nft::transaction(&[TableFamily::Inet], &wanted, true);
        assert_eq!(nft::parse(&text), wanted, "{text}");
        // As it is listed.
        let listed = text
            .replace("mark 0x539", "mark 0x00000539")
            .replace("mark set 0x53b", "mark set 0x0000053b")
            .replace("ct mark 0x53b", "ct mark 0x0000053b")
            .replace("& (fin | syn | rst | ack) != syn", "!= syn / fin,syn,rst,ack")
            .replace("& (fin | syn | rst | ack) == syn", "syn / fin,syn,rst,ack");
        assert_eq!(nft::parse(&listed), wanted, "{listed}");
    }
}

const APPLICATION: Origin = of(1000, 0);
const PROXY: Origin = of(1337, 0);
const IN_CLIENTS_NAME: Origin = of(1337, 1337);
const OWN: &str = "10.0.0.1";
const OTHER: &str = "10.1.0.2";

const fn of(id: u32, mark: u32) -> Origin {
    Origin::Socket {
        uid: id,
        gid: id,
        mark,
    }
}

fn packet(origin: Origin, from: &str, to: &str, port: u16, device: &str) -> Packet {
    Packet {
        origin,
        protocol: IpProtocol::Tcp,
        source: from.parse().unwrap(),
        source_port: 40_000,
        destination: to.parse().unwrap(),
        destination_port: port,
        device: device.to_owned(),
        connection_mark: 0,
        transparent: false,
        dns_answers: true,
        state: State::New,
    }
}

#[test]
fn what_becomes_of_packets() {
    let (captured, outbound) = (Fate::Tproxy { port: 15006 }, Fate::Redirect { port: 15001 });
    let cases = [
        (packet(Origin::Remote, OTHER, OWN, 80, "eth0"), captured),
        (packet(Origin::Remote, OTHER, OWN, 15006, "eth0"), captured),
        (packet(Origin::Remote, OTHER, OWN, 15008, "eth0"), Fate::Direct),
        (packet(Origin::Remote, OTHER, OWN, 15020, "eth0"), Fate::Direct),
        (packet(APPLICATION, OWN, OTHER, 80, "eth0"), outbound),
        (packet(PROXY, OWN, OTHER, 80, "eth0"), Fate::Direct),
        (packet(APPLICATION, OWN, OWN, 80, "lo"), Fate::Direct),
        (packet(PROXY, OWN, OWN, 80, "lo"), captured),
        (packet(PROXY, OWN, OWN, 15008, "lo"), Fate::Direct),
        (packet(PROXY, "127.0.0.1", "127.0.0.1", 80, "lo"), Fate::Direct),
        (packet(IN_CLIENTS_NAME, OTHER, OWN, 80, "lo"), Fate::Direct),
        (packet(IN_CLIENTS_NAME, OWN, OWN, 80, "lo"), Fate::Direct),
    ];
    for rulesets in KINDS
        .into_iter()
        .flat_map(|kind| both(&planned(kind, SETTINGS[0])))
    {
        for (packet, fate) in &cases {
            assert_eq!(evaluate(&rulesets[0], packet).fate, *fate, "{packet:?}");
            // What is open goes on.
            let open = Packet {
                state: State::Established,
                ..packet.clone()
            };
            assert_eq!(evaluate(&rulesets[0], &open).fate, Fate::Direct, "{open:?}");
        }
    }
}

#[test]
fn what_completes_a_handshake_fares_as_what_opened_it() {
    let captured = Fate::Tproxy { port: 15006 };
    let from_outside = |port| packet(Origin::Remote, OTHER, OWN, port, "eth0");
    for rulesets in KINDS
        .into_iter()
        .flat_map(|kind| both(&planned(kind, SETTINGS[0])))
    {
        let fate = |packet: &Packet| evaluate(&rulesets[0], packet).fate;
        for (port, expected) in [(80, captured), (15020, Fate::Direct)] {
            let next = |state| Packet {
                state,
                ..from_outside(port)
            };
            assert_eq!(fate(&next(State::Stray)), expected);
            // What a socket has, or conntrack knows, goes on.
            assert_eq!(fate(&next(State::PickedUp)), Fate::Direct);
            assert_eq!(fate(&next(State::Passing)), Fate::Direct);
        }
    }
    // Conntrack remembers what opened them: from outside with it, and the proxy's calls of its own in either kind.
    for (kind, opening) in [
        ("on", from_outside(80)),
        ("on", packet(PROXY, OWN, OWN, 80, "lo")),
        ("off", packet(PROXY, OWN, OWN, 80, "lo")),
    ] {
        for rules in of_v4(&planned(kind, SETTINGS[0])) {
            let opened = evaluate(&rules, &opening);
            let completing = Packet {
                state: State::Passing,
                connection_mark: opened.connection_mark,
                ..opening.clone()
            };
            assert_eq!((opened.connection_mark, opened.fate), (1339, captured));
            assert_eq!(
                evaluate(&rules, &completing).fate,
                captured,
                "{kind}, {opening:?}"
            );
        }
    }
}

#[test]
fn the_applications_answers_are_led_to_the_proxy() {
    let sent = packet(IN_CLIENTS_NAME, OTHER, OWN, 80, "lo");
    let answer = |mark, connection_mark| Packet {
        state: State::Established,
        connection_mark,
        ..packet(of(1000, mark), OWN, OTHER, 40_000, "eth0")
    };
    for rules in of_v4(&planned("on", SETTINGS[0])) {
        // What the proxy sends in a client's name marks its connection, and the answers are routed by that.
        let sent = evaluate(&rules, &sent);
        assert_eq!(
            (sent.mark, sent.connection_mark, sent.is_tracked),
            (1337, 1337, true)
        );
        assert_eq!(evaluate(&rules, &answer(0, sent.connection_mark)).mark, 1337);
    }
    for rules in of_v4(&planned("off", SETTINGS[0])) {
        // The application's socket has the mark.
        let sent = evaluate(&rules, &sent);
        assert_eq!(
            (sent.mark, sent.connection_mark, sent.is_tracked),
            (1337, 0, false)
        );
        let answered = evaluate(&rules, &answer(1337, 0));
        assert_eq!((answered.mark, answered.is_tracked), (1337, false));
    }
}

#[test]
fn conntrack_sees_nothing_of_what_is_captured_and_all_of_the_rest() {
    let established = |packet| Packet {
        state: State::Established,
        ..packet
    };
    let to_proxy = |packet| Packet {
        transparent: true,
        ..established(packet)
    };
    let cases = [
        // The client's, and what the proxy answers.
        (packet(Origin::Remote, OTHER, OWN, 80, "eth0"), false),
        (to_proxy(packet(Origin::Remote, OTHER, OWN, 80, "eth0")), false),
        (
            established(packet(of(1337, 1339), OWN, OTHER, 40_000, "eth0")),
            false,
        ),
        // What is not captured, and answers to what was made here.
        (packet(Origin::Remote, OTHER, OWN, 15008, "eth0"), true),
        (packet(Origin::Remote, OTHER, OWN, 15020, "eth0"), true),
        (
            established(packet(Origin::Remote, OTHER, OWN, 40_000, "eth0")),
            true,
        ),
        (packet(APPLICATION, OWN, OTHER, 80, "eth0"), true),
        (packet(PROXY, OWN, OTHER, 80, "eth0"), true),
        (packet(APPLICATION, OWN, OWN, 80, "lo"), true),
        // The proxy's calls to its own workload, both ways.
        (packet(PROXY, OWN, OWN, 80, "lo"), true),
        (established(packet(of(1337, 1338), OWN, OWN, 40_000, "lo")), true),
        (
            Packet {
                protocol: IpProtocol::Udp,
                ..packet(Origin::Remote, OTHER, OWN, 80, "eth0")
            },
            true,
        ),
    ];
    for rules in of_v4(&planned("off", SETTINGS[0])) {
        for (packet, is_tracked) in &cases {
            assert_eq!(evaluate(&rules, packet).is_tracked, *is_tracked, "{packet:?}");
        }
    }
    for rules in of_v4(&planned("on", SETTINGS[0])) {
        for (packet, _) in &cases {
            assert!(evaluate(&rules, packet).is_tracked, "{packet:?}");
        }
    }
}

/// Of each kind that some rule could be about.
fn packets() -> Vec<Packet> {
    let mut all = vec![];
    for (own, other, loopback) in [(OWN, OTHER, "127.0.0.1"), ("fd00::1", "fd01::2", "::1")] {
        for port in [22, 80, 8080, 15008, 15020, 15021, 15090] {
            let by_group_alone = Origin::Socket {
                uid: 1000,
                gid: 1337,
                mark: 0,
            };
            let by_user_alone = Origin::Socket {
                uid: 1337,
                gid: 1000,
                mark: 0,
            };
            for origin in [
                APPLICATION,
                of(1000, 1337),
                PROXY,
                IN_CLIENTS_NAME,
                of(1337, 1339),
                by_user_alone,
                by_group_alone,
            ] {
                all.push(packet(origin, own, other, port, "eth0"));
                all.push(packet(origin, own, other, port, "eth1"));
                all.push(packet(origin, own, own, port, "lo"));
                all.push(packet(origin, loopback, loopback, port, "lo"));
            }
            all.push(packet(Origin::Remote, other, own, port, "eth0"));
            all.push(packet(Origin::Remote, other, own, port, "eth1"));
            all.push(packet(Origin::Remote, own, own, port, "eth0"));
        }
    }
    let in_state = |packet: &Packet, (state, connection_mark, transparent)| Packet {
        state,
        connection_mark,
        transparent,
        ..packet.clone()
    };
    let later = [
        (State::PickedUp, 0, false),
        (State::Established, 0, false),
        (State::Established, 1337, false),
        (State::Established, 0, true),
        (State::Established, 1339, true),
        (State::Invalid, 0, false),
    ];
    let of_no_socket = [
        (State::Stray, 0, false),
        (State::Passing, 0, false),
        (State::Passing, 1339, false),
    ];
    let arrives = |packet: &&Packet| packet.origin == Origin::Remote || packet.device == "lo";
    let more = all
        .iter()
        .flat_map(|packet| later.map(|state| in_state(packet, state)));
    let arriving = all.iter().filter(arrives);
    let arriving = arriving.flat_map(|packet| of_no_socket.map(|state| in_state(packet, state)));
    let more: Vec<_> = more.chain(arriving).collect();
    all.extend(more);
    all.push(Packet {
        protocol: IpProtocol::Udp,
        ..packet(Origin::Remote, OTHER, OWN, 80, "eth0")
    });
    all
}

#[test]
fn without_any_one_rule_some_packet_fares_otherwise() {
    for plan in all_plans() {
        for ruleset in both(&plan).concat() {
            check_each_rule(&ruleset);
        }
    }
}

fn check_each_rule(ruleset: &Ruleset) {
    let is_of = |packet: &Packet| Family::of(packet.source) == ruleset.family;
    let packets: Vec<_> = packets().into_iter().filter(is_of).collect();
    let fares = |ruleset: &Ruleset| -> Vec<_> {
        let verdicts = packets.iter().map(|packet| evaluate(ruleset, packet));
        verdicts
            .map(|verdict| {
                let marks = (verdict.mark, verdict.connection_mark);
                (verdict.fate, marks, verdict.is_tracked)
            })
            .collect()
    };
    let before = fares(ruleset);
    for (t, table) in ruleset.tables.iter().enumerate() {
        let decide = |(_, chain): &(usize, &Chain)| chain.name != asked::CHAIN;
        for (c, chain) in table.chains.iter().enumerate().filter(decide) {
            for (r, rule) in chain.rules.iter().enumerate() {
                let of_the_one_before = r.checked_sub(1).map(|before| &chain.rules[before].target);
                if matches!(of_the_one_before, Some(Target::Tproxy { .. })) && rule.target == Target::Drop {
                    // Decides where no proxy listens, which no packet tells.
                    continue;
                }
                let mut without = ruleset.clone();
                without.tables[t].chains[c].rules.remove(r);
                assert!(
                    fares(&without) != before,
                    "{}{rule} decides nothing in\n{ruleset}",
                    chain.name
                );
            }
        }
    }
}
