//! One kind of TPROXY replaced by the other while connections are made, and while some stay open.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use e2e::http::Client;
use e2e::{Pod, weir};

use super::{BACKENDS, Stage, TRACKED, UNTRACKED, init};

const PATIENCE: Duration = Duration::from_secs(20);
/// How often one kind is replaced by the other.
const REPLACEMENTS: usize = 30;

/// A new connection; answers the address that the application has seen.
fn asked(client: &Pod, to: SocketAddr) -> Result<String> {
    let mut stream = client.dial(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("an answer")?;
    Ok(body.to_owned())
}

fn ask_until(done: &AtomicBool, client: &Pod, to: SocketAddr) -> Result<u32> {
    let own = client.addresses()[usize::from(to.is_ipv6())].to_string();
    let mut connections = 0;
    while !done.load(Ordering::Relaxed) {
        let seen = asked(client, to).with_context(|| format!("connection {connections} to {to}"))?;
        ensure!(seen == own, "connection {connections} to {to} came from {seen}");
        connections += 1;
    }
    Ok(connections)
}

/// Kept connections, opened under either kind, are asked after each replacement.
fn replace(stage: &Stage, backends: &[&str]) -> Result<()> {
    let mut kept = vec![];
    for round in 0..REPLACEMENTS {
        for to in stage.server.at(8081) {
            if round < 2 {
                kept.push((to, Client::connect(&stage.client, to)?));
            }
        }
        let kind: &[&str] = if round % 2 == 0 { &TRACKED } else { &UNTRACKED };
        let backend = backends[(round / 2) % backends.len()];
        let said = weir::run(&stage.server, &[kind, &["--backend", backend]].concat())?;
        ensure!(said.text().contains("Captured"), "round {round}: {}", said.text());
        for (to, client) in &mut kept {
            let answer = client.get("web", "/");
            let answer = answer.map_err(|failure| anyhow!("round {round}, open to {to}: {failure:?}"))?;
            ensure!(answer.status == 200, "round {round}, open to {to}: {answer:?}");
        }
    }
    Ok(())
}

#[test]
fn one_kind_replaces_the_other_and_no_connection_notices() -> Result<()> {
    let stage = Stage::set(|server| {
        // However many connections a fast machine makes, conntrack's table must not fill up.
        server.sysctl("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "1")?;
        init(server, &UNTRACKED, BACKENDS[0])
    })?;
    for backends in [&BACKENDS[..1], &BACKENDS[1..2], &BACKENDS[2..], &BACKENDS] {
        let done = &AtomicBool::new(false);
        let connections = thread::scope(|scope| -> Result<u32> {
            let client = &stage.client;
            let clients = stage
                .server
                .at(8080)
                .map(|to| scope.spawn(move || ask_until(done, client, to)));
            let replaced = replace(&stage, backends);
            done.store(true, Ordering::Relaxed);
            let mut connections = 0;
            for client in clients {
                connections += client.join().map_err(|_| anyhow!("a client panicked"))??;
            }
            replaced.map(|()| connections)
        })?;
        ensure!(connections > 0, "no connection was made");
        println!(
            "{backends:?}: {connections} connections while the kinds were exchanged {REPLACEMENTS} times"
        );
    }
    Ok(())
}
