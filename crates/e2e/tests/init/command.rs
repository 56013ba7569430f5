//! `weir init` as its users run it: what it writes, what it leaves alone, what it refuses, and that it
//! takes back what nobody confirms.

mod asked;
mod left;
mod refused;

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::{Finished, Net, Pod, RunAs, weir};

fn pod() -> Result<Pod> {
    let pod = Pod::bare("pod", "10.77.0.1".parse()?, "fd00:77::1".parse()?)?;
    pod.ip("link add eth0 type veth peer name other")?;
    pod.ip("link set eth0 up")?;
    pod.ip("link set other up")?;
    Ok(pod)
}

/// With rules by iptables-nft, unless it is said otherwise: what is there is then seen by iptables-save.
fn init(pod: &Pod, arguments: &str) -> Result<Finished> {
    let writes = !["--cleanup", "--confirm", "--force", "--backend"]
        .iter()
        .any(|flag| {
            arguments
                .split_whitespace()
                .any(|given| given.starts_with(flag) && given != "--confirm-within")
        });
    let by = if writes { "--backend iptables-nft" } else { "" };
    init_as_it_fits(pod, &format!("{arguments} {by}"))
}

fn init_as_it_fits(pod: &Pod, arguments: &str) -> Result<Finished> {
    let mut all = vec!["init"];
    all.extend(arguments.split_whitespace());
    weir::run(pod, &all)
}

/// Runs it where it must fail, and gives back what it said.
fn refusal(pod: &Pod, who: RunAs, arguments: &[&str]) -> Result<String> {
    let binary = weir::binary()?;
    let mut all = vec!["init"];
    all.extend(arguments);
    let finished = pod.try_run(who, &binary.to_string_lossy(), all)?;
    ensure!(
        !finished.status.success(),
        "{arguments:?} was accepted: {}",
        finished.text()
    );
    Ok(finished.errors())
}

/// Both families of one variant as `iptables-save` shows them, without the dates and the packet counts of
/// chains: the kernel's own neighbour packets count too.
fn saved(pod: &Pod, variant: &str, arguments: &[&str]) -> Result<String> {
    let mut text = String::new();
    for program in ["iptables", "ip6tables"] {
        let said = pod.run(&format!("{program}-{variant}-save"), arguments)?.text();
        text.extend(said.lines().filter(|line| !line.starts_with('#')).map(
            |line| match line.split_once(" [") {
                Some((chain, _)) if line.starts_with(':') => format!("{chain}\n"),
                _ => format!("{line}\n"),
            },
        ));
    }
    Ok(text)
}

fn rules(pod: &Pod) -> Result<String> {
    saved(pod, "nft", &[])
}

fn on_lo(pod: &Pod) -> Result<String> {
    Ok(pod.run("ip", ["-6", "addr", "show", "dev", "lo"])?.text())
}

#[test]
fn a_second_run_writes_nothing_and_no_counter_moves() -> Result<()> {
    let pod = pod()?;
    let said = init(&pod, "--sidecar")?.text();
    assert!(
        said.contains("Captured") && said.contains("IPv4") && said.contains("IPv6"),
        "{said}"
    );
    // So that a counter has something to lose.
    let _ = pod.dial("192.0.2.1:80".parse()?);
    let _ = pod.dial("[2001:db8::1]:80".parse()?);
    let before = saved(&pod, "nft", &["-c"])?;
    assert!(before.contains("WEIR_OUTPUT"), "{before}");
    let said = init(&pod, "--sidecar")?.text();
    assert!(said.contains("Nothing to do"), "{said}");
    assert_eq!(saved(&pod, "nft", &["-c"])?, before);
    Ok(())
}

#[test]
fn what_somebody_has_changed_is_mended() -> Result<()> {
    let pod = pod()?;
    init(&pod, "--sidecar")?;
    let wanted = rules(&pod)?;
    for damage in [
        "-t nat -D WEIR_OUTPUT 2",
        "-t nat -F WEIR_INBOUND",
        "-t nat -I WEIR_OUTPUT 1 -p tcp -j RETURN",
        "-t nat -A OUTPUT -p tcp -j WEIR_OUTPUT",
        "-t nat -F OUTPUT",
        "-t nat -N WEIR_STALE",
        "-t mangle -N WEIR_STALE",
    ] {
        pod.run("iptables-nft", damage.split(' '))?;
        ensure!(rules(&pod)? != wanted, "{damage} did nothing");
        init(&pod, "--sidecar")?;
        // An empty table has no rule to mend, and iptables has no word for removing it.
        let now = rules(&pod)?;
        let nat = |text: &str| text[text.find("*nat").unwrap_or(0)..].to_owned();
        assert_eq!(nat(&now), nat(&wanted), "after {damage}");
        assert!(!now.contains("STALE"), "{now}");
    }
    Ok(())
}

