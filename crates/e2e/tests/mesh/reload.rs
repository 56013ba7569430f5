//! A thousand changes of the manifests while requests run: none fails, and what endpoints have lived
//! through survives.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use e2e::http::Client;
use e2e::manifests::{Port, Service};
use e2e::mesh::addresses;
use e2e::{Mesh, Pod, RunAs, eventually, servers, steady, steady_over, weir};
use model::settings::RETRY_BURST;
use serde_json::Value;

const CHANGES: usize = 1_000;
/// A breath between two changes, so that the watcher sees most of them one by one.
const PAUSE: Duration = Duration::from_millis(4);

#[test]
fn a_thousand_changes_cost_no_request() -> Result<()> {
    let mesh = Mesh::create()?;
    let pods = [
        mesh.pod("a", "web")?,
        mesh.pod("b", "web")?,
        mesh.pod("c", "web")?,
    ];
    let mut running = Vec::new();
    for pod in &pods {
        // Who answered, and by which of its connections.
        let inside = format!("location / {{ return 200 \"{} $connection\"; }}", pod.name);
        running.push(servers::nginx(pod, mesh.dir(), 8080, &inside)?);
    }
    let [a, b, c] = pods.each_ref();
    let addresses = addresses(10);
    let web = Service::new("web", &addresses, &[Port::new("http", 80, 8080)]);
    mesh.manifests.service(&web, &[a, b, c])?;
    let (client, sidecar) = mesh.client()?;
    let vip = SocketAddr::new(addresses[0], 80);
    let (account, changed) = steady(&client, vip, "/", 200, || -> Result<()> {
        for number in 0..CHANGES {
            change(&mesh, &web, number, [a, b, c])?;
            thread::sleep(PAUSE);
        }
        Ok(())
    });
    changed?;
    let log = sidecar.proxy.said();
    let odd: Vec<&str> = log.lines().filter(|line| !line.contains(" 200 ")).collect();
    assert!(
        account.failed.is_empty() && account.cut == 0,
        "{account:?}\n{}",
        odd.join("\n")
    );
    // Pod a was an endpoint all the time: its pooled connections outlived every change.
    let connections: BTreeSet<&str> = account
        .answered
        .keys()
        .filter_map(|body| body.strip_prefix("a "))
        .collect();
    assert!(
        (1..=16).contains(&connections.len()),
        "{} connections to an endpoint that never left",
        connections.len()
    );
    Ok(())
}

/// Another change of each kind: an endpoint comes or goes, a service comes or goes, a setting changes.
fn change(mesh: &Mesh, web: &Service, number: usize, [a, b, c]: [&Pod; 3]) -> Result<()> {
    let other = Service::new("other", &addresses(11), &[Port::new("http", 80, 8080)]);
    match number % 6 {
        0 => mesh.manifests.service(web, &[a, b]),
        1 => mesh.manifests.service(&other, &[b, c]),
        2 => mesh
            .manifests
            .service(&web.clone().annotated("weir.dev/retries", "3"), &[a, c]),
        3 => {
            let mut text = String::new();
            for number in 0..20 {
                let _ = write!(
                    text,
                    "{}",
                    Service::new(
                        &format!("many-{number}"),
                        &addresses(100 + number),
                        &[Port::new("http", 80, 8080)]
                    )
                    .yaml()
                );
            }
            mesh.manifests.write("many.yaml", &text)
        }
        4 => mesh.manifests.service(web, &[a, b, c]),
        _ => mesh.manifests.remove("other.yaml"),
    }
}

#[test]
fn an_ejection_survives_a_reload() -> Result<()> {
    let mesh = Mesh::create()?;
    let (alive, dead) = (mesh.pod("alive", "web")?, mesh.pod("dead", "web")?);
    let _nginx = servers::nginx(&alive, mesh.dir(), 8080, "location / { return 200 alive; }")?;
    let addresses = addresses(10);
    let ports = [Port::new("http", 80, 8080)];
    let web = Service::new("web", &addresses, &ports).annotated("weir.dev/eject-time", "5m");
    mesh.manifests.service(&web, &[&alive, &dead])?;
    let (client, _sidecar) = mesh.client()?;
    let mut connection = Client::connect(&client, SocketAddr::new(addresses[0], 80))?;
    let mut ask = || connection.get("web", "/").map(|answer| answer.body);
    // What refuses is tried a few times, at no request's cost, and then left out.
    for _ in 0..20 {
        assert!(matches!(ask().as_deref(), Ok("alive")));
    }
    let before = endpoint(&client, &dead)?;
    assert!(before["ejected_for_ms"].is_number(), "{before}");
    mesh.manifests
        .service(&web.annotated("weir.dev/retries", "3"), &[&alive, &dead])?;
    mesh.service("other", 11, &ports, &[&alive])?;
    eventually("the reload", || {
        let clusters = pc(&client, &["clusters"]).ok()?;
        clusters.contains("other.mesh").then_some(())
    })?;
    let after = endpoint(&client, &dead)?;
    assert!(after["ejected_for_ms"].is_number(), "{after}");
    assert_eq!(after["ejections"], before["ejections"]);
    assert!(matches!(ask().as_deref(), Ok("alive")));
    Ok(())
}

