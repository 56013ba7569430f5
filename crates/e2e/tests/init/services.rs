//! `weir init --services --watch`: the services of a folder are captured and nothing else, as the folder changes;
//! and what becomes of it when nobody watches any more.

use std::net::TcpListener;

use anyhow::Result;
use e2e::manifests::Manifests;
use e2e::{Net, Pod, RunAs, eventually, weir};
use model::ports::OUTBOUND;
use rustix::process::Signal;

use crate::native::{init, listed, pod};

fn service(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: mesh}}\nspec: {{{spec}, \
         ports: [{{name: http, port: 80}}, {{name: tcp-db, port: 5432}}]}}\n"
    )
}

const BACKENDS: [&str; 3] = ["nft", "iptables-nft", "iptables-legacy"];

/// The members of the sets, as nftables writes them.
fn captured(pod: &Pod, backend: &str) -> Vec<String> {
    let mut all: Vec<_> = match backend {
        "nft" => {
            let text = listed(pod).unwrap_or_default();
            let sets = text
                .lines()
                .filter_map(|line| line.split_once(" dport { ")?.1.split_once(" }"));
            sets.flat_map(|(members, _)| members.split(", "))
                .filter(|member| member.contains(" . "))
                .map(str::to_owned)
                .collect()
        }
        _ => {
            let text = sets(pod).unwrap_or_default();
            let members = text
                .lines()
                .filter_map(|line| line.strip_prefix("add weir-services-v"));
            members
                .filter_map(|member| Some(member.split_once(' ')?.1.replace(",tcp:", " . ")))
                .collect()
        }
    };
    all.sort();
    all
}

/// What `ipset` keeps.
fn sets(pod: &Pod) -> Result<String> {
    Ok(pod.run("ipset", ["save"])?.text())
}

/// Every table, without the counts.
fn rules(pod: &Pod, backend: &str) -> Result<String> {
    match backend {
        "nft" => listed(pod),
        _ => Ok(["", "6"]
            .map(|six| pod.run(&backend.replace("ip", &format!("ip{six}")), ["-t", "nat", "-S"]))
            .into_iter()
            .collect::<Result<Vec<_>>>()?
            .iter()
            .map(e2e::Finished::text)
            .collect()),
    }
}

fn becomes(pod: &Pod, backend: &str, wanted: &[&str]) -> Result<()> {
    eventually(&format!("{wanted:?} to be captured by {backend}"), || {
        (captured(pod, backend) == wanted).then_some(())
    })
}

#[test]
fn the_services_of_a_folder_are_captured_as_they_come_and_go() -> Result<()> {
    for backend in BACKENDS {
        let pod = pod()?;
        let manifests = Manifests::create()?;
        manifests.write("web.yaml", &service("web", "clusterIP: 10.96.0.10"))?;
        let folder = manifests.path().to_string_lossy();
        let arguments = [
            "init",
            "--services",
            &folder,
            "--watch",
            "-b",
            "8080",
            "--backend",
            backend,
        ];
        let mut watching = pod.start(RunAs::Root, &weir::binary()?.to_string_lossy(), arguments)?;
        let first = ["10.96.0.10 . 5432", "10.96.0.10 . 80"];
        becomes(&pod, backend, &first)?;
        manifests.write(
            "db.yaml",
            &service("db", "clusterIPs: [10.96.0.11, \"fd00:96::11\"]"),
        )?;
        let both = [
            "10.96.0.10 . 5432",
            "10.96.0.10 . 80",
            "10.96.0.11 . 5432",
            "10.96.0.11 . 80",
            "fd00:96::11 . 5432",
            "fd00:96::11 . 80",
        ];
        becomes(&pod, backend, &both)?;
        manifests.remove("web.yaml")?;
        manifests.write("db.yaml", &service("db", "clusterIP: 10.96.0.12"))?;
        let last = ["10.96.0.12 . 5432", "10.96.0.12 . 80"];
        becomes(&pod, backend, &last)?;
        let text = rules(&pod, backend)?;
        assert!(
            text.contains("dport 8080 "),
            "what else was asked for stays: {text}"
        );
        // One rule, and so one look-up a connection, however many there are.
        let one = text.lines().filter(|line| line.contains("weir: service"));
        assert_eq!(one.count(), 1, "{text}");

        damage(&pod, backend)?;
        assert_ne!(captured(&pod, backend), last);
        watching.signal(Signal::HUP)?;
        becomes(&pod, backend, &last)?;

        // As a container is stopped, to be started again.
        watching.signal(Signal::TERM)?;
        assert!(watching.wait()?.success(), "{}", watching.said());
        assert!(watching.said().contains("The rules stay"), "{}", watching.said());
        assert_eq!(captured(&pod, backend), last);
        let mut watching = pod.start(RunAs::Root, &weir::binary()?.to_string_lossy(), arguments)?;
        eventually("the next run to take the rules over", || {
            watching.said().contains("Nothing to do").then_some(())
        })?;

        watching.signal(Signal::INT)?;
        assert!(watching.wait()?.success(), "{}", watching.said());
        assert_eq!(captured(&pod, backend), [""; 0]);
        assert!(!rules(&pod, backend)?.contains("weir"), "{backend}");
        assert_eq!(sets(&pod)?, "", "{backend}");
    }
    Ok(())
}

