//! Rules and routes of others.

use anyhow::{Context, Result};
use e2e::manifests::Manifests;
use e2e::weir::Sidecar;

use crate::stage::Stage;

/// What is planted, by a shell; arguments of check; what it must name.
type Plant = (&'static str, &'static str, &'static [&'static str]);

const RULES: [Plant; 14] = [
    // What was captured is dropped on its way to the proxy.
    (
        "iptables-nft -A OUTPUT -p tcp --dport 15001 -j DROP",
        "",
        &["error WEIR-FOREIGN-RULE iptables-nft filter OUTPUT rule 1"],
    ),
    // Others take a part of the traffic before Weir does.
    (
        "iptables-nft -t nat -A OUTPUT -d 10.9.0.0/16 -j RETURN",
        "",
        &["error WEIR-FOREIGN-RULE iptables-nft nat OUTPUT rule 1"],
    ),
    (
        "ip6tables-nft -t nat -A OUTPUT -p tcp --dport 80 -j REDIRECT --to-ports 3128",
        "",
        &["error WEIR-FOREIGN-RULE ip6tables-nft nat OUTPUT rule 1"],
    ),
    (
        "iptables-legacy -t nat -A PREROUTING -p tcp --dport 8080 -j REDIRECT --to-ports 9090",
        "",
        &["error WEIR-FOREIGN-RULE iptables-legacy nat PREROUTING rule 1"],
    ),
    // A firewall that knows nothing of the proxy.
    (
        "nft 'table inet fw { chain in { type filter hook input priority 0; policy drop; iif eth0 tcp dport 8080 accept; }; }'",
        "",
        &["error WEIR-FOREIGN-RULE nft inet fw in"],
    ),
    (
        "nft 'table ip fw { chain in { type filter hook input priority 0; tcp dport 15006 reject; }; }'",
        "",
        &["error WEIR-FOREIGN-RULE nft ip fw in rule 1"],
    ),
    // A packet that is redirected as it is made is still seen as leaving by eth0.
    (
        "nft 'table inet fw { chain out { type filter hook output priority 0; policy drop; oif lo accept; ip daddr 10.0.0.0/8 accept; }; }'",
        "",
        &["error WEIR-FOREIGN-RULE nft inet fw out"],
    ),
    // The proxy itself cannot get out, or its health cannot be asked for.
    (
        "iptables-nft -A OUTPUT -o eth0 -m owner --uid-owner 1337 -j REJECT",
        "",
        &["error WEIR-FOREIGN-RULE iptables-nft filter OUTPUT rule 1"],
    ),
    (
        "iptables-nft -A INPUT -p tcp --dport 15021 -j DROP",
        "",
        &["error WEIR-FOREIGN-RULE iptables-nft filter INPUT rule 1"],
    ),
    (
        "iptables-nft -A OUTPUT -p udp --dport 15053 -j REJECT",
        "-- --sidecar --redirect-dns --capture-all-dns",
        &["error WEIR-FOREIGN-RULE iptables-nft filter OUTPUT rule 1"],
    ),
    // Nobody can say, and so it is not guessed.
    (
        "nft 'table ip fw { chain out { type filter hook output priority 0; tcp dport 15001 limit rate over 9/second drop; }; }'",
        "",
        &["warning WEIR-RULE-UNKNOWN nft ip fw out rule 1"],
    ),
    // Other meshes.
    (
        "iptables-nft -t nat -N ISTIO_OUTPUT
         iptables-nft -t nat -A ISTIO_OUTPUT -p tcp -j REDIRECT --to-ports 15001
         iptables-nft -t nat -A OUTPUT -p tcp -j ISTIO_OUTPUT",
        "",
        &["error WEIR-OTHER-MESH Istio has rules here"],
    ),
    (
        "iptables-legacy -t nat -N PROXY_INIT_REDIRECT",
        "",
        &["warning WEIR-OTHER-MESH Linkerd has rules here"],
    ),
    (
        "iptables-nft -t mangle -N CILIUM_PRE_mangle
         iptables-nft -t mangle -A PREROUTING -j CILIUM_PRE_mangle",
        "",
        &["warning WEIR-OTHER-MESH Cilium has rules here"],
    ),
];

