//! The proxy itself: running, hung, gone, elsewhere.

use anyhow::Result;
use e2e::manifests::Manifests;
use e2e::weir::Sidecar;
use e2e::{RunAs, eventually};
use rustix::process::Signal;

use super::{World, init, verify};

#[test]
fn a_running_proxy_is_proven_by_connections_that_go_all_the_way() -> Result<()> {
    let world = World::create()?;
    let manifests = Manifests::create()?;
    manifests.pod(&world.pod, "app")?;
    for (mode, who, more) in [
        ("--sidecar", RunAs::Proxy, &[][..]),
        (
            "--sidecar -m TPROXY",
            RunAs::ProxyNetAdmin,
            &["--inbound-mode", "tproxy"][..],
        ),
    ] {
        init(&world.pod, mode)?;
        let mut sidecar = Sidecar::proxy_as(who, &world.pod, &manifests, more)?;
        for _ in 0..10 {
            let verified = verify(&world.pod, "")?;
            let report = verified.report.clone().unwrap_or_default();
            let findings = report["findings"].as_array().cloned().unwrap_or_default();
            let all_the_way = findings.iter().filter(|finding| {
                let arrived = finding["arrived"].as_str().unwrap_or_default();
                arrived.starts_with("proxy :") && arrived.ends_with("and back")
            });
            assert_eq!(all_the_way.count(), 4, "{mode}: {}", verified.why());
            assert_eq!(verified.code, 0, "{mode}: {}", verified.why());
        }

        sidecar.proxy.signal(Signal::STOP)?;
        let hung = verify(&world.pod, "--timeout 1")?;
        assert_eq!(hung.code, 1, "{}", hung.why());
        assert!(hung.why().contains("the proxy hangs"), "{}", hung.why());
        sidecar.proxy.signal(Signal::CONT)?;

        sidecar.proxy.kill();
        let gone = verify(&world.pod, "")?;
        assert_eq!(gone.code, 3, "{}", gone.why());
        assert!(gone.why().contains("no proxy listens there"), "{}", gone.why());
    }
    Ok(())
}

#[test]
fn a_proxy_on_another_port_is_told_of() -> Result<()> {
    let world = World::create()?;
    let pod = &world.pod;
    init(pod, "--sidecar")?;
    let _elsewhere = pod.start(RunAs::Proxy, "python3", ["-m", "http.server", "15011"])?;
    eventually("the listener", || {
        let listening = pod.run("ss", ["-Htln"]).ok()?.text();
        listening.contains(":15011").then_some(())
    })?;
    let verified = verify(pod, "")?;
    assert_eq!(verified.code, 3, "{}", verified.why());
    assert!(
        verified
            .why()
            .contains("15011: its port and the rules' do not agree"),
        "{}",
        verified.why()
    );
    Ok(())
}
