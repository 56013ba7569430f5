//! Where nothing is wrong nothing is said, and nothing is changed or left.

use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::manifests::{Port, Service};
use e2e::mesh::addresses;
use e2e::{Mesh, Pod, RunAs, weir};

use crate::stage::Stage;

/// All that check could have changed.
fn state(pod: &Pod) -> Result<String> {
    let script = "nft -a list ruleset; cat /proc/net/ip_tables_names /proc/net/ip6_tables_names || true
                  ip rule; ip -6 rule; ip addr; ip route show table all; ip -6 route show table all
                  grep -r . /proc/sys/net/ipv4 /proc/sys/net/ipv6/conf /proc/sys/net/netfilter -s | grep -v conntrack_count || true";
    let said = pod.run("sh", ["-ec", script])?.text();
    // Addresses and routes count down, and keys are not to be read.
    let lines = said
        .lines()
        .filter(|line| !line.contains("valid_lft") && !line.contains(" expires "));
    Ok(lines.map(|line| format!("{line}\n")).collect())
}

#[test]
fn a_clean_namespace_is_silent_and_stays_as_it_is() -> Result<()> {
    let stage = Stage::set()?;
    let before = state(&stage.pod)?;
    stage.check("")?.is_silent()?;
    for backend in ["nft", "iptables-nft", "iptables-legacy"] {
        stage
            .check(&format!("-- --sidecar --backend {backend}"))?
            .is_silent()?;
    }
    ensure!(state(&stage.pod)? == before, "{before}");
    let text = stage
        .run("", &["--resolv-conf", &stage.file("resolv.conf")])?
        .text();
    assert!(text.starts_with("Nothing found; looked at 14 things."), "{text}");
    let text = stage
        .run("", &["-v", "--resolv-conf", &stage.file("resolv.conf")])?
        .text();
    assert!(
        text.contains("LOOKED AT") && text.contains("nft takes the rules for IPv4 and IPv6"),
        "{text}"
    );
    Ok(())
}

#[test]
fn a_captured_pod_with_its_proxy_and_manifests_is_silent() -> Result<()> {
    let mesh = Mesh::create()?;
    let server = mesh.net.pod("server")?;
    let web = Service::new("web", &addresses(10), &[Port::new("http", 80, 8080)]);
    mesh.manifests.service(&web, &[&server])?;
    mesh.manifests.pod(&server, "web")?;
    let (client, _sidecar) = mesh.client()?;
    let stage = Stage::set()?;
    let folder = mesh.manifests.path().to_string_lossy();
    // From outside, as an operator would.
    let said = stage.check(&format!("--netns {} --manifests {folder}", client.path()))?;
    said.is_silent()
}

#[test]
fn killed_at_any_time_it_leaves_nothing() -> Result<()> {
    let stage = Stage::set()?;
    stage.sh("iptables-nft -A INPUT -p icmp -j DROP")?;
    let before = state(&stage.pod)?;
    let weir = weir::binary()?.to_string_lossy().into_owned();
    let named = || -> Result<usize> {
        let listed = Command::new("ip").args(["netns", "list"]).output()?;
        Ok(String::from_utf8_lossy(&listed.stdout).lines().count())
    };
    let names = named()?;
    for step in 0..20_u64 {
        let mut check = stage.pod.start(RunAs::Root, &weir, ["check"])?;
        // Not to wait for anything: to end it at another place each time.
        thread::sleep(Duration::from_millis(step * 7));
        check.kill();
    }
    ensure!(state(&stage.pod)? == before, "{before}");
    ensure!(named()? == names, "a namespace has a name that had none");
    stage.check("")?.is_silent()
}
