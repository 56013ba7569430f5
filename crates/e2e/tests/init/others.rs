//! Others who write rules at the same time, by iptables and by nft, while several runs of `weir init` do: nobody's
//! rules are lost, and what is left of Weir's is whole.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use e2e::{Pod, RunAs, eventually, weir};
use rustix::process::Signal;

use crate::native::{init, listed, pod, still};

/// Runs by every back-end, with other rules, and clean-ups.
const RUNS: [&str; 6] = [
    "--sidecar --backend nft",
    "--sidecar --backend iptables-nft",
    "-i 10.0.0.0/8 -b 80 --backend iptables-legacy",
    "--cleanup",
    "--sidecar -m TPROXY --backend iptables-nft",
    "-i * -o 22 --backend nft",
];
const ROUNDS: usize = 2;
/// Between two rules of another, so that there is something left of the machine.
const PAUSE: Duration = Duration::from_millis(20);

/// Who else writes rules: the program, its table, how and into which chain.
type Writer = (&'static str, &'static str, &'static str, &'static str);

const WRITERS: [Writer; 5] = [
    ("iptables-nft", "nat", "-A", "OUTPUT"),
    ("ip6tables-nft", "mangle", "-I", "PREROUTING"),
    ("iptables-legacy", "nat", "-I", "OUTPUT"),
    ("ip6tables-legacy", "nat", "-A", "PREROUTING"),
    ("nft", "theirs", "add", "out"),
];

/// The port of a writer's first rule; each has one of its own.
const FIRST_PORT: usize = 20_000;

fn start(pod: &Pod, arguments: &str) -> Result<Child> {
    let mut command = Command::new(weir::binary()?);
    command
        .arg("init")
        .args(arguments.split(' '))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    pod.netns().start_in(&mut command);
    Ok(command.spawn()?)
}

/// Adds rules, one after the other, until it is told to stop. Answers how many.
fn write(pod: &Pod, (program, table, how, chain): Writer, stop: &AtomicBool) -> Result<usize> {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let port = FIRST_PORT + count;
        let command = match program {
            "nft" => format!("{how} rule inet {table} {chain} tcp dport {port} return"),
            "iptables-legacy" | "ip6tables-legacy" => {
                format!("-w -t {table} {how} {chain} -p tcp --dport {port} -j RETURN")
            }
            _ => format!("-t {table} {how} {chain} -p tcp --dport {port} -j RETURN"),
        };
        pod.run(program, command.split(' '))?;
        count += 1;
        thread::sleep(PAUSE);
    }
    Ok(count)
}

/// The ports of a writer's rules, in order, as they are listed.
fn written(pod: &Pod, (program, table, _, chain): Writer) -> Result<Vec<usize>> {
    let command = match program {
        "nft" => format!("list chain inet {table} {chain}"),
        _ => format!("-t {table} -S {chain}"),
    };
    let listing = pod.run(program, command.split(' '))?.text();
    let port = |line: &str| line.split("dport ").nth(1)?.split(' ').next()?.parse().ok();
    Ok(listing.lines().filter_map(port).collect())
}

#[test]
fn nobodys_rules_are_lost_while_others_write_and_several_run() -> Result<()> {
    let pod = pod()?;
    pod.run(
        "nft",
        ["add table inet theirs; add chain inet theirs out { type filter hook output priority 0; }"],
    )?;
    let stop = AtomicBool::new(false);
    let counts = thread::scope(|scope| -> Result<Vec<usize>> {
        let (pod, stop) = (&pod, &stop);
        let writers: Vec<_> = WRITERS
            .into_iter()
            .map(|writer| scope.spawn(move || write(pod, writer, stop)))
            .collect();
        let runs = several(pod);
        stop.store(true, Ordering::Relaxed);
        let counts: Vec<_> = writers
            .into_iter()
            .map(|writer| writer.join().map_err(|_| anyhow!("a writer panicked"))?)
            .collect();
        runs?;
        counts.into_iter().collect()
    })?;
    let check = || -> Result<()> {
        for (writer, &count) in WRITERS.into_iter().zip(&counts) {
            let mut expected: Vec<_> = (FIRST_PORT..FIRST_PORT + count).collect();
            if writer.2 == "-I" {
                expected.reverse();
            }
            ensure!(
                count > 0 && written(&pod, writer)? == expected,
                "{writer:?}: rules are lost or moved"
            );
        }
        Ok(())
    };
    check()?;
    for backend in ["nft", "iptables-nft", "iptables-legacy"] {
        whole(&pod, backend)?;
    }
    init(&pod, "--cleanup")?;
    check()?;
    for save in [
        "iptables-nft-save",
        "ip6tables-nft-save",
        "iptables-legacy-save",
        "ip6tables-legacy-save",
    ] {
        ensure!(
            !pod.run(save, [""; 0])?.text().contains("WEIR"),
            "{save} shows rules of Weir's"
        );
    }
    ensure!(!listed(&pod)?.contains("table inet weir"), "the table is left");
    println!("{counts:?} rules of others beside {} runs", ROUNDS * RUNS.len());
    Ok(())
}

