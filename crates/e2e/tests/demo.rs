//! `weir demo`: it proves what it shows, as root and as an ordinary user, and leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Result;
use e2e::{Net, RunAs, eventually};
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
        assert_eq!(told.matches('✓').count(), 7, "{told}");
        assert!(!told.contains('✗') && !told.contains('\x1b'), "{told}");
        for hop in [
            "600 requests sent, 0 lost",
            "to port 15001",
            "to port 15006",
            "it was called from 127.0.0.6",
            "endpoint  10.244.0.1",
            ":8080, one of 3",
            "all three hold for IPv6 too: [fd00:96::10]:80, the server's pod, ::6",
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
    assert_eq!(processes_of(&weir), 4, "itself and three applications");
    killed.signal(Signal::KILL)?;
    killed.wait()?;
    eventually("its applications to end", || {
        (processes_of(&weir) == 0).then_some(())
    })
}
