//! Packets through rule sets of others: policies, jumps, marks, and what is not known.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot make its own data has failed"
)]

use rules::ruleset::IpProtocol;
use rules::{Family, Fate, Intent, Origin, Packet, SocketMark, State, evaluate, parse, plan, render};

const APP: Origin = Origin::Socket {
    uid: 1000,
    gid: 1000,
    mark: 0,
};

fn packet(origin: Origin, protocol: IpProtocol, destination: &str, port: u16) -> Packet {
    let device = if destination.starts_with("127.") {
        "lo"
    } else {
        "eth0"
    };
    Packet {
        origin,
        protocol,
        source: "10.0.0.1".parse().unwrap(),
        source_port: 40_000,
        destination: destination.parse().unwrap(),
        destination_port: port,
        device: device.to_owned(),
        state: State::New,
        connection_mark: 0,
        transparent: false,
        dns_answers: true,
    }
}

/// The fate of an application's connection to 192.0.2.1:80, and the deciding rule's number.
fn fate(dump: &str) -> (Fate, Option<(String, usize)>) {
    let ruleset = parse(Family::V4, dump).unwrap();
    let verdict = evaluate(&ruleset, &packet(APP, IpProtocol::Tcp, "192.0.2.1", 80));
    let decided = verdict.decided_by().map(|step| (step.chain.clone(), step.number));
    (verdict.fate, decided)
}

fn by(chain: &str, number: usize) -> Option<(String, usize)> {
    Some((chain.to_owned(), number))
}

#[test]
fn no_rule_is_direct_and_a_policy_drops() {
    assert_eq!(fate(""), (Fate::Direct, None));
    assert_eq!(fate("*filter\n:OUTPUT DROP [0:0]\nCOMMIT\n"), (Fate::Drop, None));
}

#[test]
fn a_jump_comes_back_and_a_goto_does_not() {
    let dump = |how: &str| {
        format!(
            "*nat\n:OUTPUT ACCEPT [0:0]\n:A - [0:0]\n:B - [0:0]\n-A OUTPUT -j A\n-A OUTPUT -p tcp -j REDIRECT --to-ports 1\n\
             -A A {how} B\n-A A -p tcp -j REDIRECT --to-ports 2\n-A B -p udp -j DROP\nCOMMIT\n"
        )
    };
    assert_eq!(fate(&dump("-j")), (Fate::Redirect { port: 2 }, by("A", 2)));
    assert_eq!(fate(&dump("-g")), (Fate::Redirect { port: 1 }, by("OUTPUT", 2)));
}

#[test]
fn what_is_not_known_is_said_and_not_guessed() {
    let nat = |rule: &str| {
        format!(
            "*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT {rule}\n-A OUTPUT -p tcp -j REDIRECT --to-ports 15001\nCOMMIT\n"
        )
    };
    let redirected = (Fate::Redirect { port: 15001 }, by("OUTPUT", 2));
    for (rule, known) in [
        ("-m set --match-set x dst -j RETURN", false),
        ("-m set --match-set x dst -j LOG", true),
        ("-p udp -m set --match-set x dst -j RETURN", true),
        ("-p tcp -j DNAT --to-destination 10.0.0.9:80-90", false),
        ("-d 10.0.0.0/8 -p tcp -j DNAT --to-destination 10.0.0.9:80", true),
        ("-m limit --limit 3/min", true),
        ("-p tcp -j LOG --log-prefix \"a b\"", true),
        ("-m conntrack --ctstate DNAT -j RETURN", true),
        ("-m conntrack --ctstate SOMETHING -j RETURN", false),
        ("-m recent --name x --rcheck -j RETURN", false),
        ("-p udp -m addrtype --dst-type LOCAL -j RETURN", true),
        ("-m addrtype --dst-type LOCAL --limit-iface-in -j RETURN", false),
        ("-m conntrack --ctstate ESTABLISHED,RELATED -j RETURN", true),
        ("! -d 192.0.2.0/24 -j RETURN", true),
        ("-p tcp -j NFQUEUE --queue-num 1", false),
    ] {
        let unknown = (Fate::Unknown, by("OUTPUT", 1));
        let expected = if known { &redirected } else { &unknown };
        assert_eq!(fate(&nat(rule)), *expected, "{rule}");
    }
}

