//! Cgroups as signs of the proxy: what is written for them, what is read back, what a packet of such a process
//! meets, and what is refused.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot make its own data has failed"
)]

use rules::cgroup::Membership;
use rules::evaluate::evaluate_from;
use rules::ruleset::IpProtocol;
use rules::{Facts, Family, Fate, Flags, Origin, Packet, Ruleset, State, nft, parse, plan, render};

const PATH: &str = "system.slice/a@b\\x2dc.service";

fn flags(class_ids: &str, cgroups: &str) -> Flags {
    let given = |text: &str| Some(text.to_owned());
    Flags {
        sidecar: true,
        proxy_class_id: given(class_ids),
        proxy_cgroup: given(cgroups),
        ..Flags::default()
    }
}

fn facts(ids: &[(&str, u64)]) -> Facts {
    let mut facts = Facts::fresh(&[Family::V4]);
    let ids = ids.iter().map(|(path, id)| (path.parse().unwrap(), Ok(*id)));
    facts.cgroups.ids = ids.collect();
    facts
}

fn planned(flags: &Flags, facts: &Facts) -> rules::Plan {
    plan(&flags.intent().unwrap(), facts).unwrap()
}

/// The rules of the chain that are about the proxy.
fn lines(text: &str) -> Vec<&str> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| line.contains("made by the proxy")).collect()
}

#[test]
fn iptables_has_a_rule_for_each() {
    let plan = planned(&flags("10:1,10:2", PATH), &facts(&[(PATH, 44)]));
    let wanted = render(&plan);
    let text = wanted[0].to_string();
    assert_eq!(
        lines(&text),
        [
            "-A WEIR_OUTPUT -m cgroup --cgroup 1048577 -m comment --comment \"weir: made by the proxy\" -j RETURN",
            "-A WEIR_OUTPUT -m cgroup --cgroup 1048578 -m comment --comment \"weir: made by the proxy\" -j RETURN",
            "-A WEIR_OUTPUT -m cgroup --path \"system.slice/a@b\\\\x2dc.service\" -m comment --comment \
             \"weir: made by the proxy; cgroup 44\" -j RETURN",
        ]
    );
    assert_eq!(parse(Family::V4, &text).unwrap(), wanted[0]);
}

#[test]
fn nftables_has_a_set_of_class_ids_and_names_the_depth() {
    let plan = planned(&flags("10:1,10:2,0x20", PATH), &facts(&[(PATH, 44)]));
    let wanted = nft::render(&plan);
    let text = nft::transaction(&[], &wanted, true);
    assert_eq!(
        lines(&text),
        [
            "meta cgroup { 32, 1048577-1048578 } counter return comment \"weir: made by the proxy\"",
            "socket cgroupv2 level 2 \"system.slice/a@b\\x2dc.service\" counter return comment \
             \"weir: made by the proxy; cgroup 44\"",
        ]
    );
    assert_eq!(nft::parse(&text), wanted);
    // A cgroup that is gone is listed by its number: that is another rule, even where the number is a name.
    let gone = text.replace(&format!("\"{PATH}\""), "44");
    assert_ne!(nft::parse(&gone), wanted);
    let elsewhere = text.replace("level 2", "level 3");
    assert_ne!(nft::parse(&elsewhere), wanted);
}

#[test]
fn a_cgroup_made_anew_is_another_rule_in_every_dialect() {
    let of = |id| planned(&flags("", PATH), &facts(&[(PATH, id)]));
    assert_ne!(render(&of(44)), render(&of(45)));
    assert_ne!(nft::render(&of(44)), nft::render(&of(45)));
}

fn fate(held: &Ruleset, class_id: u32, path: &str) -> Fate {
    let packet = Packet {
        origin: Origin::Socket {
            uid: 1337,
            gid: 1337,
            mark: 0,
        },
        protocol: IpProtocol::Tcp,
        source: "10.0.0.1".parse().unwrap(),
        source_port: 40_000,
        destination: "192.0.2.1".parse().unwrap(),
        destination_port: 80,
        device: "eth0".to_owned(),
        state: State::New,
        connection_mark: 0,
        transparent: false,
        dns_answers: true,
    };
    assert_eq!(rules::evaluate(held, &packet).fate, Fate::Unknown);
    let of = Membership {
        class_id: Some(class_id),
        path: Some(path.to_owned()),
    };
    evaluate_from(held, &packet, &of).fate
}

#[test]
fn who_is_in_it_or_below_it_is_the_proxy_and_ids_count_no_more() {
    let plan = planned(&flags("10:1,10:2", "a/b"), &facts(&[("a/b", 44)]));
    let captured = Fate::Redirect { port: 15001 };
    for held in [&render(&plan)[0], &nft::render(&plan)[0]] {
        assert_eq!(fate(held, 0, "/"), captured, "as 1337 in no cgroup");
        assert_eq!(fate(held, 0x10_0002, "/"), Fate::Direct);
        assert_eq!(fate(held, 0x10_0003, "/a"), captured);
        assert_eq!(fate(held, 0, "/a/b"), Fate::Direct);
        assert_eq!(fate(held, 0, "/a/b/c"), Fate::Direct);
        assert_eq!(fate(held, 0, "/a/bc"), captured);
    }
}

#[test]
fn mistakes_of_the_text_are_told_at_once_and_so_are_those_of_the_machine() {
    let mistakes = flags("0,zebra", "..").intent().unwrap_err();
    let said: Vec<_> = mistakes.iter().map(|mistake| mistake.flag.as_str()).collect();
    assert_eq!(said, ["--proxy-class-id", "--proxy-class-id", "--proxy-cgroup"]);

    let mut facts = facts(&[("a", 44)]);
    facts.cgroups.without_classes = Some("net_cls is not mounted".to_owned());
    let missing = Err("there is no such cgroup".to_owned());
    facts.cgroups.ids.insert("b".parse().unwrap(), missing);
    let mistakes = plan(&flags("7", "a,b,c").intent().unwrap(), &facts).unwrap_err();
    let said: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "--proxy-class-id: net_cls is not mounted",
            "--proxy-cgroup: b: there is no such cgroup",
            "--proxy-cgroup: c: nobody has looked whether it is there",
        ]
    );
}
