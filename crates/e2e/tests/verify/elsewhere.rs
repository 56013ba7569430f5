//! From outside: by the process, by the path, and by the name of a namespace.

use anyhow::{Context, Result, ensure};
use e2e::{Pod, RunAs, weir};
use serde_json::Value;

use super::{World, init};

/// Verifies from a pod that is not captured itself. Answers the exit status, the report and what was said.
fn verify_from(other: &Pod, place: [&str; 2]) -> Result<(Option<i32>, Value, String)> {
    let binary = weir::binary()?.to_string_lossy().into_owned();
    let words = ["verify", "--before-proxy", "-o", "json", place[0], place[1]];
    let finished = other.try_run(RunAs::Root, &binary, words)?;
    let report = serde_json::from_slice(&finished.stdout).unwrap_or_default();
    Ok((finished.status.code(), report, finished.errors()))
}

#[test]
fn a_namespace_is_verified_from_outside_by_process_and_by_path() -> Result<()> {
    let (world, other) = (World::create()?, World::create()?);
    let application = world.pod.start(RunAs::Root, "sleep", ["infinity"])?;
    let (pid, path) = (application.id().to_string(), world.pod.path());
    init(&world.pod, "--sidecar -o 22")?;
    for place in [["--pid", pid.as_str()], ["--netns", path.as_str()]] {
        let (code, report, said) = verify_from(&other.pod, place)?;
        ensure!(
            code == Some(0) && report["verdict"] == "proven",
            "{place:?}: {said}"
        );
        // It is that one's address that was called.
        let [v4, _] = world.pod.addresses();
        let findings = report["findings"].as_array().context("findings")?;
        let called = findings.iter().filter_map(|finding| finding["sent"].as_str());
        ensure!(
            called
                .into_iter()
                .any(|sent| sent.contains(&format!(" to {v4}:"))),
            "{findings:#?}"
        );
    }

    init(&world.pod, "--cleanup")?;
    for place in [["--pid", pid.as_str()], ["--netns", path.as_str()]] {
        let (code, _, said) = verify_from(&other.pod, place)?;
        ensure!(
            code == Some(2) && said.contains("[WEIR-NOTHING-TO-VERIFY]"),
            "{place:?}: {said}"
        );
    }
    Ok(())
}

/// What is printed to put it back is pasted into a shell that is not there.
#[test]
fn what_is_printed_to_put_it_back_works_where_it_is_pasted() -> Result<()> {
    let (world, other) = (World::create()?, World::create()?);
    let application = world.pod.start(RunAs::Root, "sleep", ["infinity"])?;
    let (pid, path) = (application.id().to_string(), world.pod.path());
    let folder = weir::binary()?.parent().context("a folder")?.to_path_buf();
    for flags in ["-i * -b * -u 1337", "--sidecar --redirect-dns"] {
        for place in [["--pid", pid.as_str()], ["--netns", path.as_str()]] {
            init(&world.pod, &format!("{flags} --backend iptables-nft"))?;
            for family in ["iptables-nft", "ip6tables-nft"] {
                world.pod.run(family, ["-t", "nat", "-F", "OUTPUT"])?;
            }
            let (code, report, said) = verify_from(&other.pod, place)?;
            ensure!(code == Some(1), "{place:?}: {said}");
            let command = report["remedy"].as_str().context("a remedy")?;
            let command = format!("PATH={}:$PATH; {command}", folder.display());
            other.pod.run("sh", ["-c", command.as_str()])?;
            let (code, report, said) = verify_from(&other.pod, place)?;
            ensure!(
                code != Some(1) && report["verdict"] != "broken",
                "{command}: {said}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_namespace_that_is_not_there_or_not_to_be_entered_is_named() -> Result<()> {
    let world = World::create()?;
    for (place, why) in [
        (["--pid", "4194304"], "is it running"),
        (["--netns", "weir-none"], "/run/netns/weir-none"),
        (["--netns", "/weir/none"], "/weir/none"),
    ] {
        let (code, _, said) = verify_from(&world.pod, place)?;
        ensure!(
            code == Some(2) && said.contains(why) && said.contains("[WEIR-NAMESPACE]"),
            "{place:?}: {said}"
        );
    }
    Ok(())
}
