//! HTTP/1.1 by real clients and servers through the sidecar: curl, wget, nginx, WebSocket, big and many.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};
use e2e::http::Client;
use e2e::manifests::Port;
use e2e::mesh::at;
use e2e::weir::Sidecar;
use e2e::{Mesh, Pod, RunAs, servers};

/// Given to python3 as text: an application's user may not read where this project lies.
const WEBSOCKET: &str = include_str!("websocket.py");
/// What a server that nginx plays says of itself and of how it was reached.
const WHO: &str = "location / { return 200 \"$hostname $remote_addr $http_x_request_id\\n\"; }";

/// Runs a client as the application and gives back what it printed.
fn said(pod: &Pod, command: &[&str]) -> Result<String> {
    Ok(pod.run_as(RunAs::Application, command[0], &command[1..])?.text())
}

#[test]
fn curl_and_wget_reach_a_service_on_both_families() -> Result<()> {
    let mesh = Mesh::create()?;
    let servers = [
        mesh.pod("a", "web")?,
        mesh.pod("b", "web")?,
        mesh.pod("c", "web")?,
    ];
    let mut running = Vec::new();
    for pod in &servers {
        let inside = format!("location / {{ return 200 {}; }}", pod.name);
        running.push(servers::nginx(pod, mesh.dir(), 8080, &inside)?);
    }
    let pods: Vec<&Pod> = servers.iter().collect();
    let vips = mesh.service("web", 10, &[Port::new("http", 80, 8080)], &pods)?;
    let (client, _sidecar) = mesh.client()?;
    for vip in at(vips, 80) {
        let url = format!("http://{vip}/");
        let mut seen: Vec<String> = (0..6)
            .map(|_| said(&client, &["curl", "-sS", &url]))
            .collect::<Result<_>>()?;
        seen.push(said(&client, &["wget", "-q", "-O", "-", &url])?);
        seen.sort();
        seen.dedup();
        assert_eq!(seen, ["a", "b", "c"], "each endpoint of {vip} gets its turn");
    }
    Ok(())
}

#[test]
fn with_sidecars_on_both_sides_the_application_is_reached_from_the_passthrough_address() -> Result<()> {
    let mesh = Mesh::create()?;
    let server = mesh.pod("server", "web")?;
    let _nginx = servers::nginx(&server, mesh.dir(), 8080, WHO)?;
    let vips = mesh.service("web", 10, &[Port::new("http", 80, 8080)], &[&server])?;
    let _inbound = Sidecar::start(&server, &mesh.manifests)?;
    let (client, _outbound) = mesh.client()?;
    for (vip, from) in at(vips, 80).into_iter().zip(["127.0.0.6", "::6"]) {
        let answer = said(&client, &["curl", "-sS", &format!("http://{vip}/")])?;
        let fields: Vec<&str> = answer.split_whitespace().collect();
        ensure!(fields.len() == 3, "no request id arrived: {answer:?}");
        assert_eq!(fields[1], from, "through {vip}");
    }
    Ok(())
}

#[test]
fn a_gibibyte_arrives_as_it_left() -> Result<()> {
    let mesh = Mesh::create()?;
    let server = mesh.pod("server", "files")?;
    let file = mesh.dir().join("gibibyte").display().to_string();
    server.run("sh", ["-c", &format!("head -c 1G /dev/urandom >{file}")])?;
    let inside = format!("root {};", mesh.dir().display());
    servers::open_to_all(mesh.dir())?;
    let _nginx = servers::nginx(&server, mesh.dir(), 8080, &inside)?;
    let ports = [Port::new("http", 80, 8080), Port::new("tcp-files", 81, 8080)];
    let vips = mesh.service("files", 10, &ports, &[&server])?;
    let (client, _sidecar) = mesh.client()?;
    let left = server.run("sha256sum", [&file])?.text();
    let left = left.split(' ').next().context("no hash")?;
    // As HTTP by IPv4, opaque by IPv6.
    for to in [SocketAddr::new(vips[0], 80), SocketAddr::new(vips[1], 81)] {
        let script = format!("curl -gsS 'http://{to}/gibibyte' | sha256sum");
        let arrived = said(&client, &["sh", "-c", &script])?;
        assert_eq!(arrived.split(' ').next(), Some(left), "by {to}");
    }
    Ok(())
}

#[test]
fn ten_thousand_requests_in_a_row_and_a_thousand_at_once_all_succeed() -> Result<()> {
    let mesh = Mesh::create()?;
    let servers = [mesh.pod("a", "web")?, mesh.pod("b", "web")?];
    let mut running = Vec::new();
    for pod in &servers {
        pod.widen()?;
        running.push(servers::nginx(
            pod,
            mesh.dir(),
            8080,
            "location / { return 200 $request_uri; }",
        )?);
    }
    let pods: Vec<&Pod> = servers.iter().collect();
    let vips = mesh.service("web", 10, &[Port::new("http", 80, 8080)], &pods)?;
    let (client, _sidecar) = mesh.client()?;
    client.widen()?;
    for vip in at(vips, 80) {
        let mut connection = Client::connect(&client, vip)?;
        for number in 0..10_000 {
            let path = format!("/{number}");
            let answer = connection
                .get("web", &path)
                .map_err(|failure| anyhow::anyhow!("request {number} by {vip}: {failure:?}"))?;
            assert_eq!((answer.status, answer.body.as_str()), (200, path.as_str()));
        }
        at_once(&client, vip, 1_000)?;
    }
    Ok(())
}

/// So many connections with a request each, all of them open before the first answer is read.
fn at_once(client: &Pod, vip: SocketAddr, count: usize) -> Result<()> {
    client.within(|| -> Result<()> {
        let mut open = Vec::new();
        for number in 0..count {
            let mut stream = TcpStream::connect(vip).with_context(|| format!("connection {number}"))?;
            write!(
                stream,
                "GET /{number} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"
            )?;
            open.push(stream);
        }
        for (number, mut stream) in open.into_iter().enumerate() {
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            let right =
                answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&format!("\r\n\r\n/{number}"));
            ensure!(right, "request {number} by {vip}: {answer:?}");
        }
        Ok(())
    })?
}

#[test]
fn a_websocket_is_upgraded_and_echoes() -> Result<()> {
    let mesh = Mesh::create()?;
    let server = mesh.pod("server", "echo")?;
    let _echo = server.start(RunAs::Application, "python3", ["-c", WEBSOCKET, "server", "8080"])?;
    server.wait_listening(8080)?;
    let vips = mesh.service("echo", 10, &[Port::new("http", 80, 8080)], &[&server])?;
    let (client, _sidecar) = mesh.client()?;
    for vip in vips {
        let vip = vip.to_string();
        let answer = said(&client, &["python3", "-c", WEBSOCKET, "client", &vip, "80"])?;
        assert_eq!(answer.trim(), "1000 echoes");
    }
    Ok(())
}
