//! The proxy itself: running, hung, gone, elsewhere.

use anyhow::{Result, ensure};
use e2e::manifests::Manifests;
use e2e::weir::Sidecar;
use e2e::{RunAs, eventually};
use rustix::process::Signal;

use super::{BACKENDS, Verified, World, init, verify};

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

/// The four that should be there, by what they came to.
fn look_ups(verified: &Verified) -> Result<Vec<(String, String)>> {
    let of = |finding: &serde_json::Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    let findings = verified.findings()?;
    let ours = findings
        .iter()
        .filter(|finding| of(finding, "probe").starts_with("look-up"));
    Ok(ours
        .map(|finding| (of(finding, "verdict"), of(finding, "arrived")))
        .collect())
}

#[test]
fn a_running_dns_proxy_is_proven_by_answers_and_asks_nobody_for_them() -> Result<()> {
    let world = World::create()?;
    let pod = &world.pod;
    let manifests = Manifests::create()?;
    manifests.pod(pod, "app")?;
    let folder = tempfile::tempdir()?;
    let resolvers = folder.path().join("resolv.conf");
    // A server that is there; nobody listens on its port.
    std::fs::write(
        &resolvers,
        "nameserver 10.77.255.254\nnameserver fd00:77::ff:fe\n",
    )?;
    let resolvers = resolvers.to_string_lossy().into_owned();
    let of_these = format!("--redirect-dns --resolv-conf {resolvers}");
    let sidecar = Sidecar::proxy_as(
        RunAs::Proxy,
        pod,
        &manifests,
        &["--dns", "--resolv-conf", &resolvers],
    )?;
    for backend in BACKENDS {
        for dns in ["--redirect-dns --capture-all-dns", &of_these] {
            init(pod, &format!("--sidecar {dns} --backend {backend}"))?;
            // It has given a sign of life to these rules.
            eventually("look-ups to be captured and answered", || {
                let verified = verify(pod, "").ok()?;
                let look_ups = look_ups(&verified).ok()?;
                let is_right = |(verdict, arrived): &(String, String)| {
                    verdict == "proven" && arrived == "DNS proxy :15053, and back"
                };
                (verified.code != 1 && look_ups.len() == 4 && look_ups.iter().all(is_right)).then_some(())
            })?;
        }
    }
    let metrics = pod.run("curl", ["-sf", "http://127.0.0.1:15020/metrics"])?.text();
    let asked = metrics
        .lines()
        .filter(|line| line.starts_with("weir_dns_") && line.contains("forwarded"));
    for line in asked {
        ensure!(line.ends_with(" 0"), "it asked a resolver: {line}");
    }
    sidecar.proxy.signal(Signal::STOP)?;
    let hung = verify(pod, "--timeout 1")?;
    assert_eq!(hung.code, 1, "{}", hung.why());
    assert!(hung.why().contains("the DNS proxy hangs"), "{}", hung.why());
    sidecar.proxy.signal(Signal::CONT)?;
    Ok(())
}
