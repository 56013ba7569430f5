//! A program that hangs, and a lock that somebody else holds: `weir init` ends with an error that names them, and the
//! namespace is as it was. And a run that is killed leaves nothing that the next clean-up does not find.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::thread;

use anyhow::{Result, anyhow, ensure};
use e2e::{Pod, RunAs, weir};
use tempfile::TempDir;

use crate::native::{init, listed, on_lo, pod, still};

/// A program that hangs where its arguments hold a word.
struct Hangs {
    program: &'static str,
    word: &'static str,
    /// What is there before; nothing where it is empty.
    before: &'static str,
    then: &'static str,
}

const HANGS: [Hangs; 6] = [
    Hangs {
        program: "nft",
        word: "-f",
        before: "",
        then: "--sidecar --backend nft",
    },
    Hangs {
        program: "nft",
        word: "-f",
        before: "--sidecar --backend nft",
        then: "--sidecar -o 22 --backend nft",
    },
    Hangs {
        program: "nft",
        word: "list",
        before: "--sidecar --backend nft",
        then: "--cleanup",
    },
    // The other family has been written by then.
    Hangs {
        program: "ip6tables-nft-restore",
        word: "--noflush",
        before: "--sidecar --backend iptables-nft",
        then: "-b 80 --backend iptables-nft",
    },
    Hangs {
        program: "ip6tables-legacy-restore",
        word: "--noflush",
        before: "--sidecar --backend iptables-legacy",
        then: "-b 80 --backend iptables-legacy",
    },
    Hangs {
        program: "iptables-nft-save",
        word: "",
        before: "--sidecar --backend iptables-nft",
        then: "--sidecar --backend nft",
    },
];

/// All that there is of rules and addresses.
fn all(pod: &Pod) -> Result<String> {
    let mut text = still(&listed(pod)?);
    for program in ["iptables-legacy-save", "ip6tables-legacy-save"] {
        let said = pod.run(program, [""; 0])?.text();
        text.extend(said.lines().filter(|line| line.starts_with('-')));
    }
    Ok(text + &on_lo(pod)?)
}

/// A script in the place of a program; answers the folder that it is in, and the path that leads to it.
fn stand_in(program: &str, script: &str) -> Result<(TempDir, String)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join(program);
    std::fs::write(&file, format!("#!/bin/sh\n{script}\n"))?;
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755))?;
    let path = format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", folder.path().display());
    Ok((folder, path))
}

fn hangs(case: &Hangs) -> Result<()> {
    let Hangs {
        program,
        word,
        before,
        then,
    } = case;
    let pod = pod()?;
    if !before.is_empty() {
        init(&pod, before)?;
    }
    let before = all(&pod)?;
    let (_folder, path) = stand_in(
        program,
        &format!("case \"$*\" in *{word}*) exec sleep 1000;; esac\nPATH=${{PATH#*:}} exec {program} \"$@\""),
    )?;
    let binary = weir::binary()?.to_string_lossy().into_owned();
    let arguments = [&*path, &*binary, "init", "--wait", "5"].into_iter();
    let said = pod.try_run(RunAs::Root, "env", arguments.chain(then.split(' ')))?;
    let errors = said.errors();
    ensure!(
        !said.status.success()
            && errors.contains(&format!("{program} did not end within 10 s"))
            && errors.contains("WEIR-PROGRAM-HUNG"),
        "{program} {word}: {errors}"
    );
    let after = all(&pod)?;
    ensure!(
        after == before,
        "{program} {word}: {errors}\nwas\n{before}\nis\n{after}"
    );
    Ok(())
}

#[test]
fn a_program_that_hangs_is_named_and_nothing_is_half_done() -> Result<()> {
    thread::scope(|scope| {
        let cases = HANGS.iter().map(|case| scope.spawn(|| hangs(case)));
        let cases: Vec<_> = cases.collect();
        let ended = cases.into_iter().map(|case| case.join());
        let ended: Vec<_> = ended.collect();
        ended
            .into_iter()
            .try_for_each(|ended| ended.map_err(|_| anyhow!("a case panicked"))?)
    })
}

#[test]
fn who_holds_the_lock_is_named() -> Result<()> {
    let pod = pod()?;
    let name = SocketAddr::from_abstract_name("weir-rules")?;
    let held = pod.within(|| UnixListener::bind_addr(&name))??;
    let binary = weir::binary()?.to_string_lossy().into_owned();
    let said = pod.try_run(RunAs::Root, &binary, ["init", "--sidecar", "--wait", "1"])?;
    let errors = said.errors();
    let who = format!("pid {} (", std::process::id());
    ensure!(
        !said.status.success() && errors.contains(&who) && errors.contains("WEIR-RULES-BUSY"),
        "{errors}"
    );
    drop(held);
    init(&pod, "--sidecar").map(drop)
}

#[test]
fn a_run_that_is_killed_leaves_no_table_that_nobody_knows() -> Result<()> {
    let pod = pod()?;
    init(&pod, "--sidecar -m TPROXY --backend iptables-nft")?;
    // Its rules go, and the run is killed before their tables do.
    let (_folder, path) = stand_in(
        "iptables-nft-restore",
        "PATH=${PATH#*:} iptables-nft-restore \"$@\"; kill -KILL $PPID",
    )?;
    let binary = weir::binary()?.to_string_lossy().into_owned();
    let arguments = [&*path, &*binary, "init", "--sidecar", "--backend", "iptables-nft"];
    let killed = pod.try_run(RunAs::Root, "env", arguments)?;
    ensure!(killed.status.code().is_none(), "{}", killed.errors());
    let left = listed(&pod)?;
    ensure!(
        left.contains("table ip mangle"),
        "nothing was in the middle: {left}"
    );
    init(&pod, "--cleanup")?;
    assert_eq!(listed(&pod)?, "");
    Ok(())
}
