//! A file for people: it says what flags say, flags win, and mistakes have the names of fields.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot make its own data has failed"
)]

use rules::intent::Selection;
use rules::{Flags, Intent, config};
use serde_json::{Value, json};

fn intent(document: &Value, flags: &Flags) -> Intent {
    let mut flags = flags.clone();
    config::read(document, &mut flags).unwrap();
    flags.intent().unwrap()
}

fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

fn every_field() -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1",
        "kind": "Capture",
        "sidecar": true,
        "families": "both",
        "dropInvalid": true,
        "proxy": {"uids": [1337, 1338], "gids": 1337, "marks": ["0x539/0xfff"], "classIds": ["10:1", 7], "cgroups": ["/system.slice/a", "b"]},
        "outbound": {
            "port": 16001,
            "cidrs": ["10.0.0.0/8", "fd00::/8"],
            "excludeCidrs": "10.1.0.0/16",
            "ports": [80],
            "excludePorts": [22, 25],
            "groups": ["web"],
            "excludeGroups": [7],
            "loopbackCidr": "127.0.0.0/8",
        },
        "inbound": {
            "mode": "REDIRECT",
            "tproxyConntrack": false,
            "port": 16006,
            "tunnelPort": 16008,
            "ports": "*",
            "excludePorts": [15020],
            "excludeSources": ["169.254.7.127"],
        },
        "dns": {"capture": true, "allServers": true, "failClosed": true},
        "devices": {"exclude": ["eth1"], "virtualMachines": ["tap+"]},
    })
}

fn the_same_as_flags() -> Flags {
    Flags {
        sidecar: true,
        families: text("both"),
        drop_invalid: text("true"),
        proxy_uid: text("1337,1338"),
        proxy_gid: text("1337"),
        proxy_mark: text("0x539/0xfff"),
        proxy_class_id: text("10:1,7"),
        proxy_cgroup: text("/system.slice/a,b"),
        outbound_port: text("16001"),
        outbound_cidrs: text("10.0.0.0/8,fd00::/8"),
        outbound_exclude_cidrs: text("10.1.0.0/16"),
        outbound_ports: text("80"),
        outbound_exclude_ports: text("22,25"),
        owner_groups: text("web"),
        owner_groups_exclude: text("7"),
        loopback_cidr: text("127.0.0.0/8"),
        mode: text("REDIRECT"),
        tproxy_conntrack: text("off"),
        inbound_port: text("16006"),
        tunnel_port: text("16008"),
        inbound_ports: text("*"),
        inbound_exclude_ports: text("15020"),
        exclude_sources: text("169.254.7.127"),
        redirect_dns: text("true"),
        capture_all_dns: text("true"),
        dns_fail_closed: text("true"),
        exclude_interfaces: text("eth1"),
        kube_virt_interfaces: text("tap+"),
        ..known_groups()
    }
}

fn known_groups() -> Flags {
    Flags {
        groups: vec![("web".to_owned(), 33)],
        ..Flags::default()
    }
}

#[test]
fn every_field_stands_for_its_flag() {
    let asked = the_same_as_flags().intent().unwrap();
    assert_eq!(intent(&every_field(), &known_groups()), asked);
    assert_eq!(
        intent(&Value::Null, &known_groups()),
        Flags::default().intent().unwrap()
    );
    assert_eq!(
        intent(&json!({"outbound": null}), &known_groups()),
        Flags::default().intent().unwrap()
    );
    // A field without a value is as none; an empty list is a list.
    let groups = |value: Value| intent(&json!({"outbound": {"groups": value}}), &known_groups());
    assert_eq!(groups(Value::Null).outbound.groups, Selection::All);
    assert!(groups(json!([])).outbound.groups.is_none());
}

#[test]
fn a_flag_wins() {
    let flags = Flags {
        outbound_exclude_ports: text("99"),
        inbound_ports: text("80"),
        ..known_groups()
    };
    let found = intent(&every_field(), &flags);
    assert_eq!(found.outbound.exclude_ports, [99]);
    assert_eq!(found.inbound.ports, Selection::Only(vec![80]));
    assert_eq!(found.outbound.to_port, 16001);
}

#[test]
fn every_mistake_has_the_name_of_its_field() {
    let document = json!({
        "kind": "Service",
        "proxy": 7,
        "sidecar": "yes",
        "outbound": {"cidr": "10.0.0.0/8", "ports": {"80": true}},
        "extra": 1,
    });
    let mistakes = config::read(&document, &mut Flags::default()).unwrap_err();
    let fields: Vec<_> = mistakes.iter().map(|mistake| mistake.flag.as_str()).collect();
    assert_eq!(fields.len(), 6, "{fields:?}");
    for field in [
        "kind",
        "proxy",
        "sidecar",
        "outbound.cidr",
        "outbound.ports",
        "extra",
    ] {
        assert!(fields.contains(&field), "{field} is not in {fields:?}");
    }
    let told = mistakes
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n");
    assert!(told.contains("there are cidrs, excludeCidrs,"), "{told}");

    let mut flags = Flags {
        inbound_port: text("x"),
        ..Flags::default()
    };
    let document =
        json!({"outbound": {"excludePorts": ["ssh"]}, "inbound": {"port": 1, "excludePorts": [0]}});
    config::read(&document, &mut flags).unwrap();
    let mistakes = flags.intent().unwrap_err();
    let mut fields: Vec<_> = mistakes.iter().map(|mistake| mistake.flag.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "-z (--inbound-capture-port)",
            "inbound.excludePorts",
            "outbound.excludePorts"
        ]
    );
}