fn several(pod: &Pod) -> Result<()> {
    for round in 0..ROUNDS {
        let runs = RUNS.iter().cycle().skip(round).take(RUNS.len());
        let started: Vec<_> = runs.map(|run| (run, start(pod, run))).collect();
        for (run, child) in started {
            let output = child?.wait_with_output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{run}: {said}");
        }
    }
    Ok(())
}

/// What is there is what a run in a new namespace writes.
fn whole(pod: &Pod, backend: &str) -> Result<()> {
    let run = format!("--sidecar --backend {backend}");
    let alone = crate::native::pod()?;
    init(&alone, &run)?;
    init(pod, &run)?;
    ensure!(
        own(pod)? == own(&alone)?,
        "{backend}: other rules than in a namespace of its own"
    );
    Ok(())
}

/// Weir's own, as every program shows them.
fn own(pod: &Pod) -> Result<Vec<String>> {
    let mut all = vec![];
    for save in [
        "iptables-nft-save",
        "ip6tables-nft-save",
        "iptables-legacy-save",
        "ip6tables-legacy-save",
    ] {
        let text = pod.run(save, [""; 0])?.text();
        let rules = text
            .lines()
            .filter(|line| line.starts_with("-A") && line.contains("WEIR_"));
        all.extend(rules.map(str::to_owned));
    }
    let native = listed(pod)?;
    let table = native
        .split("table ")
        .find(|table| table.starts_with("inet weir "));
    all.extend(table.map(still));
    Ok(all)
}

/// Killed while its program writes: who comes next waits for that program, and its rules alone are there then.
#[test]
fn who_comes_after_a_run_that_was_killed_waits_for_its_program() -> Result<()> {
    const SLOW: &str = "#!/bin/sh\ncase \"$*\" in -f*) touch \"$0.begun\"; until [ -e \"$0.go\" ]; do sleep 0.05; done;; esac\n\
                        PATH=${PATH#*:} exec nft \"$@\"\n";
    let pod = pod()?;
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("nft");
    std::fs::write(&program, SLOW)?;
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let path = format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", folder.path().display());
    let binary = weir::binary()?.to_string_lossy().into_owned();
    let arguments = |ports| ["init", "--backend", "nft", "-i", "*", "-o", ports];
    let slowly = [&[&*path, &*binary][..], &arguments("1111")].concat();
    let killed = pod.start(RunAs::Root, "env", slowly)?;
    eventually("the program to be asked to write", || {
        folder.path().join("nft.begun").exists().then_some(())
    })?;
    killed.signal(Signal::KILL)?;
    let mut next = pod.start(RunAs::Root, &binary, arguments("2222"))?;
    eventually("the next run to wait for the lock", || {
        let listening = pod.run("ss", ["-xlH"]).ok()?.text();
        let lock = listening.lines().find(|line| line.contains("@weir-rules"))?;
        // The third word counts those who wait.
        (lock.split_whitespace().nth(2)? != "0").then_some(())
    })?;
    ensure!(next.ended().is_none(), "{}", next.said());
    std::fs::write(folder.path().join("nft.go"), "")?;
    ensure!(next.wait()?.success(), "{}", next.said());
    let there = listed(&pod)?;
    assert!(there.contains("dport 2222") && !there.contains("1111"), "{there}");
    Ok(())
}
