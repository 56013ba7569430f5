//! What is left behind: nothing, however a run ends, and with whatever rights it runs.

use anyhow::{Context, Result};
use e2e::{Pod, RunAs, eventually, weir};
use rustix::process::Signal;

use super::{World, init, verify, verify_as};

/// Devices, addresses, routes, routing rules and settings.
fn state(pod: &Pod) -> Result<String> {
    let script = "ip -d link; ip addr; ip -4 rule; ip -6 rule; ip -4 route show table all; ip -6 route show table all; \
                  ip neigh show nud permanent; grep -r . /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf 2>/dev/null; true";
    let text = pod.run("sh", ["-c", script])?.text();
    // The kernel gives and checks such addresses in its own time.
    let changing =
        |line: &&str| line.contains("fe80") || line.contains("ff00") || line.contains("stable_secret");
    let lines = text.lines().filter(|line| !changing(line));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// Waits until the state is that again: the far end of a wire goes a moment after its process.
fn await_state(pod: &Pod, before: &str) -> Result<()> {
    let same = eventually("nothing to be left", || {
        (state(pod).ok()? == before).then_some(())
    });
    same.with_context(|| {
        let now = state(pod).unwrap_or_default();
        let is_new = |line: &&str| !before.lines().any(|old| old == *line);
        let is_gone = |line: &&str| !now.lines().any(|new| new == *line);
        let new: Vec<_> = now.lines().filter(is_new).collect();
        let gone: Vec<_> = before.lines().filter(is_gone).collect();
        format!("new: {new:#?}\ngone: {gone:#?}")
    })
}

/// What an init container has.
const INIT_CONTAINER: [&str; 5] = [
    "setpriv",
    "--bounding-set",
    "-all,+net_admin,+net_raw",
    "--inh-caps",
    "-all",
];

#[test]
fn a_run_leaves_nothing() -> Result<()> {
    let world = World::create()?;
    for flags in [
        "--sidecar",
        "--sidecar -m TPROXY",
        "-i 10.96.0.0/12,fd00:96::/32 -b *",
        "--sidecar -c eth0,tun7 -k tap+",
    ] {
        init(&world.pod, "--cleanup")?;
        init(&world.pod, flags)?;
        let before = state(&world.pod)?;
        verify(&world.pod, "--before-proxy")?;
        eventually("nothing to be left", || {
            (state(&world.pod).ok()? == before).then_some(())
        })?;
    }
    Ok(())
}

#[test]
fn with_the_rights_of_an_init_container_less_is_probed_and_said_so() -> Result<()> {
    let world = World::create()?;
    init(&world.pod, "--sidecar")?;
    let before = state(&world.pod)?;
    let verified = verify_as(&world.pod, "--before-proxy", &INIT_CONTAINER)?;
    assert_eq!(verified.code, 3, "{}", verified.why());
    let why = verified.why();
    assert!(why.contains("CAP_SETUID") && !why.contains("broken"), "{why}");
    await_state(&world.pod, &before)?;
    // Another user may not see which tables of legacy iptables there are, whatever its capabilities.
    let nobody = [
        "setpriv",
        "--reuid=65532",
        "--regid=65532",
        "--clear-groups",
        "--inh-caps=-all,+net_admin,+net_raw",
        "--ambient-caps=-all,+net_admin,+net_raw",
        "--bounding-set=-all,+net_admin,+net_raw",
    ];
    let verified = verify_as(&world.pod, "--before-proxy", &nobody)?;
    assert_eq!(verified.code, 2, "{}", verified.why());
    let said = &verified.said;
    assert!(
        said.contains("run as root") && said.contains("[WEIR-RULES-REFUSED]"),
        "{said}"
    );
    await_state(&world.pod, &before)?;
    // With these it is all.
    let more = "-all,+net_admin,+net_raw,+setuid,+setgid";
    let verified = verify_as(
        &world.pod,
        "--before-proxy",
        &["setpriv", "--bounding-set", more, "--inh-caps", "-all"],
    )?;
    assert_eq!(verified.code, 0, "{}", verified.why());
    // Without any, it says what it needs.
    let verified = verify_as(
        &world.pod,
        "",
        &["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"],
    )?;
    assert_eq!(verified.code, 2, "{}", verified.why());
    assert!(verified.said.contains("CAP_NET_ADMIN"), "{}", verified.said);
    Ok(())
}

#[test]
fn a_run_that_is_killed_leaves_nothing_to_the_next() -> Result<()> {
    let world = World::create()?;
    let pod = &world.pod;
    init(pod, "--sidecar -c eth0,tun7")?;
    // So that it has something to wait for.
    pod.run("sh", ["-c", "nft add table inet theirs; nft 'add chain inet theirs x { type filter hook input priority 0; tcp dport 15006 drop; }'"])?;
    let before = state(pod)?;
    let binary = weir::binary()?.to_string_lossy().into_owned();
    for by in [&["setpriv", "--"][..], &INIT_CONTAINER] {
        let mut words = by.to_vec();
        words.extend([binary.as_str(), "verify", "--before-proxy", "--timeout", "60"]);
        let mut run = pod.start(RunAs::Root, words[0], &words[1..])?;
        eventually("the wire and the device that was made", || {
            let links = pod.run("ip", ["-br", "link"]).ok()?.text();
            links.contains("tun7").then_some(())
        })?;
        run.signal(Signal::KILL)?;
        run.wait()?;
        verify(pod, "--before-proxy --timeout 1")?;
        eventually("nothing to be left", || {
            (state(pod).ok()? == before).then_some(())
        })?;
    }
    Ok(())
}
