//! Rules of others that stand in front of Weir's, and rules of Weir's that no installed program shows.

use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};
use e2e::{Pod, weir};

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
        if backend == "iptables-nft" {
            let second = pod.run("/usr/bin/env", [&*path, &*binary, "init", "--sidecar"]);
            ensure!(second.is_err(), "a second set beside the first");
        }
        ensure!(chain(&pod, backend)? == before, "{backend}: changed");
        init(&pod, "--cleanup")?;
        ensure!(chain(&pod, backend)?.is_empty(), "{backend}: not clean");
    }
    Ok(())
}
