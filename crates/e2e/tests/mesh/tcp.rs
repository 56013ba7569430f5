//! What opaque connections meet: nobody at the endpoint, a destination that no service owns.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result};
use e2e::manifests::Port;
use e2e::mesh::at;
use e2e::{Mesh, RunAs, eventually, servers};

const HELLO: &str = "location / { return 200 hello; }";
const REGISTRY_ONLY: &str = "apiVersion: weir.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\n\
                             spec: {outboundPolicy: registry-only}\n";

/// How a connection that nobody wants to serve ends for the application.
fn end(mut stream: TcpStream) -> ErrorKind {
    let written = stream.write_all(b"anyone there?");
    match written.and_then(|()| stream.read(&mut [0; 16])) {
        Ok(_) => ErrorKind::UnexpectedEof,
        Err(error) => error.kind(),
    }
}

#[test]
fn an_endpoint_that_refuses_reaches_the_client_as_a_reset() -> Result<()> {
    let mesh = Mesh::create()?;
    let server = mesh.pod("server", "gone")?;
    let ports = [Port::new("tcp-gone", 1000, 1000), Port::new("main", 1001, 1000)];
    let vips = mesh.service("gone", 10, &ports, &[&server])?;
    let (client, _sidecar) = mesh.client()?;
    for to in [at(vips, 1000), at(vips, 1001)].concat() {
        // The reset may be there before connect has returned.
        let kind = client.dial(to).map_or_else(|error| error.kind(), end);
        let reset = [ErrorKind::ConnectionReset, ErrorKind::ConnectionRefused];
        assert!(reset.contains(&kind), "{to}: {kind:?}");
    }
    Ok(())
}

#[test]
fn an_unknown_destination_passes_through_unless_the_mesh_says_otherwise() -> Result<()> {
    let mesh = Mesh::create()?;
    let stranger = mesh.net.pod("stranger")?;
    let _nginx = servers::nginx(&stranger, mesh.dir(), 8080, HELLO)?;
    let (client, sidecar) = mesh.client()?;
    for address in stranger.at(8080) {
        let url = format!("http://{address}/");
        let said = client.run_as(RunAs::Application, "curl", ["-gsS", &url])?;
        assert_eq!(said.text(), "hello", "{url}");
    }
    mesh.manifests.write("mesh.yaml", REGISTRY_ONLY)?;
    for address in stranger.at(8080) {
        let url = format!("http://{address}/");
        eventually("the setting to hold", || {
            let asked = client
                .try_run(RunAs::Application, "curl", ["-gsS", "-m15", &url])
                .ok()?;
            (!asked.status.success()).then_some(())
        })
        .with_context(|| url.clone())?;
    }
    eventually("the log to say why", || {
        sidecar.proxy.said().contains("BlackHoleCluster").then_some(())
    })
    .with_context(|| sidecar.proxy.said())
}