const ROUTES: [Plant; 5] = [
    (
        "ip rule add fwmark 1337 lookup 133",
        "",
        &["warning WEIR-FOREIGN-ROUTE table 133 (IPv4)"],
    ),
    (
        "ip -6 rule add fwmark 1337/0xffff lookup 200",
        "-- --sidecar -m TPROXY",
        &[
            "error WEIR-FOREIGN-ROUTE table 200 (IPv6)",
            "note WEIR-TPROXY-PRIVILEGE",
        ],
    ),
    (
        "ip route add 10.9.0.0/16 dev eth0 table 133",
        "-- --sidecar -m TPROXY",
        &[
            "error WEIR-FOREIGN-ROUTE routing table 133",
            "note WEIR-TPROXY-PRIVILEGE",
        ],
    ),
    // The same as Weir would make is used and no clash, and so are other marks.
    (
        "ip rule add fwmark 1337 lookup 133
         ip route add local default dev lo table 133
         ip rule add fwmark 0x1 lookup 77",
        "-- --sidecar -m TPROXY",
        &["note WEIR-TPROXY-PRIVILEGE"],
    ),
    (
        "ip rule add fwmark 1337 lookup 200",
        "-- --sidecar -m TPROXY -t 4711 -r 4711",
        &["note WEIR-TPROXY-PRIVILEGE"],
    ),
];

/// What others may have without disturbing Weir.
const HARMLESS: [&str; 5] = [
    "iptables-nft -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
     iptables-nft -A INPUT -i lo -j ACCEPT
     iptables-nft -A INPUT -p icmp -j DROP",
    // What leaves by the proxy may go where the application might have gone.
    "nft 'table inet fw { chain out { type filter hook output priority 0; policy drop; oif lo accept; ip daddr { 127.0.0.0/8, 10.0.0.0/8 } accept; ip6 daddr ::1 accept; }; }'",
    // After the redirect it goes elsewhere.
    "iptables-nft -A OUTPUT -d 10.9.0.0/16 -j DROP",
    // What is let pass in one nat chain of nftables is still seen by the next.
    "nft 'table ip x { chain out { type nat hook output priority -100; ip daddr 10.9.0.0/16 accept; }; }'",
    "nft 'table ip x { chain post { type nat hook postrouting priority 100; oif eth0 masquerade; }; }'",
];

fn planted(plants: &[Plant]) -> Result<()> {
    for (script, arguments, expected) in plants {
        let stage = Stage::set()?;
        stage.sh(script)?;
        let said = stage.check(arguments)?;
        said.is(expected).with_context(|| format!("planted: {script}"))?;
    }
    Ok(())
}

#[test]
fn rules_of_others_that_decide_are_named() -> Result<()> {
    planted(&RULES)
}

#[test]
fn they_are_named_whether_weirs_are_there_or_not() -> Result<()> {
    let manifests = Manifests::create()?;
    for backend in ["nft", "iptables-nft"] {
        let stage = Stage::set()?;
        let weir = e2e::weir::binary()?;
        stage.sh(&format!("{} init --sidecar --backend {backend}", weir.display()))?;
        let _proxy = Sidecar::proxy_alone(&stage.pod, &manifests, &[])?;
        stage.check("")?.is_silent()?;
        stage.sh("iptables-nft -t nat -I OUTPUT -d 10.9.0.0/16 -p tcp -j REDIRECT --to-ports 3128")?;
        stage.sh("iptables-nft -A OUTPUT -p tcp --dport 15001 -j DROP")?;
        let said = stage.check("")?;
        let findings = said.report["findings"].to_string();
        assert!(
            findings.contains("WEIR-FOREIGN-RULE") && findings.contains("15001 -j DROP"),
            "{said:#?}"
        );
        assert_eq!(said.code, 1);
    }
    Ok(())
}

#[test]
fn rules_of_others_that_do_not_matter_are_not() -> Result<()> {
    for script in HARMLESS {
        let stage = Stage::set()?;
        stage.sh(script)?;
        let said = stage.check("")?;
        said.is_silent().with_context(|| format!("planted: {script}"))?;
    }
    Ok(())
}

#[test]
fn routes_by_the_marks_of_tproxy_are_named() -> Result<()> {
    planted(&ROUTES)
}
