//! DNS capture: the rules, the way back from their text, and what the flags say.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot make its own data has failed"
)]

use rules::intent::{Dns, WithoutProxy};
use rules::nft::{self, TableFamily};
use rules::plan::Facts;
use rules::ruleset::Target;
use rules::{Family, Flags, Intent, Plan, Selection, SocketMark, plan};

fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

fn flags() -> Flags {
    Flags {
        sidecar: true,
        redirect_dns: text("true"),
        dns_servers: ["10.96.0.10", "fd00:96::10", "10.96.0.10"]
            .map(|server| server.parse().unwrap())
            .to_vec(),
        resolv_conf: "/etc/resolv.conf".to_owned(),
        ..Flags::default()
    }
}

fn planned(flags: &Flags) -> Plan {
    plan(&flags.intent().unwrap(), &Facts::fresh(&Family::ALL)).unwrap()
}

/// Of that table, the rules whose purposes are about DNS.
fn about_dns(text: &str) -> String {
    let lines = text.lines().filter(|line| line.contains("DNS"));
    lines.fold(String::new(), |all, line| all + line.trim() + "\n")
}

#[test]
fn the_rules_of_both_languages() {
    let plan = planned(&flags());
    let by_iptables = rules::render(&plan);
    assert_eq!(
        about_dns(&by_iptables[1].to_string()),
        r#"-A WEIR_OUTPUT -d fd00:96::10/128 -p udp -m udp --dport 53 -m mark --mark 0x57454952 -m comment --comment "weir: DNS" -j REDIRECT --to-ports 15053
-A WEIR_OUTPUT -d fd00:96::10/128 -p tcp -m tcp --dport 53 -m recent --rcheck --seconds 3 --name WEIR_DNS --mask :: --rsource -m comment --comment "weir: DNS" -j REDIRECT --to-ports 15053
-A WEIR_OUTPUT -d fd00:96::10/128 -p tcp -m tcp --dport 53 -m comment --comment "weir: DNS without its proxy" -j RETURN
-A WEIR_OUTPUT -d ::1/128 -p udp -m udp --dport 15053 -m owner --uid-owner 1337 -m comment --comment "weir: the DNS proxy lives" -m recent --set --name WEIR_DNS --mask :: --rsource
-A WEIR_OUTPUT -d ::1/128 -p udp -m udp --dport 15053 -m owner --gid-owner 1337 -m comment --comment "weir: the DNS proxy lives" -m recent --set --name WEIR_DNS --mask :: --rsource
-A WEIR_OUTPUT -s ::1/128 -p udp -m udp --sport 15053 -m comment --comment "weir: answer of the DNS proxy" -j CT --zone 2
-A WEIR_OUTPUT -d fd00:96::10/128 -p udp -m udp --dport 53 -m recent --rcheck --seconds 3 --name WEIR_DNS --mask :: --rsource -m comment --comment "weir: DNS" -j MARK --set-xmark 0x57454952/0xffffffff
-A WEIR_OUTPUT -p udp -m mark --mark 0x57454952 -m comment --comment "weir: DNS" -j CT --zone 2
"#
    );
    let all = Flags {
        capture_all_dns: text("true"),
        ..flags()
    };
    let by_nft = nft::transaction(&[], &nft::render(&planned(&all)), true);
    assert_eq!(
        about_dns(&by_nft),
        r#"ip6 daddr fe80::/10 tcp dport 53 counter return comment "weir: DNS of one link"
udp dport 53 ct zone 2 counter redirect to :15053 comment "weir: DNS"
tcp dport 53 meta nfproto @dns-answers counter redirect to :15053 comment "weir: DNS"
tcp dport 53 counter return comment "weir: DNS without its proxy"
ip daddr 127.0.0.1 udp dport 15053 meta skuid 1337 counter update @dns-answers { meta nfproto timeout 3s } comment "weir: the DNS proxy lives"
ip6 daddr ::1 udp dport 15053 meta skuid 1337 counter update @dns-answers { meta nfproto timeout 3s } comment "weir: the DNS proxy lives"
ip daddr 127.0.0.1 udp dport 15053 meta skgid 1337 counter update @dns-answers { meta nfproto timeout 3s } comment "weir: the DNS proxy lives"
ip6 daddr ::1 udp dport 15053 meta skgid 1337 counter update @dns-answers { meta nfproto timeout 3s } comment "weir: the DNS proxy lives"
ip saddr 127.0.0.1 udp sport 15053 counter ct zone set 2 comment "weir: answer of the DNS proxy"
ip6 saddr ::1 udp sport 15053 counter ct zone set 2 comment "weir: answer of the DNS proxy"
ip6 daddr fe80::/10 meta l4proto udp counter return comment "weir: DNS of one link"
udp dport 53 meta nfproto @dns-answers counter ct zone set 2 comment "weir: DNS"
"#
    );
    assert!(by_nft.contains("set dns-answers {\n\t\ttype nf_proto; flags dynamic,timeout;\n\t}"));
}

