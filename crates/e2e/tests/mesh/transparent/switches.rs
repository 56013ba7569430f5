//! The switches that TPROXY without conntrack takes: set, remembered by rules and routes, and put back; and what
//! is said where the kernel or the namespace has not what it takes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Result;
use e2e::{Pod, RunAs, eventually, weir};

use super::{BACKENDS, TRACKED, UNTRACKED, init};

const SWITCHES: [&str; 3] = [
    "net/ipv4/tcp_fwmark_accept",
    "net/ipv4/fwmark_reflect",
    "net/ipv6/fwmark_reflect",
];
const OFF: &str = "000";
const ON: &str = "111";

fn switches(pod: &Pod) -> Result<String> {
    let read = |name| fs::read_to_string(format!("/proc/sys/{name}"));
    let values = pod.within(|| SWITCHES.map(read))?;
    let values = values.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(values.iter().map(|value| value.trim()).collect())
}

fn pod() -> Result<Pod> {
    let pod = Pod::bare("pod", "10.77.0.1".parse()?, "fd00:77::1".parse()?)?;
    pod.ip("link set lo up")?;
    pod.ip("link add eth0 type veth peer name other")?;
    pod.ip("link set eth0 up")?;
    Ok(pod)
}

#[test]
fn they_are_set_with_the_rules_and_put_back_with_them() -> Result<()> {
    let pod = pod()?;
    for (backend, next) in BACKENDS.into_iter().zip(BACKENDS.into_iter().cycle().skip(1)) {
        assert_eq!(switches(&pod)?, OFF);
        init(&pod, &UNTRACKED, backend)?;
        assert_eq!(switches(&pod)?, ON);
        // Drift.
        pod.sysctl(SWITCHES[2], "0")?;
        let again = [&UNTRACKED[..], &["--backend", backend]].concat();
        assert!(weir::run(&pod, &again)?.text().contains("Captured"));
        assert_eq!(switches(&pod)?, ON);
        // The other kind, and another mode, need none of them; another back-end remembers as well.
        init(&pod, &TRACKED, backend)?;
        assert_eq!(switches(&pod)?, OFF);
        init(&pod, &UNTRACKED, backend)?;
        init(&pod, &UNTRACKED, next)?;
        assert_eq!(switches(&pod)?, ON);
        weir::run(&pod, &["init", "--sidecar"])?;
        assert_eq!(switches(&pod)?, OFF);
        init(&pod, &UNTRACKED, backend)?;
        weir::run(&pod, &["init", "--cleanup"])?;
        assert_eq!(switches(&pod)?, OFF);
        // What others have set is left to them, whenever they have.
        pod.sysctl(SWITCHES[0], "1")?;
        init(&pod, &UNTRACKED, backend)?;
        assert_eq!(switches(&pod)?, ON);
        weir::run(&pod, &["init", "--cleanup"])?;
        assert_eq!(switches(&pod)?, "100");
        pod.sysctl(SWITCHES[0], "0")?;
    }
    Ok(())
}

/// What a run leaves that was killed before its rules were written, or after they were taken out: the same as a
/// flush does.
fn flush(pod: &Pod) -> Result<()> {
    pod.run("nft", ["flush", "ruleset"])?;
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        for table in ["raw", "mangle", "nat"] {
            pod.run(program, ["-t", table, "-F"])?;
            pod.run(program, ["-t", table, "-X"])?;
        }
    }
    Ok(())
}

#[test]
fn neither_a_flush_nor_a_killed_run_makes_them_forgotten() -> Result<()> {
    let pod = pod()?;
    let families = ["-4", "-6"];
    let cleans_up = || -> Result<()> {
        let said = weir::run(&pod, &["init", "--cleanup"])?.text();
        assert!(said.contains("Taken out"), "{said}");
        assert_eq!(switches(&pod)?, OFF);
        for family in families {
            let routes = pod.run("ip", [family, "route", "show", "table", "all", "proto", "87"])?;
            assert_eq!(routes.text(), "");
        }
        let again = weir::run(&pod, &["init", "--cleanup"])?.text();
        assert!(again.contains("Nothing to take out"), "{again}");
        Ok(())
    };
    for backend in BACKENDS {
        init(&pod, &UNTRACKED, backend)?;
        flush(&pod)?;
        cleans_up()?;
        // The next run takes them over.
        init(&pod, &UNTRACKED, backend)?;
        flush(&pod)?;
        init(&pod, &UNTRACKED, backend)?;
        assert_eq!(switches(&pod)?, ON);
        cleans_up()?;
        // Killed between the routing rules and their routes.
        init(&pod, &UNTRACKED, backend)?;
        flush(&pod)?;
        for family in families {
            pod.ip(&format!("{family} rule del fwmark 1337"))?;
        }
        cleans_up()?;
    }
    Ok(())
}

