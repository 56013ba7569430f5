//! Where it refuses: without the right to it, with a family that cannot be captured, on a machine's own network unless
//! that is confirmed.

use std::process::Command;

use anyhow::Result;
use e2e::{RunAs, eventually, weir};

use super::{init, on_lo, pod, refusal, rules};

#[test]
fn without_the_right_to_it_says_what_to_give() -> Result<()> {
    let pod = pod()?;
    for arguments in [["--sidecar"], ["--cleanup"]] {
        let said = refusal(&pod, RunAs::Application, &arguments)?;
        assert!(
            said.contains("CAP_NET_ADMIN") && said.contains("NET_ADMIN, NET_RAW"),
            "{said}"
        );
    }
    Ok(())
}

#[test]
fn ipv6_is_captured_exactly_where_it_is_on() -> Result<()> {
    let pod = pod()?;
    pod.sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
    let said = init(&pod, "--sidecar")?.text();
    assert!(!said.contains("IPv6"), "{said}");
    assert!(!pod.run("ip6tables-save", [""; 0])?.text().contains("WEIR"));
    pod.sysctl("net/ipv6/conf/eth0/disable_ipv6", "0")?;
    pod.sysctl("net/ipv6/conf/lo/disable_ipv6", "0")?;
    let said = init(&pod, "--sidecar")?.text();
    assert!(said.contains("IPv6"), "{said}");
    assert!(pod.run("ip6tables-save", [""; 0])?.text().contains("WEIR"));
    Ok(())
}

#[test]
fn a_family_that_cannot_be_captured_is_an_error_and_no_hole() -> Result<()> {
    let pod = pod()?;
    // A directory that has everything but ip6tables. System directories are looked in as well, so they
    // are hidden from the program.
    let hide = "mount --make-rprivate / && for v in -nft -legacy ''; do for w in save restore; do \
                mount --bind /dev/null /usr/sbin/ip6tables$v-$w; done; done && \
                \"$0\" init --sidecar --backend iptables";
    let binary = weir::binary()?;
    let binary = binary.to_string_lossy();
    let finished = pod.try_run(
        RunAs::Root,
        "unshare",
        ["--mount", "sh", "-c", hide, binary.as_ref()],
    )?;
    let said = finished.errors();
    assert!(!finished.status.success(), "{}", finished.text());
    assert!(
        said.contains("IPv6: is on") && said.contains("disable_ipv6=1"),
        "{said}"
    );
    assert!(!rules(&pod)?.contains("WEIR"));
    Ok(())
}

#[test]
fn lo_without_ipv6_takes_back_everything() -> Result<()> {
    let pod = pod()?;
    pod.sysctl("net/ipv6/conf/lo/disable_ipv6", "1")?;
    let said = refusal(&pod, RunAs::Root, &["--sidecar"])?;
    assert!(
        said.contains("::6") && said.contains("net.ipv6.conf.lo.disable_ipv6=0"),
        "{said}"
    );
    assert!(!rules(&pod)?.contains("WEIR"));
    Ok(())
}

#[test]
fn a_machine_is_refused_without_host() -> Result<()> {
    // Asked by a dry run, which can write nothing whatever it answers.
    let physical = netsys::links::physical_devices()?;
    let binary = weir::binary()?;
    let dry = |arguments: &[&str]| {
        Command::new(&binary)
            .args(["init", "--sidecar", "-n"])
            .args(arguments)
            .output()
    };
    let output = dry(&[])?;
    let said = String::from_utf8_lossy(&output.stderr);
    if let Some(device) = physical.first() {
        assert!(!output.status.success(), "{device:?}");
        assert!(said.contains("--host") && said.contains(device), "{said}");
    } else {
        assert!(output.status.success(), "{said}");
    }
    assert!(dry(&["--host"])?.status.success());
    Ok(())
}

#[test]
fn a_change_of_a_machine_is_taken_back_unless_it_is_confirmed() -> Result<()> {
    let pod = pod()?;
    init(&pod, "-b 80")?;
    let earlier = (rules(&pod)?, on_lo(&pod)?);
    // Not confirmed: what was there before comes back, although the program that made the change is long gone.
    let said = init(&pod, "--sidecar --host --confirm-within 1")?.text();
    assert!(
        said.contains("Captured:") && said.contains("weir init --confirm"),
        "{said}"
    );
    eventually("the earlier rules to come back", || {
        let now = (rules(&pod).ok()?, on_lo(&pod).ok()?);
        (now == earlier).then_some(())
    })?;
    eventually("the waiting process to end", || {
        refusal(&pod, RunAs::Root, &["--confirm"]).ok()
    })?;

    // Confirmed: it stays.
    init(&pod, "--sidecar --host --confirm-within 30")?;
    let said = refusal(&pod, RunAs::Root, &["--sidecar", "-o", "22", "--host"])?;
    assert!(said.contains("--confirm"), "{said}");
    init(&pod, "--confirm")?;
    let said = refusal(&pod, RunAs::Root, &["--confirm"])?;
    assert!(said.contains("waits"), "{said}");
    assert!(rules(&pod)?.contains("15021"));
    Ok(())
}

#[test]
fn a_stranger_cannot_confirm() -> Result<()> {
    let pod = pod()?;
    init(&pod, "--sidecar --host")?;
    let said = refusal(&pod, RunAs::Application, &["--confirm"])?;
    assert!(said.contains("user who made the change"), "{said}");
    // It goes on waiting for one who may.
    init(&pod, "--confirm").map(drop)
}
