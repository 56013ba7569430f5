//! A proxy that is known by its cgroup: probed from that cgroup, by a process that is moved there.

use anyhow::{Result, ensure};
use e2e::{Cgroup, Class, Pod};

use super::{BACKENDS, Verified, World, init, verify_as};

const SETTINGS: [&str; 3] = [
    "--sidecar",
    "-q 80,443 -b * -m TPROXY",
    "-i 10.96.0.0/12,fd00:96::/32 -b 8080",
];

/// Whether each packet of the proxy's has shown its rule.
fn ensure_proven(verified: &Verified, what: &str, by: &str) -> Result<()> {
    ensure!(
        verified.code == 0,
        "{what}: {}\n{}",
        verified.code,
        verified.why()
    );
    for family in ["IPv4", "IPv6"] {
        let is_it = |finding: &serde_json::Value| {
            let sent = finding["sent"].as_str().unwrap_or_default();
            finding["family"] == family && sent.contains(by) && finding["counted"] == true
        };
        ensure!(
            verified.findings()?.iter().any(is_it),
            "{what}: nothing{by}, {family}"
        );
    }
    Ok(())
}

#[test]
fn a_cgroup_of_version_2_is_proven_and_its_loss_is_caught() -> Result<()> {
    let world = World::create()?;
    let cgroup = Cgroup::create()?;
    for backend in BACKENDS {
        for setting in SETTINGS {
            let what = format!("{setting} --proxy-cgroup {} --backend {backend}", cgroup.path);
            init(&world.pod, &what)?;
            let verified = verify_as(&world.pod, "--before-proxy", &["setpriv"])?;
            ensure_proven(&verified, &what, &format!(" in cgroup {}", cgroup.path))?;
        }
    }
    // Made anew, it is not the one that the rules mean.
    cgroup.make_anew()?;
    let verified = verify_as(&world.pod, "--before-proxy", &["setpriv"])?;
    ensure!(verified.code == 1, "{}", verified.why());
    let read_only = [
        "unshare",
        "-m",
        "sh",
        "-c",
        "mount -o remount,bind,ro \"$0\" && exec \"$@\"",
    ];
    init(&world.pod, &format!("--sidecar --proxy-cgroup {}", cgroup.path))?;
    let root = netsys::cgroups::v2_root()?.unwrap_or_default();
    let by: Vec<_> = read_only.into_iter().chain(root.to_str()).collect();
    let verified = verify_as(&world.pod, "--before-proxy", &by)?;
    ensure!(
        verified.code == 3 && verified.why().contains("no process can be moved to"),
        "{}\n{}",
        verified.code,
        verified.why()
    );
    Ok(())
}

#[test]
fn a_class_id_is_proven_where_a_cgroup_has_it_and_else_named() -> Result<()> {
    const CLASS: u32 = 0x10_0077;
    let world = World::create()?;
    let class = Class::create(&world.pod, CLASS)?;
    let keeper = class.keeper().to_string();
    let where_it_is_mounted = ["nsenter", "-m", "-t", keeper.as_str()];
    for backend in BACKENDS {
        for setting in SETTINGS {
            let what = format!("{setting} --proxy-class-id {CLASS:#x} --backend {backend}");
            init(&world.pod, &what)?;
            let verified = verify_as(&world.pod, "--before-proxy", &where_it_is_mounted)?;
            ensure_proven(&verified, &what, " in class id 0x100077")?;
        }
    }
    init(&world.pod, "--sidecar --proxy-class-id 0x100078")?;
    for (by, why) in [
        (&where_it_is_mounted[..], "no cgroup has the class id 0x100078"),
        (&["setpriv"], "net_cls is mounted, and not to be seen from here"),
    ] {
        let verified = verify_as(&world.pod, "--before-proxy", by)?;
        let is_named = verified.code == 3 && verified.why().contains(why);
        ensure!(is_named, "{}\n{}", verified.code, verified.why());
    }
    Ok(())
}

#[test]
fn the_process_that_verifies_keeps_its_own_cgroups() -> Result<()> {
    const CLASS: u32 = 0x10_0079;
    let world = World::create()?;
    let class = Class::create(&world.pod, CLASS)?;
    let cgroup = Cgroup::create()?;
    let flags = format!(
        "--sidecar --proxy-class-id {CLASS:#x} --proxy-cgroup {}",
        cgroup.path
    );
    init(&world.pod, &flags)?;
    let keeper = class.keeper().to_string();
    let by = ["nsenter", "-m", "-t", keeper.as_str()];
    for _ in 0..3 {
        let verified = verify_as(&world.pod, "--before-proxy", &by)?;
        // Its other probes are an application's still.
        ensure_proven(&verified, "both", " in cgroup ")?;
        ensure_proven(&verified, "both", " in class id ")?;
        ensure!(
            verified
                .findings()?
                .iter()
                .any(|found| found["probe"] == "TCP out")
        );
    }
    ensure!(is_empty(&world.pod, &cgroup)?, "somebody stayed");
    Ok(())
}

fn is_empty(pod: &Pod, cgroup: &Cgroup) -> Result<bool> {
    let procs = cgroup.folder().join("cgroup.procs");
    let left = pod.run("cat", [procs])?.text();
    Ok(left.trim().is_empty())
}