/// Somebody else changes what is captured.
fn damage(pod: &Pod, backend: &str) -> Result<()> {
    match backend {
        "nft" => pod.run("nft", ["flush chain inet weir nat-output"]),
        _ => pod.run("ipset", ["flush", "weir-services-v4"]),
    }
    .map(drop)
}

#[test]
fn rules_move_from_one_back_end_to_another_with_their_sets() -> Result<()> {
    let pod = pod()?;
    let manifests = Manifests::create()?;
    manifests.write("web.yaml", &service("web", "clusterIP: 10.96.0.10"))?;
    let folder = manifests.path().to_string_lossy();
    let wanted = ["10.96.0.10 . 5432", "10.96.0.10 . 80"];
    for backend in ["iptables-legacy", "iptables-nft", "nft", "iptables-nft"] {
        let arguments = ["init", "--services", &folder, "--watch", "--backend", backend];
        let mut watching = pod.start(RunAs::Root, &weir::binary()?.to_string_lossy(), arguments)?;
        becomes(&pod, backend, &wanted)?;
        eventually("all to be done", || {
            watching.said().contains("proxy").then_some(())
        })?;
        for other in BACKENDS.iter().filter(|other| **other != backend) {
            assert!(
                !rules(&pod, other)?.contains("weir: service") || *other == "nft",
                "{backend} left {other}"
            );
        }
        assert_eq!(sets(&pod)?.is_empty(), backend == "nft", "{backend}");
        // As a machine failure does: the rules stay, and the next one takes them over.
        watching.kill();
    }
    // A run that was cut off between two steps.
    pod.run(
        "ipset",
        [
            "create",
            "weir-services-v6-next",
            "hash:ip,port",
            "family",
            "inet6",
        ],
    )?;
    init(&pod, "--cleanup")?;
    assert_eq!((sets(&pod)?, listed(&pod)?), (String::new(), String::new()));
    Ok(())
}

#[test]
fn a_folder_that_goes_or_breaks_is_told_and_what_it_held_stays() -> Result<()> {
    let pod = pod()?;
    let manifests = Manifests::create()?;
    manifests.write("web.yaml", &service("web", "clusterIP: 10.96.0.10"))?;
    let folder = manifests.path().to_string_lossy();
    let arguments = ["init", "--services", &folder, "--watch", "--backend", "nft"];
    let watching = pod.start(RunAs::Root, &weir::binary()?.to_string_lossy(), arguments)?;
    let first = ["10.96.0.10 . 5432", "10.96.0.10 . 80"];
    becomes(&pod, "nft", &first)?;
    let told = |what: &str| eventually(what, || watching.said().contains(what).then_some(()));
    manifests.write("broken.yaml", "kind: [\n")?;
    told("broken.yaml")?;
    assert_eq!(captured(&pod, "nft"), first);
    std::fs::remove_dir_all(manifests.path())?;
    told("what it held stays in force")?;
    assert_eq!(captured(&pod, "nft"), first);
    assert!(!watching.said().contains("TCP to 0"), "{}", watching.said());
    // An empty folder is an answer.
    std::fs::create_dir(manifests.path())?;
    told("TCP to 0 services")?;
    becomes(&pod, "nft", &[])
}