#[test]
fn a_mark_that_a_rule_sets_is_seen_by_the_next() {
    let dump = |mark: &str| {
        format!(
            "*mangle\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p tcp -j MARK --set-xmark {mark}\nCOMMIT\n\
             *nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -m mark --mark 0x5/0xf -j RETURN\n-A OUTPUT -p tcp -j REDIRECT --to-ports 1\nCOMMIT\n"
        )
    };
    assert_eq!(fate(&dump("0x25/0xffffffff")), (Fate::Direct, by("OUTPUT", 1)));
    assert_eq!(
        fate(&dump("0x6/0xff")),
        (Fate::Redirect { port: 1 }, by("OUTPUT", 2))
    );
}

#[test]
fn a_filter_sees_a_redirected_packet_at_its_new_address() {
    let dump = |filter: &str| {
        format!(
            "*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p tcp -j REDIRECT --to-ports 15001\nCOMMIT\n\
             *filter\n:OUTPUT ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n-A {filter}\nCOMMIT\n"
        )
    };
    let redirected = (Fate::Redirect { port: 15001 }, by("OUTPUT", 1));
    assert_eq!(fate(&dump("OUTPUT -d 192.0.2.1/32 -j DROP")), redirected);
    assert_eq!(fate(&dump("OUTPUT -p tcp -m tcp --dport 80 -j DROP")), redirected);
    // Something that lets it pass afterwards did not decide.
    assert_eq!(fate(&dump("OUTPUT -d 127.0.0.0/8 -j ACCEPT")), redirected);
    assert_eq!(
        fate(&dump(
            "OUTPUT -d 127.0.0.0/8 -o eth+ -j REJECT --reject-with tcp-reset"
        )),
        (Fate::Reject, by("OUTPUT", 1))
    );
    assert_eq!(
        fate(&dump("INPUT -i lo -p tcp -m tcp --dport 15001 -j DROP")),
        (Fate::Drop, by("INPUT", 1))
    );
}

#[test]
fn the_path_names_each_rule_with_its_purpose() {
    let intent = Intent::contained(vec![], None);
    let ruleset = &render(&plan(&intent, &rules::Facts::fresh(&[Family::V4])).unwrap())[0];
    let verdict = evaluate(ruleset, &packet(APP, IpProtocol::Udp, "8.8.8.8", 53));
    let path: Vec<_> = verdict.path.iter().map(ToString::to_string).collect();
    assert_eq!(
        path[..2],
        [
            "nat OUTPUT 1: -m comment --comment \"weir: connections made here\" -j WEIR_OUTPUT",
            "nat WEIR_OUTPUT 1: -p udp -m udp --dport 53 -m comment --comment \"weir: DNS\" -j REDIRECT --to-ports 15053",
        ]
    );
    assert_eq!(verdict.decided_by().unwrap().purpose(), "DNS");
}

