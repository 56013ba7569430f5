//! A program that hangs, and a lock that somebody else holds: `weir init` ends with an error that names them, and the
//! namespace is as it was.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::thread;

use anyhow::{Result, anyhow, ensure};
use e2e::{Pod, RunAs, weir};

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
    let folder = tempfile::tempdir()?;
    let stand_in = folder.path().join(program);
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *{word}*) exec sleep 1000;; esac\nPATH=${{PATH#*:}} exec {program} \"$@\"\n"
    );
    std::fs::write(&stand_in, script)?;
    std::fs::set_permissions(&stand_in, PermissionsExt::from_mode(0o755))?;
    let path = format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", folder.path().display());
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