#[test]
fn an_unconfirmed_change_is_taken_back_with_them() -> Result<()> {
    let pod = pod()?;
    let for_a_moment = ["--host", "--confirm-within", "2"];
    weir::run(&pod, &[&UNTRACKED[..], &for_a_moment].concat())?;
    eventually("the switches to be off", || {
        (switches(&pod).ok()? == OFF).then_some(())
    })?;
    weir::run(&pod, &UNTRACKED)?;
    // The process that has undone the first change may be about to end.
    let again = [&["init", "--sidecar"], &for_a_moment[..]].concat();
    eventually("the other mode", || weir::run(&pod, &again).ok())?;
    eventually("the switches to be on again", || {
        (switches(&pod).ok()? == ON).then_some(())
    })
}

/// Runs `weir` by way of a shell that does something before.
fn after(pod: &Pod, before: &str, arguments: &[&str]) -> Result<(bool, String)> {
    let script = format!(
        "{before}; exec {} {}",
        weir::binary()?.display(),
        arguments.join(" ")
    );
    let said = pod.try_run(RunAs::Root, "unshare", ["--mount", "sh", "-ec", &script])?;
    Ok((said.status.success(), said.text() + &said.errors()))
}

/// As in a container without privilege.
const READ_ONLY: &str = "mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys";

#[test]
fn where_they_cannot_be_set_it_is_said_or_the_other_kind_is_taken() -> Result<()> {
    let pod = pod()?;
    let (done, said) = after(&pod, READ_ONLY, &UNTRACKED)?;
    assert!(
        !done
            && said
                .contains("--inbound-tproxy-conntrack: off is not possible here: net.ipv4.tcp_fwmark_accept"),
        "{said}"
    );
    assert!(!holds_rules(&pod)?);
    let auto = [&TRACKED[..], &["--inbound-tproxy-conntrack", "auto"]].concat();
    let (done, said) = after(&pod, READ_ONLY, &auto)?;
    assert!(
        done && said
            .contains("followed by conntrack (it cannot be kept out here: net.ipv4.tcp_fwmark_accept"),
        "{said}"
    );
    // Somebody else has seen to it.
    for switch in SWITCHES {
        pod.sysctl(switch, "1")?;
    }
    let (done, said) = after(&pod, READ_ONLY, &auto)?;
    assert!(
        done && said.contains("without conntrack (possible here)"),
        "{said}"
    );
    let (done, said) = after(&pod, READ_ONLY, &["init", "--cleanup"])?;
    assert!(done, "{said}");
    assert_eq!(switches(&pod)?, ON);
    Ok(())
}

fn holds_rules(pod: &Pod) -> Result<bool> {
    let nft = pod.run("nft", ["list", "ruleset"])?.text();
    let legacy = pod.run("iptables-legacy-save", [""; 0])?.text();
    Ok(nft.contains("weir") || legacy.contains("WEIR"))
}

/// A program that refuses to look at that word, in the words of the real one, and else does what that does.
fn stand_in(dir: &Path, program: &str, word: &str, refusal: &str) -> Result<()> {
    let script = format!(
        "#!/bin/sh\ninput=$(cat)\ncase \"$input\" in *{word}*) {refusal};; esac\n\
         printf '%s\\n' \"$input\" | PATH=${{PATH#*:}} exec {program} \"$@\"\n"
    );
    let path = dir.join(program);
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

#[test]
fn a_module_that_is_missing_is_named_before_anything_is_written() -> Result<()> {
    const BY_NFT: &str = "echo 'Error: Could not process rule: No such file or directory' >&2; exit 1";
    let warning = |of: &str| {
        format!("echo 'Warning: Extension {of} revision 0 not supported, missing kernel module?' >&2")
    };
    let by_restore = [
        ("iptables-nft-restore", "iptables-nft"),
        ("ip6tables-legacy-restore", "iptables-legacy"),
    ];
    let pod = pod()?;
    let cases = [
        ("nft", "nft", "tproxy", BY_NFT.to_owned(), "nft_tproxy", false),
        ("nft", "nft", "socket", BY_NFT.to_owned(), "nft_socket", false),
        ("nft", "nft", "notrack", BY_NFT.to_owned(), "nft_ct", true),
    ];
    let more = by_restore.into_iter().flat_map(|(program, backend)| {
        [("TPROXY", "xt_TPROXY", false), ("CT", "xt_CT", true)].map(|(word, module, only_untracked)| {
            (program, backend, word, warning(word), module, only_untracked)
        })
    });
    for (program, backend, word, refusal, module, only_untracked) in cases.into_iter().chain(more) {
        let dir = tempfile::tempdir()?;
        let word = if word == "CT" { "'-j CT'" } else { word };
        stand_in(dir.path(), program, word, &refusal)?;
        let path = format!("PATH={}:$PATH; export PATH", dir.path().display());
        let (done, said) = after(&pod, &path, &[&UNTRACKED[..], &["--backend", backend]].concat())?;
        assert!(!done && said.contains(module), "{program} {word}: {said}");
        assert!(!holds_rules(&pod)? && switches(&pod)? == OFF, "{program} {word}");
        let auto = ["--inbound-tproxy-conntrack", "auto", "--backend", backend];
        let (done, said) = after(&pod, &path, &[&TRACKED[..], &auto].concat())?;
        assert_eq!(done, only_untracked, "{program} {word}: {said}");
        assert!(said.contains(module), "{program} {word}: {said}");
        weir::run(&pod, &["init", "--cleanup"])?;
    }
    Ok(())
}
