//! What the machine lacks: programs, what the kernel refuses, limits. Each is taken away in mounts or a user namespace
//! that nobody else sees.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use anyhow::{Context, Result};
use e2e::manifests::Manifests;

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

/// Puts a program of that name in front of the real one.
fn in_front(stage: &Stage, name: &str, script: &str) -> Result<String> {
    let folder = stage.file("in-front");
    fs::create_dir_all(&folder)?;
    let file = format!("{folder}/{name}");
    fs::write(&file, format!("#!/bin/sh\n{script}\n"))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    Ok(format!("export PATH={folder}:$PATH\n"))
}

/// As iptables says it of a kernel that lacks a module; all else it does.
const LACKS_REDIRECT: &str = r#"text=$(cat)
case "$text" in *"-j REDIRECT"*)
    echo 'Warning: Extension REDIRECT revision 0 not supported, missing kernel module?' >&2
    echo 'iptables-nft-restore v1.8.9 (nf_tables): line 3: RULE_APPEND failed (No such file or directory)' >&2
    exit 4
esac
printf '%s\n' "$text" | /usr/sbin/${0##*/} "$@""#;

#[test]
fn each_extension_of_iptables_that_is_missing_is_named() -> Result<()> {
    let stage = Stage::set()?;
    let asked = "-- --sidecar --backend iptables-nft";
    let refused = |script: &str, found: &str, fix: &str| -> Result<()> {
        let said = stage.check_after(script, asked)?;
        said.is(&[&format!("error WEIR-RULES-REFUSED {found}")])?;
        let said_fix = said.report["findings"][0]["fix"].as_str().context("no fix")?;
        assert!(
            said_fix.contains(fix) && said_fix.contains("--backend nft"),
            "{said_fix}"
        );
        Ok(())
    };
    // Of the program's own.
    let hide = |name: &str| {
        format!(
            "for file in $(find /usr/lib /lib -name libxt_{name}.so); do mount --bind /dev/null $(readlink -f $file); done"
        )
    };
    refused(
        &hide("owner"),
        "match owner (IPv4 and IPv6) is refused",
        "install the package iptables again, which lacks libxt_owner.so",
    )?;
    refused(
        &format!("{}\n{}", hide("owner"), hide("comment")),
        "match comment (IPv4 and IPv6), match owner (IPv4 and IPv6) are refused",
        "libxt_comment.so",
    )?;
    // Of the kernel's.
    let v4 = in_front(&stage, "iptables-nft-restore", LACKS_REDIRECT)?;
    refused(
        &v4,
        "target REDIRECT (IPv4) is refused",
        "load xt_REDIRECT on the machine",
    )?;
    in_front(&stage, "ip6tables-nft-restore", LACKS_REDIRECT)?;
    refused(
        &v4,
        "target REDIRECT (IPv4 and IPv6) is refused",
        "load xt_REDIRECT on the machine",
    )
}

#[test]
fn the_program_of_sets_and_the_kernels_part_of_them_are_told_apart() -> Result<()> {
    let stage = Stage::set()?;
    let manifests = Manifests::create()?;
    manifests.write("web.yaml", crate::manifests::SERVICE)?;
    let folder = manifests.path().display();
    let asked = format!("-- --services {folder} --watch --backend iptables-nft");
    stage.check(&asked)?.is_silent()?;
    let named = |script: &str, name: &str, fix: &str| -> Result<()> {
        let said = stage.check_after(script, &asked)?;
        said.is(&[&format!("error {name} sets of addresses and ports")])?;
        let said_fix = said.report["findings"][0]["fix"].as_str().context("no fix")?;
        assert!(said_fix.starts_with(fix), "{said_fix}");
        Ok(())
    };
    named(
        &format!("{HIDE}hide ipset"),
        "WEIR-BACKEND",
        "install the package ipset",
    )?;
    let said = "echo 'ipset v7.17: Cannot open session to kernel.' >&2; exit 1";
    let in_front = in_front(&stage, "ipset", said)?;
    named(
        &in_front,
        "WEIR-RULES-REFUSED",
        "load ip_set and ip_set_hash_ipport",
    )
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
