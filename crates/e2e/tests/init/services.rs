//! `weir init --services --watch`: the services of a folder are captured and nothing else, as the folder changes;
//! and when nobody watches any more, nothing is.

use anyhow::Result;
use e2e::manifests::Manifests;
use e2e::{Pod, RunAs, eventually, weir};
use rustix::process::Signal;

use crate::native::{init, listed, pod};

fn service(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: mesh}}\nspec: {{{spec}, \
         ports: [{{name: http, port: 80}}, {{name: tcp-db, port: 5432}}]}}\n"
    )
}

/// The members of the sets, as they are listed.
fn captured(pod: &Pod) -> Vec<String> {
    let text = listed(pod).unwrap_or_default();
    let sets = text
        .lines()
        .filter_map(|line| line.split_once(" dport { ")?.1.split_once(" }"));
    let mut all: Vec<_> = sets
        .flat_map(|(members, _)| members.split(", "))
        .filter(|member| member.contains(" . "))
        .map(str::to_owned)
        .collect();
    all.sort();
    all
}

fn becomes(pod: &Pod, wanted: &[&str]) -> Result<()> {
    eventually(&format!("{wanted:?} to be captured"), || {
        (captured(pod) == wanted).then_some(())
    })
}

#[test]
fn the_services_of_a_folder_are_captured_as_they_come_and_go() -> Result<()> {
    let pod = pod()?;
    let manifests = Manifests::create()?;
    manifests.write("web.yaml", &service("web", "clusterIP: 10.96.0.10"))?;
    let folder = manifests.path().to_string_lossy();
    let arguments = ["init", "--services", &folder, "--watch", "-b", "8080"];
    let mut watching = pod.start(RunAs::Root, &weir::binary()?.to_string_lossy(), arguments)?;
    becomes(&pod, &["10.96.0.10 . 5432", "10.96.0.10 . 80"])?;
    manifests.write(
        "db.yaml",
        &service("db", "clusterIPs: [10.96.0.11, \"fd00:96::11\"]"),
    )?;
    becomes(
        &pod,
        &[
            "10.96.0.10 . 5432",
            "10.96.0.10 . 80",
            "10.96.0.11 . 5432",
            "10.96.0.11 . 80",
            "fd00:96::11 . 5432",
            "fd00:96::11 . 80",
        ],
    )?;
    manifests.remove("web.yaml")?;
    manifests.write("db.yaml", &service("db", "clusterIP: 10.96.0.12"))?;
    becomes(&pod, &["10.96.0.12 . 5432", "10.96.0.12 . 80"])?;
    assert!(
        listed(&pod)?.contains("tcp dport 8080 "),
        "what else was asked for stays"
    );

    watching.signal(Signal::TERM)?;
    assert!(watching.wait()?.success(), "{}", watching.said());
    assert_eq!(listed(&pod)?, "");
    Ok(())
}

#[test]
fn what_would_go_stale_or_take_a_rule_a_service_is_refused() -> Result<()> {
    let pod = pod()?;
    let manifests = Manifests::create()?;
    manifests.write("web.yaml", &service("web", "clusterIP: 10.96.0.10"))?;
    let folder = manifests.path().to_string_lossy();
    for (arguments, why) in [
        (&["--services", &*folder][..], "give --watch"),
        (
            &["--services", &*folder, "--watch", "-i", "*"],
            "cannot be used with",
        ),
        (&["--watch"], "--services"),
        (
            &["--services", &*folder, "--watch", "--backend", "iptables-nft"],
            "--backend nft",
        ),
        (&["--services", "/no/such/folder", "--watch"], "/no/such/folder"),
    ] {
        let mut all = vec!["init"];
        all.extend(arguments);
        let said = pod.try_run(RunAs::Root, &weir::binary()?.to_string_lossy(), all)?;
        assert!(!said.status.success(), "{arguments:?} was accepted");
        assert!(said.errors().contains(why), "{arguments:?}: {}", said.errors());
    }
    assert_eq!(listed(&pod)?, "");
    // A later run without them is an ordinary one.
    init(&pod, "--sidecar").map(drop)
}
