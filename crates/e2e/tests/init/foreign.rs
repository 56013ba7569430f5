//! Rules of others that stand in front of Weir's, or drop what was captured, and rules that no installed program shows.

use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};
use e2e::{Pod, RunAs, weir};

use crate::native::{init, pod};

const PASSING: &str = "-t nat -I OUTPUT 1 -p tcp -j ACCEPT";

/// The rules of a chain, without its policy.
fn chain(pod: &Pod, program: &str) -> Result<Vec<String>> {
    let listing = pod.run(program, ["-t", "nat", "-S", "OUTPUT"])?.text();
    Ok(listing.lines().skip(1).map(str::to_owned).collect())
}

#[test]
fn a_rule_that_lets_all_tcp_pass_never_stays_in_front() -> Result<()> {
    for backend in ["iptables-nft", "iptables-legacy"] {
        let pod = pod()?;
        let flags = format!("--sidecar --backend {backend}");
        let others = |arguments: &str| pod.run(backend, arguments.split(' '));
        let in_front = || -> Result<()> {
            let rules = chain(&pod, backend)?;
            let place = |part: &str| rules.iter().position(|rule| rule.contains(part));
            let (ours, theirs) = (place("WEIR_"), place("-p tcp -j ACCEPT"));
            ensure!(
                ours.is_some() && theirs.is_some() && ours < theirs,
                "{backend}: {rules:#?}"
            );
            Ok(())
        };
        others("-t nat -A OUTPUT -p udp --dport 9 -j RETURN")?;
        others(PASSING)?;
        init(&pod, &flags)?;
        in_front()?;
        ensure!(init(&pod, &flags)?.text().contains("Nothing to do"), "{backend}");

        others("-t nat -D OUTPUT -p tcp -j ACCEPT")?;
        others(PASSING)?;
        ensure!(!init(&pod, &flags)?.text().contains("Nothing to do"), "{backend}");
        in_front()?;
        ensure!(init(&pod, &flags)?.text().contains("Nothing to do"), "{backend}");

        init(&pod, "--cleanup")?;
        let left = chain(&pod, backend)?;
        ensure!(
            left.len() == 2 && left[0].contains("-p tcp -j ACCEPT"),
            "{backend}: {left:#?}"
        );
    }
    Ok(())
}

#[test]
fn rules_that_no_installed_program_shows_are_no_clean_namespace() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // Of all programs nft alone is of use.
    for family in ["iptables", "ip6tables"] {
        for variant in ["", "-nft", "-legacy"] {
            for what in ["", "-save", "-restore"] {
                symlink(
                    "/bin/false",
                    folder.path().join(format!("{family}{variant}{what}")),
                )?;
            }
        }
    }
    let path = format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", folder.path().display());
    let binary = weir::binary()?.to_string_lossy().into_owned();
    for backend in ["iptables-nft", "iptables-legacy"] {
        let pod = pod()?;
        init(&pod, &format!("--sidecar --backend {backend}"))?;
        let before = chain(&pod, backend)?;
        let Err(refused) = pod.run("/usr/bin/env", [&*path, &*binary, "init", "--cleanup"]) else {
            anyhow::bail!("{backend}: cleaned up without the program");
        };
        let said = format!("{refused:#}");
        ensure!(
            said.contains("WEIR-RULES-HIDDEN") && said.contains(backend),
            "{said}"
        );
        let second = pod.try_run(
            RunAs::Root,
            "/usr/bin/env",
            [&*path, &*binary, "init", "--sidecar"],
        )?;
        ensure!(
            second.errors().contains("WEIR-RULES-HIDDEN"),
            "{}",
            second.errors()
        );
        if backend == "iptables-nft" {
            ensure!(!second.status.success(), "a second set beside the first");
        }
        ensure!(chain(&pod, backend)? == before, "{backend}: changed");
        init(&pod, "--cleanup")?;
        ensure!(chain(&pod, backend)?.is_empty(), "{backend}: not clean");
    }
    Ok(())
}

/// What others have, by a shell; the flags; what is said of it, or nothing.
type Others = (&'static str, &'static str, &'static [&'static str]);

const OTHERS: [Others; 12] = [
    (
        "nft 'table inet early { chain out { type nat hook output priority -150; tcp dport 80 redirect to :3128; }; }'",
        "--sidecar",
        &[
            "nft inet early out rule 1",
            "192.0.2.1:80 should reach the proxy on port 15001, and goes to port 3128",
        ],
    ),
    (
        "iptables-nft -A OUTPUT -p tcp --dport 15001 -j DROP",
        "--sidecar --backend nft",
        &["iptables-nft filter OUTPUT rule 1", "and is dropped"],
    ),
    (
        "ip6tables-nft -t nat -A OUTPUT -d fd00:9::/64 -p tcp --dport 8443 -j RETURN",
        "--sidecar",
        &[
            "ip6tables-nft nat OUTPUT rule 1",
            "[fd00:9::]:8443",
            "goes past it",
        ],
    ),
    (
        "iptables-legacy -t nat -A PREROUTING -p tcp --dport 8080 -j REDIRECT --to-ports 9090",
        "-b 8080",
        &["iptables-legacy nat PREROUTING rule 1", "goes to port 9090"],
    ),
    (
        "iptables-nft -t nat -A OUTPUT -p tcp -m owner --uid-owner 1001 -j ACCEPT",
        "--sidecar",
        &["iptables-nft nat OUTPUT rule 1", "by user 1001"],
    ),
    (
        "iptables-nft -t nat -A PREROUTING -s 172.16.0.0/12 -p tcp -j ACCEPT",
        "--sidecar",
        &["iptables-nft nat PREROUTING rule 1", "from 172.16.0.1"],
    ),
    // A set-up without anybody in the way says nothing.
    ("true", "--sidecar", &[]),
    ("iptables-nft -A INPUT -p udp --dport 9 -j DROP", "--sidecar", &[]),
    (
        "iptables-nft -t nat -A OUTPUT -p tcp --dport 22 -j RETURN",
        "--sidecar -o 22",
        &[],
    ),
    (
        "iptables-legacy -t nat -A OUTPUT -d 10.9.0.0/16 -j RETURN",
        "-b 8080",
        &[],
    ),
    (
        "iptables-nft -A OUTPUT -p tcp --dport 25 -j REJECT",
        "--sidecar",
        &[],
    ),
    (
        "nft 'table inet fw { chain in { type filter hook input priority 0; ct state established accept; }; }'",
        "--sidecar",
        &[],
    ),
];

#[test]
fn a_rule_that_decides_before_weir_is_told_and_no_other() -> Result<()> {
    for (script, flags, expected) in OTHERS {
        let pod = pod()?;
        for line in [
            "addr add 10.77.0.1/16 dev eth0",
            "addr add fd00:77::1/64 dev eth0 nodad",
            "route add default via 10.77.0.2",
            "-6 route add default via fd00:77::2 dev eth0",
        ] {
            pod.ip(line)?;
        }
        pod.run("sh", ["-ec", script])?;
        // The second run changes nothing, and the rule is still in the way.
        for _ in 0..2 {
            let said = init(&pod, flags)?.errors();
            let is_warned = said.contains("WEIR-FOREIGN-RULE");
            ensure!(is_warned != expected.is_empty(), "{script}: {said}");
            for part in expected {
                ensure!(said.contains(part), "{script}: no `{part}` in {said}");
            }
            ensure!(is_warned || said.is_empty(), "{script}: {said}");
        }
    }
    Ok(())
}