#[test]
fn a_server_of_one_link_is_left_alone() {
    let with = |servers: &[&str]| Flags {
        dns_servers: servers.iter().map(|server| server.parse().unwrap()).collect(),
        ..flags()
    };
    let plan = planned(&with(&["fe80::53", "10.96.0.10"]));
    assert!(
        plan.notes.iter().any(|note| note.contains("fe80::53")),
        "{:?}",
        plan.notes
    );
    let six = rules::render(&plan)[1].to_string();
    assert!(!six.contains("--to-ports 15053"), "{six}");
    assert!(six.contains("-d fe80::53/128 -p tcp -m tcp --dport 53 -m comment --comment \"weir: DNS of one link\" -j RETURN"), "{six}");
    let mistakes = with(&["fe80::53"]).intent().unwrap_err();
    assert!(mistakes[0].to_string().contains("fe80::/10"), "{}", mistakes[0]);
    let all = Flags {
        capture_all_dns: text("1"),
        ..with(&["fe80::53"])
    };
    let six = rules::render(&planned(&all))[1].to_string();
    for protocol in ["udp", "tcp -m tcp --dport 53"] {
        let line =
            format!("-d fe80::/10 -p {protocol} -m comment --comment \"weir: DNS of one link\" -j RETURN");
        assert!(six.contains(&line), "{line}: {six}");
    }
}

#[test]
fn the_text_of_the_rules_is_read_as_the_rules() {
    let change: [fn(&mut Flags); 5] = [
        |flags| flags.dns_servers.push("fe80::53".parse().unwrap()),
        |_| {},
        |flags| flags.capture_all_dns = text("1"),
        |flags| flags.dns_fail_closed = text("true"),
        |flags| flags.proxy_mark = text("0x539"),
    ];
    for change in change {
        let mut flags = flags();
        change(&mut flags);
        let plan = planned(&flags);
        for ruleset in rules::render(&plan) {
            assert_eq!(
                rules::parse(ruleset.family, &ruleset.to_string()).unwrap(),
                ruleset
            );
        }
        let wanted = nft::render(&plan);
        for inet in [true, false] {
            let text = nft::transaction(&[TableFamily::Inet], &wanted, inet);
            assert_eq!(nft::parse(&text), wanted, "{text}");
            // As it is listed, with what the kernel has remembered.
            let listed = text.replace(
                "flags dynamic,timeout;",
                "\n\t\tsize 65535\n\t\tflags dynamic,timeout\n\t\telements = { ipv4 timeout 3s expires 2s992ms,\n\t\t\t     ipv6 timeout 3s expires 1s }",
            );
            assert_eq!(nft::parse(&listed), wanted, "{listed}");
        }
    }
}

#[test]
fn the_mark_of_what_is_captured_is_no_sign_of_the_proxy() {
    for sign in [
        "0x57454952",
        "0x2/0x2",
        "0x40000000/0x40000000",
        "0xa8bab6ad",
        "0x0/0x1",
    ] {
        let flags = Flags {
            proxy_mark: text(sign),
            ..flags()
        };
        let sign: SocketMark = sign.parse().unwrap();
        for ruleset in rules::render(&planned(&flags)) {
            let rules = ruleset
                .tables
                .iter()
                .flat_map(|table| &table.chains)
                .flat_map(|chain| &chain.rules);
            let marks: Vec<u32> = rules
                .filter_map(|rule| match rule.target {
                    Target::Mark(mark) => Some(mark),
                    _ => None,
                })
                .collect();
            assert!(
                !marks.is_empty() && marks.iter().all(|mark| !sign.matches(*mark)),
                "{sign}: {marks:x?}"
            );
        }
    }
}

