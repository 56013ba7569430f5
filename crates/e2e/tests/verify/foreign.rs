//! Rules of others in front of Weir's, before them in the same chain, or in another table.

use std::collections::HashSet;

use anyhow::{Result, ensure};

use super::{BACKENDS, World, init, side_by_side, verify};

/// Each makes some packet fare otherwise than was asked.
const IPTABLES: [&str; 20] = [
    "-t nat -I PREROUTING -p tcp -j ACCEPT",
    "-t nat -I PREROUTING -p tcp --dport 8080 -j ACCEPT",
    "-t nat -I PREROUTING -s 198.51.100.0/24 -j RETURN",
    "-t nat -I OUTPUT -p tcp -j ACCEPT",
    "-t nat -I OUTPUT -p tcp --dport 5432 -j RETURN",
    "-t nat -I OUTPUT -p tcp -m multiport --dports 5432,9092 -j ACCEPT",
    "-t nat -I OUTPUT -d 203.0.113.9 -j ACCEPT",
    "-t nat -I OUTPUT -m owner --uid-owner 1000 -j ACCEPT",
    "-t nat -I OUTPUT -d 203.0.113.9 -p tcp --dport 443 -m owner --uid-owner 1000 -j ACCEPT",
    "-t nat -I WEIR_OUTPUT -p tcp --dport 5432 -j RETURN",
    "-t nat -I WEIR_INBOUND -p tcp --dport 8080 -j RETURN",
    "-t nat -I OUTPUT -p tcp --dport 5432 -j REDIRECT --to-ports 9999",
    "-t mangle -I PREROUTING -p tcp --dport 8080 -j DROP",
    "-t filter -I INPUT -p tcp --dport 15006 -j DROP",
    "-t filter -I OUTPUT -p tcp --dport 5432 -j DROP",
    "-t filter -I OUTPUT -m owner --gid-owner 1337 -j DROP",
    "-t raw -I PREROUTING -p tcp -j DROP",
    "-t nat -I OUTPUT -o eth0 -p tcp -j ACCEPT",
    "-t nat -I PREROUTING -i eth0 -p tcp --dport 8080 -j ACCEPT",
    "-t filter -I INPUT -i eth0 -p tcp -j DROP",
];

const NFT: [&str; 6] = [
    "chain inet theirs x { type filter hook output priority -400; tcp dport 5432 drop; }",
    "chain inet theirs x { type filter hook input priority 0; tcp dport 15006 drop; }",
    "chain inet theirs x { type filter hook prerouting priority -400; ip saddr 198.51.100.0/24 drop; }",
    "chain inet theirs x { type nat hook output priority -110; tcp dport { 5432, 9092 } redirect to :9999; }",
    "chain inet theirs x { type nat hook prerouting priority -110; tcp dport 8080 redirect to :9999; }",
    "chain inet theirs x { type filter hook output priority -200; meta skuid 1000 tcp dport 443 ip daddr 203.0.113.9 reject; }",
];

/// Puts each in front of what one back-end has installed, a rule of iptables for both families at once. Answers
/// how many were caught.
fn put_in_the_way(backend: &str) -> Result<usize> {
    let world = World::create()?;
    let pod = &world.pod;
    let mut caught = 0;
    init(pod, &format!("--sidecar --backend {backend}"))?;
    for rule in IPTABLES {
        let program = match backend {
            // Of two tables at one place, the kernel does not tell which is asked first.
            "nft" if rule.contains("WEIR_") || rule.contains("REDIRECT") => continue,
            "nft" => "iptables-nft",
            other => other,
        };
        let of_v6 = rule
            .replace("198.51.100.0/24", "2001:db8:5::/48")
            .replace("203.0.113.9", "2001:db8::9");
        let both = format!("{program} {rule} && {} {of_v6}", program.replacen("ip", "ip6", 1));
        pod.run("sh", ["-c", &both])?;
        let verified = verify(pod, "--before-proxy --timeout 1")?;
        // What one table lets pass, the other one still redirects.
        let expected = backend != "nft" || rule.contains("DROP");
        let broken = verified
            .findings()?
            .into_iter()
            .filter(|found| found["verdict"] == "broken");
        let families: HashSet<_> = broken.map(|found| found["family"].to_string()).collect();
        ensure!(
            verified.code == i32::from(expected) && (families.len() == 2) == expected,
            "{backend}: {both}: {}, {families:?}\n{}",
            verified.code,
            verified.why()
        );
        caught += families.len();
        pod.run("sh", ["-c", &both.replace(" -I ", " -D ")])?;
    }
    for chain in NFT {
        pod.run("nft", [format!("add table inet theirs; add {chain}")])?;
        let verified = verify(pod, "--before-proxy --timeout 1")?;
        ensure!(verified.code == 1, "{backend}: {chain}: {}", verified.why());
        caught += 1;
        pod.run("nft", ["delete table inet theirs"])?;
    }
    let verified = verify(pod, "--before-proxy")?;
    ensure!(verified.code == 0, "{backend}, without them: {}", verified.why());
    Ok(caught)
}

#[test]
fn what_stands_in_the_way_is_caught_and_named() -> Result<()> {
    let caught: usize = side_by_side(BACKENDS, put_in_the_way)?.iter().sum();
    println!("{caught} foreign rules in the way: each caught");
    Ok(())
}

#[test]
fn the_rule_in_the_way_is_named() -> Result<()> {
    let world = World::create()?;
    init(&world.pod, "--sidecar --backend iptables-nft")?;
    let rule = "iptables-nft -t nat -I OUTPUT -p tcp --dport 5432 -j ACCEPT";
    world.pod.run("sh", ["-c", rule])?;
    let verified = verify(&world.pod, "--before-proxy")?;
    assert!(
        verified
            .why()
            .contains("In the way, and not Weir's: iptables-nft nat OUTPUT 1"),
        "{}",
        verified.why()
    );
    Ok(())
}
