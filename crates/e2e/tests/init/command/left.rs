//! What others have stays, and a clean-up leaves what was before.

use anyhow::Result;
use e2e::Pod;

use super::{init, on_lo, pod, rules, saved};

/// Rules of somebody else before, around and after ours, in chains of theirs too.
fn foreign(pod: &Pod, variant: &str, place: &str) -> Result<()> {
    for program in ["iptables", "ip6tables"] {
        let run = |arguments: &str| pod.run(&format!("{program}-{variant}"), arguments.split(' '));
        run(&format!("-t nat -{place} OUTPUT -p tcp --dport 4242 -j RETURN"))?;
        run(&format!(
            "-t nat -{place} PREROUTING -p tcp --dport 4242 -j RETURN"
        ))?;
        if place == "A" {
            run("-t nat -N OTHERS")?;
            run("-t nat -A OTHERS -p tcp -m multiport --dports 1:5,4243 -j REDIRECT --to-ports 4244")?;
            run(
                "-t nat -A OUTPUT -p tcp -m limit --limit 5/min -m comment --comment it's_\"theirs\" -j OTHERS",
            )?;
            run("-t filter -A INPUT -m conntrack --ctstate INVALID -j DROP")?;
        }
    }
    Ok(())
}

#[test]
fn foreign_rules_stay_where_they_are_and_clean_up_leaves_what_was_before() -> Result<()> {
    for variant in ["nft", "legacy"] {
        let force = format!("--force-iptables-binary {variant}");
        let pod = pod()?;
        foreign(&pod, variant, "A")?;
        let before = (saved(&pod, variant, &[])?, on_lo(&pod)?);
        init(&pod, &format!("--sidecar {force}"))?;
        init(&pod, "--cleanup")?;
        assert_eq!((saved(&pod, variant, &[])?, on_lo(&pod)?), before, "{variant}");

        // Ours stay between theirs when they are replaced.
        init(&pod, &format!("--sidecar {force}"))?;
        foreign(&pod, variant, "I")?;
        foreign_tail(&pod, variant)?;
        let order = jumps(&saved(&pod, variant, &[])?);
        init(&pod, &format!("-i 10.0.0.0/8 -b 80 -x 10.1.0.0/16 {force}"))?;
        assert_eq!(jumps(&saved(&pod, variant, &[])?), order, "{variant}");
        init(&pod, "--cleanup")?;
        let after = saved(&pod, variant, &[])?;
        assert!(!after.contains("WEIR") && !after.contains("weir"), "{after}");
        let theirs: Vec<_> = order.into_iter().filter(|line| !line.contains("WEIR")).collect();
        assert_eq!(jumps(&after), theirs, "{variant}");
    }
    Ok(())
}

fn foreign_tail(pod: &Pod, variant: &str) -> Result<()> {
    let tail = [
        "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "--dport", "4245", "-j", "RETURN",
    ];
    pod.run(&format!("iptables-{variant}"), tail).map(drop)
}

/// The rules of the built-in chains, in order.
fn jumps(saved: &str) -> Vec<String> {
    let of_builtin = |line: &&str| line.starts_with("-A OUTPUT") || line.starts_with("-A PREROUTING");
    saved.lines().filter(of_builtin).map(str::to_owned).collect()
}

#[test]
fn clean_up_takes_away_the_tables_that_weir_made_and_no_others() -> Result<()> {
    let pod = pod()?;
    let before = rules(&pod)?;
    assert_eq!(before, "", "a new namespace has no table");
    init(&pod, "--sidecar")?;
    init(&pod, "--sidecar -o 22")?;
    init(&pod, "--cleanup")?;
    assert_eq!(rules(&pod)?, before);
    assert_eq!(pod.run("nft", ["list", "ruleset"])?.text(), "");

    // Made by somebody else, and empty.
    pod.run("iptables-nft", ["-t", "nat", "-A", "OUTPUT", "-j", "RETURN"])?;
    pod.run("iptables-nft", ["-t", "nat", "-F", "OUTPUT"])?;
    let before = rules(&pod)?;
    init(&pod, "--sidecar")?;
    init(&pod, "--cleanup")?;
    assert_eq!(rules(&pod)?, before);

    // Made by Weir, and used by others since, in a way that iptables does not show.
    pod.run("nft", ["delete", "table", "ip", "nat"])?;
    init(&pod, "--sidecar")?;
    pod.run("nft", "add set ip nat theirs { type ipv4_addr; }".split(' '))?;
    init(&pod, "--cleanup")?;
    assert!(pod.run("nft", ["list", "ruleset"])?.text().contains("theirs"));
    Ok(())
}

#[test]
fn an_address_that_was_there_before_stays() -> Result<()> {
    let pod = pod()?;
    pod.ip("addr add ::6/128 dev lo nodad")?;
    let before = on_lo(&pod)?;
    init(&pod, "--sidecar")?;
    init(&pod, "--sidecar")?;
    init(&pod, "--cleanup")?;
    assert_eq!(on_lo(&pod)?, before);
    Ok(())
}

#[test]
fn the_passthrough_address_is_put_on_lo_and_comes_back_if_lost() -> Result<()> {
    let pod = pod()?;
    init(&pod, "--sidecar")?;
    assert!(on_lo(&pod)?.contains("::6/128"));
    pod.ip("addr del ::6/128 dev lo")?;
    init(&pod, "--sidecar")?;
    assert!(on_lo(&pod)?.contains("::6/128"));
    init(&pod, "--cleanup")?;
    assert!(!on_lo(&pod)?.contains("::6/128"));
    Ok(())
}