#[test]
fn signs_of_life_are_taken_over() {
    let wanted = nft::render(&planned(&flags()));
    let listing = |elements: &str| {
        format!(
            "table inet weir {{\n\tset other {{\n\t\telements = {{ ipv4 timeout 3s expires 2s }}\n\t}}\n\tset dns-answers {{\n\t\ttype nf_proto\n\t\tflags dynamic,timeout\n\t\telements = {{ {elements} }}\n\t}}\n}}\n"
        )
    };
    for (elements, taken) in [
        (
            "ipv4 timeout 3s expires 2s992ms,\n\t\t\t     ipv6 timeout 3s expires 1s",
            "ipv4 timeout 3s expires 2s992ms, ipv6 timeout 3s expires 1s",
        ),
        (
            "ipv6 timeout 3s expires 992ms, ipv4 timeout 3s expires 0s",
            "ipv6 timeout 3s expires 992ms",
        ),
    ] {
        let signs = nft::signs(&listing(elements));
        let text = nft::replacement(&[TableFamily::Inet], &signs, &wanted, true);
        let line = format!("flags dynamic,timeout;\n\t\telements = {{ {taken} }}\n");
        assert!(text.contains(&line), "{line} is not in {text}");
        assert_eq!(nft::parse(&text), wanted);
        // A table of one family takes its own.
        let apart = nft::replacement(&[], &signs, &wanted, false);
        assert_eq!(apart.matches("elements = { ipv").count(), signs.len(), "{apart}");
    }
    assert_eq!(nft::signs(&listing("ipv4 timeout 3s")), []);
    assert_eq!(nft::signs(&listing("ipv4 timeout 3s expires 1h")), []);
}

#[test]
fn what_the_flags_say() {
    let dns = |flags: &Flags| flags.intent().unwrap().dns;
    assert_eq!(dns(&Flags::default()), None);
    let wanted = |servers, without_proxy| {
        Some(Dns {
            servers,
            to_port: 15053,
            without_proxy,
        })
    };
    let listed = Selection::Only(flags().dns_servers);
    assert_eq!(dns(&flags()), wanted(listed.clone(), WithoutProxy::Direct));
    let mut changed = flags();
    changed.dns_fail_closed = text("true");
    assert_eq!(dns(&changed), wanted(listed, WithoutProxy::Fail));
    changed.dns_servers = vec![];
    let mistakes = changed.intent().unwrap_err();
    assert!(
        mistakes[0]
            .to_string()
            .starts_with("--redirect-dns: /etc/resolv.conf names no DNS server"),
        "{}",
        mistakes[0]
    );
    changed.capture_all_dns = text("true");
    assert_eq!(dns(&changed), wanted(Selection::All, WithoutProxy::Fail));
    changed.redirect_dns = None;
    assert_eq!(dns(&changed), None, "capture-all-dns alone asks for nothing");
    changed.redirect_dns = text("perhaps");
    assert_eq!(changed.intent().unwrap_err().len(), 1);
}

#[test]
fn an_excluded_port_53_switches_it_off() {
    let off = Flags {
        redirect_dns: None,
        outbound_exclude_ports: text("53"),
        ..flags()
    };
    let on = Flags {
        redirect_dns: text("true"),
        ..off.clone()
    };
    let (mut on, mut off) = (planned(&on), planned(&off));
    assert_eq!(on.notes.len(), 1, "{:?}", on.notes);
    // What was asked for is kept with the rules, and differs.
    for plan in [&mut on, &mut off] {
        plan.asked = None;
    }
    assert_eq!(rules::render(&on), rules::render(&off));
    let alone = Flags {
        outbound_exclude_ports: text("53"),
        sidecar: false,
        ..flags()
    };
    assert!(alone.intent().unwrap().captures_nothing());
}

#[test]
fn a_contained_command_has_it_without_condition() {
    let plan = plan(&Intent::contained(vec![], None), &Facts::fresh(&Family::ALL)).unwrap();
    assert!(plan.tracking_sending.is_empty());
    let text = rules::render(&plan)[0].to_string();
    assert!(!text.contains("recent") && text.contains("--dport 53"), "{text}");
}
