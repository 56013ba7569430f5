//! What the machine lacks: programs, what the kernel refuses, limits. Each is taken away in mounts or a user namespace
//! that nobody else sees.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use anyhow::{Context, Result};

use crate::stage::Stage;

/// Makes a program look as if it were not installed.
const HIDE: &str = "hide() { mount --bind /dev/null \"$(readlink -f \"$(command -v $1)\")\"; }\n";

#[test]
fn a_back_end_that_is_not_installed_is_named() -> Result<()> {
    let stage = Stage::set()?;
    let hidden = |what: &str| format!("{HIDE}{what}");
    let said = stage.check_after(&hidden("hide nft"), "-- --sidecar --backend nft")?;
    said.is(&[
        "error WEIR-FAMILY-HOLE nft is not installed",
        "error WEIR-FAMILY-HOLE nft is not installed",
    ])?;
    // Without being asked for, another one does.
    stage.check_after(&hidden("hide nft"), "")?.is_silent()?;
    stage
        .check_after(&hidden("hide iptables-nft; hide iptables-legacy"), "")?
        .is_silent()
}

#[test]
fn rules_that_nobody_can_show_are_named() -> Result<()> {
    let stage = Stage::set()?;
    stage.sh("iptables-legacy -t nat -A OUTPUT -p tcp -j RETURN")?;
    let said = stage.check_after(&format!("{HIDE}hide iptables-legacy"), "")?;
    said.is(&["warning WEIR-RULES-HIDDEN iptables-legacy is not installed"])
}

#[test]
fn what_the_kernel_refuses_is_named_with_what_would_do() -> Result<()> {
    let stage = Stage::set()?;
    let refuses = stage.file("nft");
    // As nft says it where a module is missing.
    fs::write(
        &refuses,
        "#!/bin/sh\necho 'Error: Could not process rule: No such file or directory' >&2\nexit 1\n",
    )?;
    fs::set_permissions(&refuses, fs::Permissions::from_mode(0o755))?;
    let script = format!("mount --bind {refuses} \"$(readlink -f \"$(command -v nft)\")\"");
    let said = stage.check_after(&script, "")?;
    said.is(&["error WEIR-RULES-REFUSED back-end nft"])?;
    let fix = said.report["findings"][0]["fix"].as_str().context("no fix")?;
    assert!(fix.contains("--backend iptables-nft"), "{fix}");
    Ok(())
}

#[test]
fn what_weir_init_would_refuse_is_named() -> Result<()> {
    let stage = Stage::set()?;
    stage
        .check("-- --sidecar --proxy-cgroup no.such.slice")?
        .is(&["error WEIR-SETTING there is no such cgroup"])?;
    stage
        .check("-- --sidecar -m TPROXY --proxy-mark 1337")?
        .is(&["error WEIR-MARK-CLASH", "note WEIR-TPROXY-PRIVILEGE"])
}

#[test]
fn few_descriptors_are_named() -> Result<()> {
    let stage = Stage::set()?;
    let said = stage.check_after("ulimit -n 1024", "")?;
    said.is(&["warning WEIR-DESCRIPTORS can have 1024"])
}

#[test]
fn look_ups_past_every_rule_are_named() -> Result<()> {
    let stage = Stage::set()?;
    let folder = stage.file("nscd");
    fs::create_dir(&folder)?;
    let _daemon = UnixListener::bind(format!("{folder}/socket"))?;
    let script = format!("mount -t tmpfs none /run; mkdir /run/nscd; mount --bind {folder} /run/nscd");
    stage
        .check_after(&script, "")?
        .is(&["note WEIR-DNS-BYPASS nscd"])?;
    stage
        .check_after(&script, "-- --sidecar --redirect-dns")?
        .is(&["warning WEIR-DNS-BYPASS nscd"])
}

/// Runs `$1` as a user, below a user namespace that allows no further ones.
const WITHOUT_NAMESPACES: &str = "
unshare -U sleep 1000 & holder=$!
until [ \"$(readlink /proc/$holder/ns/user)\" != \"$(readlink /proc/self/ns/user)\" ]; do sleep 0.01; done
echo '0 0 65536' > /proc/$holder/uid_map
echo '0 0 65536' > /proc/$holder/gid_map
nsenter -U -t $holder sh -ec \"
    echo 0 > /proc/sys/user/max_user_namespaces
    exec setpriv --reuid 1000 --regid 1000 --clear-groups $1\" || code=$?
kill $holder
exit ${code:-0}";

#[test]
fn a_user_without_namespaces_and_rights_hears_what_was_not_looked_at() -> Result<()> {
    let stage = Stage::set()?;
    let weir = e2e::weir::binary()?;
    let binary = stage.file("weir");
    fs::copy(weir, &binary)?;
    e2e::servers::open_to_all(std::path::Path::new(&stage.file("")))?;
    let check = format!(
        "{binary} check -o json --resolv-conf {}",
        stage.file("resolv.conf")
    );
    let finished = stage
        .pod
        .try_run(e2e::RunAs::Root, "sh", ["-ec", WITHOUT_NAMESPACES, "sh", &check])?;
    let text = finished.text();
    let report: serde_json::Value = serde_json::from_str(&text).with_context(|| text + &finished.errors())?;
    let told = report["findings"].to_string();
    assert!(told.contains("WEIR-USER-NAMESPACE"), "{report:#}");
    let skipped = report["not_looked_at"].to_string();
    assert!(skipped.contains("the rules in the namespace"), "{report:#}");
    assert_eq!(finished.status.code(), Some(3), "{report:#}");
    Ok(())
}