#[test]
fn a_dry_run_prints_what_a_run_writes_and_writes_nothing() -> Result<()> {
    let pod = pod()?;
    let before = (rules(&pod)?, on_lo(&pod)?);
    // It needs no right either.
    let binary = weir::binary()?;
    let shown = pod
        .run_as(
            RunAs::Application,
            &binary.to_string_lossy(),
            ["init", "--sidecar", "-n", "--backend", "iptables"],
        )?
        .text();
    assert_eq!((rules(&pod)?, on_lo(&pod)?), before);
    // Handed to iptables-restore, it is what a run would have written.
    let v4 = shown.split("# IPv6").next().context("both families")?;
    restore(&pod, v4)?;
    let by_hand = pod.run("iptables-nft-save", ["-t", "nat"])?.text();
    init(&pod, "--cleanup")?;
    init(&pod, "--sidecar")?;
    let by_init = pod.run("iptables-nft-save", ["-t", "nat"])?.text();
    let lines = |text: &str| -> Vec<String> {
        let rules = text.lines().filter(|line| !line.starts_with('#'));
        rules.map(str::to_owned).collect()
    };
    assert_eq!(lines(&by_hand), lines(&by_init));
    Ok(())
}

fn restore(pod: &Pod, text: &str) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), text)?;
    let path = file.path().to_string_lossy();
    pod.run("iptables-nft-restore", ["--noflush", path.as_ref()])
        .map(drop)
}

#[test]
fn several_at_once_leave_one_whole_rule_set() -> Result<()> {
    let pod = pod()?;
    init(&pod, "--sidecar")?;
    let wanted = rules(&pod)?;
    init(&pod, "--cleanup")?;
    let binary = weir::binary()?;
    let others = ["--sidecar", "--cleanup", "-i 10.0.0.0/8 -b 80", "--sidecar -o 22"];
    for round in 0..5 {
        let started: Vec<_> = (0..8)
            .map(|index| {
                let arguments = others[(index + round) % others.len()].split(' ');
                let mut command = Command::new(&binary);
                command
                    .arg("init")
                    .args(arguments)
                    .stdout(Stdio::null())
                    .stderr(Stdio::piped());
                pod.netns().start_in(&mut command);
                command.spawn()
            })
            .collect();
        for child in started {
            let output = child?.wait_with_output()?;
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        init(&pod, "--sidecar")?;
        assert_eq!(rules(&pod)?, wanted);
    }
    Ok(())
}

#[test]
fn it_enters_a_namespace_by_path() -> Result<()> {
    let pod = pod()?;
    let elsewhere = Pod::bare("elsewhere", "10.77.0.2".parse()?, "fd00:77::2".parse()?)?;
    init(&elsewhere, &format!("--sidecar --netns {}", pod.path()))?;
    assert!(rules(&pod)?.contains("WEIR_OUTPUT"));
    assert!(!rules(&elsewhere)?.contains("WEIR_OUTPUT"));
    init(
        &elsewhere,
        &format!("--cleanup --network-namespace {}", pod.path()),
    )?;
    assert!(!rules(&pod)?.contains("WEIR_OUTPUT"));
    let said = refusal(&elsewhere, RunAs::Root, &["--sidecar", "--netns", "no-such-name"])?;
    assert!(
        said.contains("no-such-name") && said.contains("/run/netns"),
        "{said}"
    );
    Ok(())
}

#[test]
fn it_enters_a_namespace_by_name() -> Result<()> {
    let pod = pod()?;
    let elsewhere = Pod::bare("elsewhere", "10.77.0.2".parse()?, "fd00:77::2".parse()?)?;
    // Where `ip netns` keeps them, in a view of the file system of the test's own.
    let script = format!(
        "mount -t tmpfs weir /run && mkdir /run/netns && touch /run/netns/blue && mount --bind {} /run/netns/blue && \
         exec {} init --sidecar --netns blue --backend iptables-nft",
        pod.path(),
        weir::binary()?.display()
    );
    elsewhere.run("unshare", ["-m", "sh", "-c", &script])?;
    assert!(rules(&pod)?.contains("WEIR_OUTPUT"));
    assert!(!rules(&elsewhere)?.contains("WEIR_OUTPUT"));
    Ok(())
}

#[test]
fn rules_move_from_one_back_end_to_the_other_when_asked() -> Result<()> {
    let net = Net::create()?;
    let pod = net.pod("pod")?;
    init(&pod, "--sidecar --force-iptables-binary legacy")?;
    assert!(saved(&pod, "legacy", &[])?.contains("WEIR_OUTPUT"));
    // Without being asked it stays where the rules are.
    let said = init_as_it_fits(&pod, "--sidecar")?.text();
    assert!(
        said.contains("Nothing to do") && said.contains("iptables-legacy"),
        "{said}"
    );
    init(&pod, "--sidecar --force-iptables-binary nft")?;
    assert!(!saved(&pod, "legacy", &[])?.contains("WEIR"));
    assert!(saved(&pod, "nft", &[])?.contains("WEIR_OUTPUT"));
    init(&pod, "--cleanup")?;
    assert!(!saved(&pod, "nft", &[])?.contains("WEIR"));
    Ok(())
}