#[test]
fn a_contained_command_reaches_what_can_be_carried_and_nothing_else() {
    let own = vec!["100.64.0.2".parse().unwrap()];
    let mut intent = Intent::contained(own, Some(SocketMark::exact(7)));
    intent.outbound.lent = vec![
        ("127.0.0.0/8".parse().unwrap(), 5432),
        ("127.0.0.53/32".parse().unwrap(), 5355),
        ("::1/128".parse().unwrap(), 80),
    ];
    let ruleset = &render(&plan(&intent, &rules::Facts::fresh(&[Family::V4])).unwrap())[0];
    let marked = Origin::Socket {
        uid: 0,
        gid: 0,
        mark: 7,
    };
    let (tcp, udp, sctp, icmp) = (
        IpProtocol::Tcp,
        IpProtocol::Udp,
        IpProtocol::Sctp,
        IpProtocol::Icmp,
    );
    let to = |port| Fate::Redirect { port };
    for (origin, protocol, destination, port, expected) in [
        (APP, tcp, "192.0.2.1", 80, to(15001)),
        (APP, tcp, "192.0.2.1", 53, to(15053)),
        (APP, udp, "127.0.0.53", 53, to(15053)),
        (APP, udp, "192.0.2.1", 53, to(15053)),
        (APP, udp, "192.0.2.1", 123, Fate::Reject),
        (APP, icmp, "192.0.2.1", 0, Fate::Reject),
        (APP, sctp, "192.0.2.1", 80, Fate::Reject),
        (APP, tcp, "127.0.0.1", 80, Fate::Direct),
        (APP, udp, "127.0.0.1", 80, Fate::Direct),
        (APP, tcp, "100.64.0.2", 80, Fate::Direct),
        (APP, icmp, "100.64.0.2", 0, Fate::Direct),
        (marked, tcp, "192.0.2.1", 80, Fate::Direct),
        (marked, udp, "192.0.2.1", 123, Fate::Direct),
        // The proxy's call to its own workload comes in by the inbound listener; the leg from there does not.
        (marked, tcp, "100.64.0.2", 8080, to(15006)),
        (marked, tcp, "127.0.0.1", 8080, Fate::Direct),
        // Of loopback, exactly what the caller's has too; and the proxy's try inside stays there.
        (APP, tcp, "127.1.2.3", 5432, to(15001)),
        (APP, tcp, "127.0.0.53", 5355, to(15001)),
        (APP, tcp, "127.0.0.1", 5355, Fate::Direct),
        (APP, udp, "127.0.0.1", 5432, Fate::Direct),
        (marked, tcp, "127.0.0.1", 5432, Fate::Direct),
    ] {
        let mut packet = packet(origin, protocol, destination, port);
        if destination == "100.64.0.2" {
            packet.device = String::from("lo");
        }
        assert_eq!(evaluate(ruleset, &packet).fate, expected, "{packet:?}");
    }
}

#[test]
fn what_conntrack_leaves_alone_is_never_translated_and_has_no_mark_to_remember() {
    let dump = |raw: &str| {
        format!(
            "*raw\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT {raw} -j CT --notrack\nCOMMIT\n\
             *mangle\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p tcp -j MARK --set-xmark 0x7/0xffffffff\n\
             -A OUTPUT -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff\n\
             -A OUTPUT -m connmark ! --mark 0x9 -j MARK --set-xmark 0x8/0xffffffff\nCOMMIT\n\
             *nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p tcp -j REDIRECT --to-ports 1\nCOMMIT\n\
             *filter\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -m conntrack --ctstate UNTRACKED -j DROP\nCOMMIT\n"
        )
    };
    let verdict = |raw: &str, transparent| {
        let ruleset = parse(Family::V4, &dump(raw)).unwrap();
        let packet = Packet {
            transparent,
            ..packet(APP, IpProtocol::Tcp, "192.0.2.1", 80)
        };
        let verdict = evaluate(&ruleset, &packet);
        let marks = (verdict.mark, verdict.connection_mark);
        (verdict.fate, verdict.is_tracked, marks)
    };
    let tracked = (Fate::Redirect { port: 1 }, true, (8, 7));
    let untracked = (Fate::Drop, false, (7, 0));
    assert_eq!(verdict("-p udp", false), tracked);
    assert_eq!(verdict("-p tcp", false), untracked);
    assert_eq!(verdict("-p tcp -m socket --transparent", false), tracked);
    assert_eq!(verdict("-p tcp -m socket --transparent", true), untracked);
    assert_eq!(verdict("-p tcp -m socket --nowildcard", true).0, Fate::Unknown);
}
