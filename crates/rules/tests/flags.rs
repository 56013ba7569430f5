//! Flags to an intent: who the proxy is, what the preset means, what is refused.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot make its own data has failed"
)]

use rules::intent::{Place, Signs};
use rules::plan::Stack;
use rules::{Facts, Family, Flags, Intent, Proxy, Selection, SocketMark, plan, render};

fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

fn signs(flags: &Flags) -> Signs {
    match flags.intent().unwrap().proxy {
        Proxy::Inside(signs) => signs,
        Proxy::Outside { .. } => panic!("flags put the proxy inside"),
    }
}

#[test]
fn the_proxy_is_who_the_flags_say_and_else_1337() {
    let both = |uids: &[u32], gids: &[u32]| Signs {
        uids: uids.to_vec(),
        gids: gids.to_vec(),
        ..Signs::default()
    };
    let flags = Flags::default();
    assert_eq!(signs(&flags), both(&[1337], &[1337]));
    let flags = Flags {
        envoy_user: Some(101),
        ..Flags::default()
    };
    assert_eq!(signs(&flags), both(&[101], &[101]));
    let flags = Flags {
        proxy_uid: text("5,6,"),
        ..flags
    };
    assert_eq!(signs(&flags), both(&[5, 6], &[5, 6]));
    let flags = Flags {
        proxy_uid: text(""),
        proxy_gid: text("7"),
        ..Flags::default()
    };
    assert_eq!(signs(&flags), both(&[1337], &[7]));
}

#[test]
fn a_mark_alone_is_the_only_sign() {
    let flags = Flags {
        proxy_mark: text("0x539/0xfff,12"),
        ..Flags::default()
    };
    let marks = vec![
        SocketMark {
            value: 0x539,
            mask: 0xfff,
        },
        SocketMark::exact(12),
    ];
    let expected = Signs {
        marks: marks.clone(),
        ..Signs::default()
    };
    assert_eq!(signs(&flags), expected);
    let flags = Flags {
        proxy_uid: text("9"),
        ..flags
    };
    assert_eq!(signs(&flags).uids, [9]);
    assert_eq!(signs(&flags).marks, marks);
}

#[test]
fn the_preset_is_everything_and_a_flag_replaces_its_part() {
    let preset = Flags {
        sidecar: true,
        ..Flags::default()
    };
    let spelled_out = Flags {
        outbound_cidrs: text("*"),
        inbound_ports: text("*"),
        inbound_exclude_ports: text("15020,15021,15090"),
        ..Flags::default()
    };
    assert_eq!(preset.intent().unwrap(), spelled_out.intent().unwrap());
    let narrower = Flags {
        inbound_ports: text("80"),
        inbound_exclude_ports: text(""),
        ..preset
    };
    let intent = narrower.intent().unwrap();
    assert_eq!(intent.inbound.ports, Selection::Only(vec![80]));
    assert!(intent.inbound.exclude_ports.is_empty());
    assert_eq!(intent.outbound.cidrs, Selection::All);
}

fn sidecar() -> Intent {
    Flags {
        sidecar: true,
        ..Flags::default()
    }
    .intent()
    .unwrap()
}

#[test]
fn all_that_stands_against_a_plan_is_told_at_once() {
    let facts = Facts {
        ipv6: Stack::Uncapturable("ip6tables is not installed".to_owned()),
        physical_devices: vec!["eth0".to_owned()],
        ..Facts::fresh(&[Family::V4])
    };
    let mut intent = sidecar();
    intent.proxy = Proxy::Inside(Signs::default());
    let flags: Vec<_> = plan(&intent, &facts)
        .unwrap_err()
        .into_iter()
        .map(|mistake| mistake.flag)
        .collect();
    assert_eq!(
        flags,
        [
            "--host",
            "--proxy-uid, --proxy-gid, --proxy-mark, --proxy-class-id, --proxy-cgroup",
            "IPv6"
        ]
    );
    intent.place = Place::Host;
    assert_eq!(plan(&intent, &facts).unwrap_err().len(), 2);
}

#[test]
fn what_there_are_no_rules_for_is_refused_and_not_left_out() {
    let mut intent = sidecar();
    intent.uncarried = Intent::contained(vec![], None).uncarried;
    assert_eq!(plan(&intent, &Facts::fresh(&Family::ALL)).unwrap_err().len(), 1);
}

#[test]
fn a_flag_without_effect_is_noted() {
    let flags = Flags {
        inbound_ports: text("80,15008"),
        inbound_exclude_ports: text("80"),
        ..Flags::default()
    };
    let plan = plan(&flags.intent().unwrap(), &Facts::fresh(&Family::ALL)).unwrap();
    assert_eq!(plan.notes.len(), 2, "{:?}", plan.notes);
}

