//! Few descriptors: look-ups do not take them all.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{Mesh, RunAs, servers, weir};
use model::ports::{DNS, INBOUND, OUTBOUND};

const CONNECTIONS: usize = 100;

#[test]
fn with_few_descriptors_there_is_room_for_connections_and_it_is_told() -> Result<()> {
    let mesh = Mesh::create()?;
    let server = mesh.pod("server", "server")?;
    let _nginx = servers::nginx(&server, mesh.dir(), 80, "location / { return 200 hello; }")?;
    let client = mesh.pod("client", "client")?;
    weir::run(&client, &["init", "--sidecar"])?;
    let binary = weir::binary()?;
    // The binary may be where 1337 cannot go.
    let script = "exec 3<\"$1\" && shift && ulimit -n 1024 && \
                  exec setpriv --reuid 1337 --regid 1337 --clear-groups /proc/self/fd/3 \"$@\"";
    let (binary, folder) = (binary.to_string_lossy(), mesh.manifests.path().to_string_lossy());
    let arguments = [
        "-c",
        script,
        "sh",
        &binary,
        "proxy",
        "--manifests",
        &folder,
        "--dns",
    ];
    let proxy = client.start(RunAs::Root, "sh", arguments)?;
    for port in [OUTBOUND, INBOUND, DNS] {
        client
            .wait_listening(port)
            .map_err(|error| error.context(proxy.said()))?;
    }
    let to = SocketAddr::new(server.v4.into(), 80);
    let open = client.within(|| {
        (0..CONNECTIONS)
            .map(|_| TcpStream::connect(to))
            .collect::<Result<Vec<_>, _>>()
    })??;
    for mut stream in &open {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")?;
        let mut head = [0; 15];
        stream.read_exact(&mut head)?;
        ensure!(&head == b"HTTP/1.1 200 OK", "{head:?}");
    }
    let said = proxy.said();
    ensure!(said.contains("WEIR-DESCRIPTORS"), "{said}");
    Ok(())
}
