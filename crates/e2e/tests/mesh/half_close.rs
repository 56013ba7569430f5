//! The server closes its side; the client speaks 90 seconds later, longer than conntrack remembers a
//! half-closed connection by itself: nothing is lost, and nothing is left over.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::manifests::Port;
use e2e::mesh::at;
use e2e::{Mesh, Pod, eventually};
use model::ports::OUTBOUND;

/// Conntrack ends a half-closed redirected connection after 60 s of silence.
const SILENCE: Duration = Duration::from_secs(90);
const LATE: &[u8] = b"said 90 seconds after you had closed";

#[test]
fn what_the_client_says_long_after_the_server_closed_arrives() -> Result<()> {
    let mesh = Mesh::create()?;
    let server = mesh.pod("server", "old")?;
    let vips = mesh.service("old", 10, &[Port::new("tcp-old", 1000, 1000)], &[&server])?;
    let (client, _sidecar) = mesh.client()?;
    let listener = server.within(|| TcpListener::bind("[::]:1000"))??;
    let received: Vec<Vec<u8>> = thread::scope(|scope| -> Result<_> {
        let servers: Vec<_> = (0..2).map(|_| scope.spawn(|| serve(&listener))).collect();
        let clients: Vec<_> = at(vips, 1000)
            .into_iter()
            .map(|vip| {
                (
                    vip,
                    scope.spawn({
                        let client = &client;
                        move || speak_late(client, vip)
                    }),
                )
            })
            .collect();
        for (vip, client) in clients {
            client
                .join()
                .expect("no panic")
                .with_context(|| vip.to_string())?;
        }
        servers
            .into_iter()
            .map(|server| server.join().expect("no panic"))
            .collect()
    })?;
    assert_eq!(received, [LATE, LATE]);
    eventually("the proxy to let go of both connections", || {
        (client.within(|| connections(OUTBOUND)).ok()? == 0).then_some(())
    })
}

/// Says something, closes its side at once, and returns all that it is then told.
fn serve(listener: &TcpListener) -> Result<Vec<u8>> {
    let (mut stream, _) = listener.accept()?;
    stream.write_all(b"bye")?;
    stream.shutdown(Shutdown::Write)?;
    let mut told = Vec::new();
    stream.read_to_end(&mut told)?;
    Ok(told)
}

fn speak_late(client: &Pod, vip: SocketAddr) -> Result<()> {
    let mut stream = client.dial(vip)?;
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard)?;
    assert_eq!(heard, b"bye");
    thread::sleep(SILENCE);
    stream.write_all(LATE)?;
    stream.shutdown(Shutdown::Write)?;
    Ok(())
}

/// Connections of the calling thread's namespace whose own port is `port`, the listener and those that
/// only wait for their time to be over apart.
fn connections(port: u16) -> usize {
    const LISTEN: &str = "0A";
    const TIME_WAIT: &str = "06";
    let suffix = format!(":{port:04X}");
    ["tcp", "tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).ok())
        .flat_map(|text| {
            text.lines()
                .map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
                .collect::<Vec<_>>()
        })
        .filter(|fields| fields.len() > 3 && fields[1].ends_with(&suffix))
        .filter(|fields| fields[3] != LISTEN && fields[3] != TIME_WAIT)
        .count()
}