#[test]
fn groups_are_numbers_or_names_of_this_machine() {
    let flags = |include: &str, exclude: &str| Flags {
        owner_groups: Some(include.to_owned()),
        owner_groups_exclude: text(exclude),
        groups: vec![("web".to_owned(), 33)],
        ..Flags::default()
    };
    let outbound = flags("web,7", "").intent().unwrap().outbound;
    assert_eq!(outbound.groups, Selection::Only(vec![33, 7]));
    let outbound = flags("*", "8,web").intent().unwrap().outbound;
    assert_eq!(
        (outbound.groups, outbound.exclude_groups),
        (Selection::All, vec![8, 33])
    );
    // As with istio-iptables, an empty list is one without any group.
    let none = Flags {
        sidecar: true,
        inbound_ports: text(""),
        ..flags("", "")
    };
    assert!(none.intent().unwrap().captures_nothing());
    let all = Flags {
        owner_groups: None,
        ..none
    };
    assert!(!all.intent().unwrap().captures_nothing());
    let mistakes = flags("nobody,web", "*").intent().unwrap_err();
    let told: Vec<_> = mistakes.iter().map(|mistake| mistake.flag.as_str()).collect();
    assert_eq!(
        told,
        [
            "ISTIO_OUTBOUND_OWNER_GROUPS",
            "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"
        ]
    );
    let many: Vec<_> = (0..65).map(|group| group.to_string()).collect();
    assert_eq!(flags(&many.join(","), "").intent().unwrap_err().len(), 1);
}

#[test]
fn a_device_has_the_name_of_one() {
    for (name, fits) in [
        ("eth0", true),
        ("tap+", true),
        ("br-1.2@x", true),
        ("+", false),
        ("a b", false),
        ("eth0\"", false),
        ("e/0", false),
        ("sixteen-letters-", false),
    ] {
        let flags = Flags {
            exclude_interfaces: text(name),
            kube_virt_interfaces: text(name),
            ..Flags::default()
        };
        assert_eq!(
            flags.intent().map_or_else(|wrong| wrong.len(), |_| 0),
            if fits { 0 } else { 2 },
            "{name}"
        );
    }
}

#[test]
fn a_family_is_captured_as_asked_and_one_left_open_is_noted() {
    let planned = |families: &str, on: &[Family]| {
        let flags = Flags {
            sidecar: true,
            families: text(families),
            ..Flags::default()
        };
        let plan = plan(&flags.intent().unwrap(), &Facts::fresh(on)).unwrap();
        (plan.families, plan.passthrough_v6, plan.notes.len())
    };
    let [v4, v6] = Family::ALL;
    assert_eq!(planned("", &[v4]), (vec![v4], false, 0));
    assert_eq!(planned("", &[v4, v6]), (vec![v4, v6], true, 0));
    assert_eq!(planned("both", &[v4]), (vec![v4, v6], false, 0));
    assert_eq!(planned("ipv4", &[v4]), (vec![v4], false, 0));
    assert_eq!(planned("ipv4", &[v4, v6]), (vec![v4], false, 1));
    assert_eq!(planned("ipv6", &[v4, v6]), (vec![v6], true, 1));
}

#[test]
fn a_list_of_ten_thousand_is_planned_and_has_no_rule_twice() {
    let nets: Vec<_> = (0..10_000_u32)
        .map(|n| format!("10.{}.{}.0/24", n / 256 % 256, n % 256))
        .collect();
    let doubled = format!("{0},{0}", nets.join(","));
    let flags = Flags {
        outbound_cidrs: text(&doubled),
        ..Flags::default()
    };
    let plan = plan(&flags.intent().unwrap(), &Facts::fresh(&[Family::V4])).unwrap();
    let rules = &render(&plan)[0];
    let included = rules.purposes().filter(|purpose| *purpose == "included network");
    assert_eq!(included.count(), 10_000);
}

#[test]
fn each_port_leads_to_one_listener() {
    let with = |change: fn(&mut Flags)| {
        let mut flags = Flags {
            sidecar: true,
            ..Flags::default()
        };
        change(&mut flags);
        let mistakes = flags.intent().err().unwrap_or_default();
        mistakes.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        with(|flags| flags.inbound_port = Some("15001".to_owned())),
        ["-z (--inbound-capture-port): 15001 is the port of -p (--envoy-port) already; give another one"]
    );
    assert_eq!(
        with(|flags| {
            flags.outbound_port = Some("15008".to_owned());
            flags.inbound_port = Some("15020".to_owned());
        }),
        [
            "-z (--inbound-capture-port): at 15020 the proxy serves its metrics; give another port",
            "-e (--inbound-tunnel-port): 15008 is the port of -p (--envoy-port) already; give another one",
        ]
    );
    assert!(with(|flags| flags.outbound_port = Some("16001".to_owned())).is_empty());
}
