//! A proxy that the rules do not know: they capture what it sends, and bring it back to it.

use anyhow::{Context, Result};
use e2e::manifests::Port;
use e2e::weir::{self, Sidecar};
use e2e::{Mesh, Pod, RunAs, mesh, servers};
use model::ports::METRICS;

/// Connections that the proxy has accepted, whatever became of them.
fn opened(pod: &Pod) -> Result<u64> {
    let url = format!("http://127.0.0.1:{METRICS}/metrics");
    let text = pod.run_as(RunAs::Proxy, "curl", ["-sf", &url])?.text();
    let samples = text
        .lines()
        .filter(|line| line.starts_with("weir_connections_opened_total{"));
    samples
        .map(|line| {
            let value = line.rsplit(' ').next().context("no value")?;
            Ok(value.parse::<u64>()?)
        })
        .sum()
}

#[test]
fn a_proxy_that_the_rules_do_not_know_ends_the_circle_and_says_so() -> Result<()> {
    let mesh = Mesh::create()?;
    let server = mesh.pod("server", "web")?;
    let _nginx = servers::nginx(&server, mesh.dir(), 8080, "location / { return 200 ok; }")?;
    let stranger = mesh.net.pod("stranger")?;
    let _another = servers::nginx(&stranger, mesh.dir(), 9000, "location / { return 200 ok; }")?;
    let web = mesh.service("web", 10, &[Port::new("http", 80, 8080)], &[&server])?;
    let client = mesh.pod("client", "client")?;
    weir::run(&client, &["init", "--sidecar"])?;
    let sidecar = Sidecar::proxy_as(RunAs::Root, &client, &mesh.manifests, &[])?;

    let before = opened(&client)?;
    let mut calls = 0;
    for [v4, v6] in [mesh::at(web, 80), stranger.at(9000)] {
        // Known the second time from the first connection on.
        for to in [v4, v6, v4] {
            let url = format!("http://{to}/");
            let said = client.try_run(RunAs::Application, "curl", ["-gsS", "--max-time", "20", &url])?;
            // A reset may be seen before curl is done with connecting. The time limit would be exit status 28.
            let ended = matches!(said.status.code(), Some(0 | 7 | 52 | 56));
            assert!(ended, "{url}: {} {}", said.status, said.errors());
            assert_ne!(said.text(), "ok", "{url}: it was not captured again");
            calls += 1;
        }
    }
    let opened = opened(&client)? - before;
    assert!(opened < 1000 * calls, "{opened} connections for {calls} calls");
    let log = sidecar.proxy.said();
    assert_eq!(log.matches("WEIR-LOOP").count(), 1, "{log}");
    assert!(log.contains("uid=0"), "{log}");
    Ok(())
}