/// Holds what asks for `/hang` until `/go` is asked for, and answers everything else 503, in its time.
const SERVER: &str = "const held = []; require('http').createServer((request, response) => { \
    if (request.url == '/hang') return held.push(response); \
    if (request.url == '/go') { held.forEach(one => one.end('held')); return response.end('gone'); } \
    setTimeout(() => { response.statusCode = 503; response.end('no'); }, 50); }).listen(8080, '::')";

#[test]
fn what_is_under_way_and_what_the_budget_has_left_survive_a_reload() -> Result<()> {
    const HELD: usize = 5;
    let mesh = Mesh::create()?;
    let pod = mesh.pod("a", "web")?;
    let _server = pod.start(RunAs::Application, "node", ["-e", SERVER])?;
    pod.wait_listening(8080)?;
    let addresses = addresses(10);
    let ports = [Port::new("http", 80, 8080)];
    let web = Service::new("web", &addresses, &ports).annotated("weir.dev/eject-after", "0");
    mesh.manifests.service(&web, &[&pod])?;
    let (client, _sidecar) = mesh.client()?;
    let vip = SocketAddr::new(addresses[0], 80);
    // Many at once are answered 503: what the burst allows is asked again.
    let (account, ()) = steady_over(40, &client, vip, "/", 400, || {
        thread::sleep(Duration::from_secs(1));
    });
    assert!(
        !account.failed.is_empty() && account.answered.is_empty(),
        "{account:?}"
    );
    let of_burst = |cluster: &Value| cluster["retry_burst_left"].as_u64();
    let before = of_burst(&cluster(&client)?);
    assert!(before < Some(RETRY_BURST.into()), "{before:?}");

    thread::scope(|scope| -> Result<()> {
        let ask = || {
            Client::connect(&client, vip)?
                .get("web", "/hang")
                .map_err(|e| anyhow!("{e:?}"))
        };
        let asking: Vec<_> = (0..HELD).map(|_| scope.spawn(ask)).collect();
        let under_way = |wanted: usize| {
            let cluster = cluster(&client).ok()?;
            let of_endpoint = endpoint(&client, &pod).ok()?["in_flight"].clone();
            (cluster["requests"] == wanted && of_endpoint == wanted).then_some(cluster)
        };
        eventually("the requests to be under way", || under_way(HELD))?;
        mesh.manifests
            .service(&web.annotated("weir.dev/retries", "3"), &[&pod])?;
        let after = eventually("the reload", || {
            let cluster = cluster(&client).ok()?;
            (cluster["policy"]["retries"] == 3).then_some(cluster)
        })?;
        assert_eq!(after["requests"], HELD);
        assert_eq!(endpoint(&client, &pod)?["in_flight"], HELD);
        // The held requests earn one retry together.
        let left = of_burst(&after);
        assert!(
            left >= before && left <= before.map(|left| left + 1),
            "{left:?} after {before:?}"
        );

        let mut last = Client::connect(&client, vip)?;
        let answer = last.get("web", "/go").map_err(|e| anyhow!("{e:?}"))?;
        assert_eq!(answer.body, "gone");
        for asked in asking {
            let answer = asked.join().map_err(|_| anyhow!("a client panicked"))??;
            assert_eq!(answer.body, "held");
        }
        eventually("nothing to be under way", || under_way(0))?;
        Ok(())
    })
}

/// What the client's proxy says of the service's cluster.
fn cluster(client: &Pod) -> Result<Value> {
    let said = pc(client, &["clusters", "-o", "json", "--fqdn", "web.mesh"])?;
    let rows: Vec<Value> = serde_json::from_str(&said)?;
    rows.into_iter().next().context("no such cluster")
}

/// What the client's proxy says of the pod's IPv4 endpoint.
fn endpoint(client: &Pod, of: &Pod) -> Result<Value> {
    let address = of.v4.to_string();
    let said = pc(client, &["endpoints", "-o", "json", "--address", &address])?;
    let rows: Vec<Value> = serde_json::from_str(&said)?;
    rows.into_iter().next().context("no such endpoint")
}

/// `weir pc`, asking the pod's own proxy.
fn pc(pod: &Pod, arguments: &[&str]) -> Result<String> {
    let proxy = ["pc", "--proxy", "127.0.0.1:15000"];
    Ok(weir::run(pod, &[&proxy, arguments].concat())?.text())
}
