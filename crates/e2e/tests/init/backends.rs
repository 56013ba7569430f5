//! Which back-end is chosen where none is asked for, moving from one to another, and several runs at once.

use std::process::{Command, Stdio};

use anyhow::Result;
use e2e::{Pod, RunAs, weir};

use crate::native::{init, listed, on_lo, pod, still};

#[test]
fn the_back_end_is_the_one_in_use_else_native() -> Result<()> {
    let chosen = |before: &dyn Fn(&Pod) -> Result<()>| -> Result<String> {
        let pod = pod()?;
        before(&pod)?;
        Ok(init(&pod, "--sidecar")?.text())
    };
    let theirs = |program: &'static str| {
        move |pod: &Pod| {
            let rule = "-t filter -A INPUT -p tcp --dport 1 -j RETURN";
            pod.run(program, rule.split(' ')).map(drop)
        }
    };
    let said = chosen(&|_| Ok(()))?;
    assert!(
        said.contains("by nft (the kernel has nf_tables, and nothing else"),
        "{said}"
    );
    let said = chosen(&theirs("iptables-nft"))?;
    assert!(
        said.contains("by iptables-nft (it has rules in this namespace already)"),
        "{said}"
    );
    let said = chosen(&theirs("iptables-legacy"))?;
    assert!(
        said.contains("by iptables-legacy (it has rules in this namespace already)"),
        "{said}"
    );
    for (asked, by) in [
        ("--backend nft", "by nft (asked for)"),
        ("--backend iptables-nft", "by iptables-nft (asked for)"),
        ("--backend iptables-legacy", "by iptables-legacy (asked for)"),
        ("--backend iptables", "by iptables-nft (asked for)"),
        ("--native-nftables", "by nft (asked for)"),
        (
            "--native-nftables=false --force-iptables-binary legacy",
            "by iptables-legacy (asked for)",
        ),
    ] {
        let said = init(&pod()?, &format!("--sidecar {asked}"))?.text();
        assert!(said.contains(by), "{asked}: {said}");
    }
    let refused = pod()?.try_run(
        RunAs::Root,
        &weir::binary()?.to_string_lossy(),
        ["init", "--sidecar", "--backend", "ebtables"],
    )?;
    assert!(
        refused.errors().contains("`ebtables` is no back-end"),
        "{}",
        refused.errors()
    );
    Ok(())
}

fn saved(pod: &Pod, variant: &str) -> Result<String> {
    let v4 = pod.run(&format!("iptables-{variant}-save"), [""; 0])?.text();
    Ok(v4 + &pod.run(&format!("ip6tables-{variant}-save"), [""; 0])?.text())
}

#[test]
fn rules_move_between_the_back_ends_and_are_never_in_two() -> Result<()> {
    let pod = pod()?;
    let holders = || -> Result<Vec<&str>> {
        let mut holders = vec![];
        if listed(&pod)?.contains(" weir {") {
            holders.push("nft");
        }
        for (variant, backend) in [("nft", "iptables-nft"), ("legacy", "iptables-legacy")] {
            if saved(&pod, variant)?.contains("WEIR") {
                holders.push(backend);
            }
        }
        Ok(holders)
    };
    for backend in [
        "iptables-nft",
        "nft",
        "iptables-legacy",
        "nft",
        "iptables-nft",
        "iptables-legacy",
    ] {
        init(&pod, &format!("--sidecar --backend {backend}"))?;
        assert_eq!(holders()?, [backend]);
        assert!(
            init(&pod, "--sidecar")?.text().contains("Nothing to do"),
            "{backend}"
        );
        assert!(on_lo(&pod)?.contains("::6/128"));
    }
    init(&pod, "--sidecar --backend nft")?;
    init(&pod, "--cleanup")?;
    assert_eq!(holders()?, [""; 0]);
    assert!(!on_lo(&pod)?.contains("::6/128"));
    Ok(())
}

#[test]
fn several_at_once_leave_one_whole_rule_set() -> Result<()> {
    let pod = pod()?;
    init(&pod, "--sidecar --backend nft")?;
    let wanted = still(&listed(&pod)?);
    let binary = weir::binary()?;
    let others = [
        "--sidecar --backend nft",
        "--cleanup",
        "-i 10.0.0.0/8 -b 80 --backend nft",
        "--sidecar --backend iptables-nft",
    ];
    for round in 0..3 {
        let started: Vec<_> = (0..8)
            .map(|index| {
                let mut command = Command::new(&binary);
                command
                    .arg("init")
                    .args(others[(index + round) % others.len()].split(' '))
                    .stdout(Stdio::null())
                    .stderr(Stdio::piped());
                pod.netns().start_in(&mut command);
                command.spawn()
            })
            .collect();
        for child in started {
            let output = child?.wait_with_output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}");
        }
        init(&pod, "--sidecar --backend nft")?;
        assert_eq!(still(&listed(&pod)?), wanted);
    }
    Ok(())
}

#[test]
fn a_change_that_cannot_be_finished_is_taken_back() -> Result<()> {
    let pod = pod()?;
    init(&pod, "-b 80 --backend iptables-nft")?;
    pod.run("ip", "addr del ::6/128 dev lo".split(' '))?;
    pod.sysctl("net/ipv6/conf/lo/disable_ipv6", "1")?;
    let before = saved(&pod, "nft")?;
    let binary = weir::binary()?;
    let arguments = ["init", "--sidecar", "--backend", "nft"];
    let failed = pod.try_run(RunAs::Root, &binary.to_string_lossy(), arguments)?;
    assert!(
        !failed.status.success() && failed.errors().contains("::6"),
        "{}",
        failed.errors()
    );
    let lines = |text: &str| {
        text.lines()
            .filter(|line| line.starts_with("-A"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(lines(&saved(&pod, "nft")?), lines(&before));
    assert!(!listed(&pod)?.contains("inet weir"));
    Ok(())
}