/// The kernel's own answer to whether a connection is captured, of all that were ever asked for.
#[test]
fn no_connection_to_a_service_escapes_while_its_set_is_replaced() -> Result<()> {
    for backend in BACKENDS {
        let net = Net::create()?;
        let pod = net.pod("client")?;
        let _proxy = pod.within(|| TcpListener::bind(("0.0.0.0", OUTBOUND)))??;
        let manifests = Manifests::create()?;
        manifests.write("web.yaml", &service("web", "clusterIP: 10.96.0.10"))?;
        let folder = manifests.path().to_string_lossy();
        let arguments = ["init", "--services", &folder, "--watch", "--backend", backend];
        let mut watching = pod.start(RunAs::Root, &weir::binary()?.to_string_lossy(), arguments)?;
        becomes(&pod, backend, &["10.96.0.10 . 5432", "10.96.0.10 . 80"])?;
        for round in 0..4 {
            let more = format!("clusterIP: 10.96.1.{round}");
            manifests.write("more.yaml", &service("more", &more))?;
            let wanted = format!("10.96.1.{round} . 80");
            eventually(&wanted, || {
                // Nobody has the address: a connection comes about only where it is captured.
                let made = pod.dial("10.96.0.10:80".parse().ok()?);
                assert!(made.is_ok(), "{backend}: {made:?} while the set was replaced");
                captured(&pod, backend).contains(&wanted).then_some(())
            })?;
        }
        watching.signal(Signal::TERM)?;
        assert!(watching.wait()?.success(), "{}", watching.said());
    }
    Ok(())
}

#[test]
fn what_would_go_stale_or_take_a_rule_a_service_is_refused() -> Result<()> {
    let pod = pod()?;
    let manifests = Manifests::create()?;
    manifests.write("web.yaml", &service("web", "clusterIP: 10.96.0.10"))?;
    let folder = manifests.path().to_string_lossy();
    let settings = Manifests::create()?;
    settings.write("capture.yaml", "outbound: {cidrs: \"*\"}\n")?;
    let config = settings.path().join("capture.yaml");
    let config = config.to_string_lossy();
    for (arguments, why) in [
        (&["--services", &*folder][..], "give --watch"),
        (
            &["--services", &*folder, "--watch", "-i", "*"],
            "cannot be used with",
        ),
        (
            &["--services", &*folder, "--watch", "--config", &*config],
            "outbound.cidrs and outbound.ports cannot be used with --services",
        ),
        (&["--watch"], "--services"),
        (&["--services", "/no/such/folder", "--watch"], "/no/such/folder"),
    ] {
        let mut all = vec!["init"];
        all.extend(arguments);
        let said = pod.try_run(RunAs::Root, &weir::binary()?.to_string_lossy(), all)?;
        assert!(!said.status.success(), "{arguments:?} was accepted");
        assert!(said.errors().contains(why), "{arguments:?}: {}", said.errors());
    }
    // As on a machine that has no ipset.
    let script = "mount --bind /dev/null \"$(command -v ipset)\" && exec \"$@\"";
    let binary = weir::binary()?.to_string_lossy().into_owned();
    let arguments = [
        "-m",
        "sh",
        "-c",
        script,
        "sh",
        &binary,
        "init",
        "--services",
        &folder,
        "--watch",
    ];
    let said = pod.try_run(
        RunAs::Root,
        "unshare",
        arguments.iter().chain(&["--backend", "iptables-nft"]),
    )?;
    assert!(!said.status.success());
    assert!(
        said.errors().contains("install the package ipset"),
        "{}",
        said.errors()
    );
    assert_eq!(listed(&pod)?, "");
    // A later run without them is an ordinary one.
    init(&pod, "--sidecar").map(drop)
}
