//! eBPF programs where they can lead connections away: real ones, at a cgroup, a device or a namespace of the test's own.

use anyhow::{Context, Result};

use e2e::{Cgroup, Pod, Program, RunAs};

use crate::stage::Stage;

/// Loads one and attaches it; it goes with the program.
fn attach(pod: &Pod, hook: &str, name: &str, target: &str) -> Result<Program> {
    let script = include_str!("attach.py");
    let program = pod.start(RunAs::Root, "python3", ["-c", script, hook, name, target])?;
    e2e::eventually("the program to be attached", || {
        program.said().contains("attached").then_some(())
    })
    .with_context(|| format!("{hook}: {}", program.said()))?;
    Ok(program)
}

/// Somebody of the pod who is in a cgroup.
fn member(stage: &Stage, cgroup: &Cgroup) -> Result<Program> {
    let script = format!("{}\necho there; exec sleep 1000", cgroup.entering());
    let program = stage.pod.start(RunAs::Root, "sh", ["-ec", &script])?;
    e2e::eventually("a process in the cgroup", || {
        program.said().contains("there").then_some(())
    })?;
    Ok(program)
}

const AT_CGROUPS: [(&str, &str, &str, &[&str]); 8] = [
    (
        "connect4",
        "cil_sock4_conne",
        "",
        &["warning WEIR-EBPF Cilium's cil_sock4_conne (connect4, id"],
    ),
    (
        "connect6",
        "cali_ctlb_v6",
        "",
        &["warning WEIR-EBPF Calico's cali_ctlb_v6 (connect6, id"],
    ),
    (
        "connect4",
        "",
        "",
        &["warning WEIR-EBPF a program without a name (connect4, id"],
    ),
    ("sendmsg4", "resolve", "", &[]),
    (
        "sendmsg4",
        "resolve",
        "-- --sidecar --redirect-dns",
        &["warning WEIR-EBPF resolve (sendmsg4, id"],
    ),
    (
        "getsockopt",
        "mb_get_sockopt",
        "",
        &["warning WEIR-EBPF Merbridge's mb_get_sockopt (getsockopt, id"],
    ),
    (
        "sock_ops",
        "bypass",
        "",
        &["warning WEIR-EBPF bypass (sock_ops, id"],
    ),
    (
        "egress",
        "sd_fw_egress",
        "",
        &["note WEIR-EBPF systemd's sd_fw_egress (cgroup_skb egress, id"],
    ),
];

#[test]
fn programs_at_the_cgroup_of_a_process_and_above_it_are_named() -> Result<()> {
    let cgroup = Cgroup::create()?;
    let stage = Stage::set()?;
    let member = member(&stage, &cgroup)?;
    stage.check("")?.is_silent()?;
    let own = cgroup.folder().to_string_lossy().into_owned();
    let above = cgroup
        .folder()
        .parent()
        .context("no parent")?
        .to_string_lossy()
        .into_owned();
    for (number, (hook, name, arguments, expected)) in AT_CGROUPS.into_iter().enumerate() {
        let target = if number % 2 == 0 { &own } else { &above };
        let program = attach(&stage.pod, hook, name, target)?;
        stage.check(arguments)?.is(expected).context(hook)?;
        drop(program);
    }
    // With the process that is asked for named, and from outside of its namespace.
    let program = attach(&stage.pod, "connect4", "elsewhere", &own)?;
    let said = stage.check(&format!("--pid {}", member.id()))?;
    let found = said.report["findings"].to_string();
    assert!(found.contains(&format!("cgroup /{}", cgroup.path)), "{said:?}");
    drop(member);
    // Nobody is left whom it could mislead.
    e2e::eventually("the process to have gone", || {
        stage.check("").ok()?.is_silent().ok()
    })?;
    drop(program);
    Ok(())
}

#[test]
fn programs_at_devices_and_listeners_are_named() -> Result<()> {
    let before: &[(&str, &str, &str)] = &[
        ("tc", "divert", "warning WEIR-EBPF divert (tc ingress, id"),
        ("tcx", "divert", "warning WEIR-EBPF divert (tc ingress, id"),
        ("xdp", "lb", "warning WEIR-EBPF lb (xdp, id"),
    ];
    for (hook, name, expected) in before {
        let stage = Stage::set()?;
        let program = attach(&stage.pod, hook, name, "eth0")?;
        stage.check("")?.is(&[expected]).context(*hook)?;
        // Where nothing that comes in is captured it leads nothing away.
        stage.check("-- -i *")?.is_silent().context(*hook)?;
        drop(program);
    }
    let stage = Stage::set()?;
    let here = stage.pod.path();
    let program = attach(&stage.pod, "sk_lookup", "steer", &here)?;
    stage.check("")?.is(&["warning WEIR-EBPF steer (sk_lookup, id"])?;
    drop(program);
    stage.check("")?.is_silent()
}

#[test]
fn without_the_right_to_ask_it_is_said() -> Result<()> {
    let stage = Stage::set()?;
    let weir = e2e::weir::binary()?;
    let all = format!(
        "exec setpriv --bounding-set -net_admin,-sys_admin,-bpf --inh-caps -net_admin,-sys_admin,-bpf {} check -o json \
         --resolv-conf {}",
        weir.display(),
        stage.file("resolv.conf")
    );
    let finished = stage.pod.try_run(RunAs::Root, "sh", ["-ec", &all])?;
    let report: serde_json::Value =
        serde_json::from_str(&finished.text()).with_context(|| finished.errors())?;
    let skipped = report["not_looked_at"].to_string();
    assert!(skipped.contains("eBPF programs at cgroups"), "{report:#}");
    assert_eq!(finished.status.code(), Some(3), "{report:#}");
    Ok(())
}
