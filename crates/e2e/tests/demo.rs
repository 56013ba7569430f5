//! `weir demo`: it proves what it shows, as root and as an ordinary user, and leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use e2e::{Net, RunAs, eventually};
use netsys::netns::Netns;
use rustix::process::Signal;

/// Processes whose program is this file.
fn processes_of(program: &Path) -> usize {
    let all = fs::read_dir("/proc").unwrap();
    all.filter(|entry| {
        fs::read_link(entry.as_ref().unwrap().path().join("exe")).is_ok_and(|exe| exe == program)
    })
    .count()
}

#[test]
fn it_proves_what_it_shows_and_leaves_nothing() -> Result<()> {
    let net = Net::create()?;
    let pod = net.pod("laptop")?;
    let shared = tempfile::tempdir()?;
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o755))?;
    let weir = shared.path().join("weir");
    fs::copy(e2e::weir::binary()?, &weir)?;
    let program = weir.to_str().unwrap();
    let machine = || -> Result<String> {
        Ok(pod.run("ip", ["-4", "addr"])?.text() + &pod.run("iptables-save", [] as [&str; 0])?.text())
    };
    let before = machine()?;
    for who in [RunAs::Root, RunAs::Application] {
        let finished = pod.try_run(who, program, ["demo"])?;
        let told = finished.text();
        assert_eq!(
            finished.status.code(),
            Some(0),
            "{who:?}: {told}{}",
            finished.errors()
        );
        assert_eq!(told.matches('✓').count(), 9, "{told}");
        assert!(!told.contains('✗') && !told.contains('\x1b'), "{told}");
        for hop in [
            "600 requests sent, 0 lost",
            "to port 15001",
            "to port 15006",
            "it was called from 127.0.0.6",
            "endpoint  10.244.0.1",
            ":8080, one of 3",
            "A         web.demo.svc.cluster.local: 10.96.0.10 (service demo/web)",
            "AAAA      www.example: 2001:db8::80 (resolver 10.244.0.53)",
            "all four hold for IPv6 too: [fd00:96::10]:80, the server's pod, ::6",
        ] {
            assert!(told.contains(hop), "{hop} is not in\n{told}");
        }
        assert_eq!(finished.errors(), "");
        eventually("its processes to end", || {
            (processes_of(&weir) == 0).then_some(())
        })?;
    }
    assert_eq!(machine()?, before);

    let mut killed = pod.start(RunAs::Application, program, ["demo"])?;
    eventually("the mesh", || killed.said().contains("registry").then_some(()))?;
    assert_eq!(processes_of(&weir), 5, "itself, three applications, a resolver");
    killed.signal(Signal::KILL)?;
    killed.wait()?;
    eventually("its applications to end", || {
        (processes_of(&weir) == 0).then_some(())
    })
}

/// Packets that this namespace's rules have led to the DNS proxy.
fn look_ups_captured(netns: &Netns) -> Result<u64> {
    let mut save = Command::new("iptables-save");
    save.args(["-c", "-t", "nat"]);
    netns.start_in(&mut save);
    let said = String::from_utf8(save.output()?.stdout)?;
    let captures = said.lines().filter(|line| line.contains("--to-ports 15053"));
    let packets = captures.filter_map(|line| line.strip_prefix('[')?.split(':').next()?.parse::<u64>().ok());
    Ok(packets.sum())
}

#[test]
fn the_look_ups_of_its_clients_are_captured_by_the_kernel() -> Result<()> {
    let net = Net::create()?;
    let pod = net.pod("laptop")?;
    let shared = tempfile::tempdir()?;
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o755))?;
    let weir = shared.path().join("weir");
    fs::copy(e2e::weir::binary()?, &weir)?;
    let demo = pod.start(RunAs::Application, weir.to_str().unwrap(), ["demo"])?;
    eventually("the load", || demo.said().contains("\n3  ").then_some(()))?;
    demo.signal(Signal::STOP)?;
    // Each sidecar's threads are in the namespace of its pod.
    let mut captured = HashMap::new();
    for task in fs::read_dir(format!("/proc/{}/task", demo.id()))? {
        let Ok(netns) = Netns::open(&task?.path().join("ns/net")) else {
            continue;
        };
        captured.insert(netns.id()?, look_ups_captured(&netns)?);
    }
    let clients = captured.values().filter(|count| **count > 0).count();
    assert_eq!(clients, 2, "{captured:?}");
    Ok(())
}
