//! One kind of TPROXY replaced by the other while connections are made, and while some stay open.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use e2e::http::Client;
use e2e::{Pod, weir};

use super::{BACKENDS, Stage, TRACKED, UNTRACKED, init};

const PATIENCE: Duration = Duration::from_secs(20);
/// How often one kind is replaced by the other, and back.
const EXCHANGES: usize = 15;

/// A new connection, which the proxy must have had: it gives requests an id.
fn ask(client: &Pod, to: SocketAddr) -> Result<()> {
    let mut stream = client.dial(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /proxied HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, id) = answer.split_once("\r\n\r\n").context("an answer")?;
    ensure!(!id.is_empty(), "it got past the proxy");
    Ok(())
}

/// What is under way, for those who ask meanwhile.
#[derive(Default)]
struct Progress {
    /// Odd while conntrack is being taken out: what it followed cannot go on without it.
    taken_out: AtomicUsize,
    done: AtomicBool,
}

impl Progress {
    fn ask(&self, client: &Pod, to: SocketAddr) -> Result<u32> {
        let mut connections = 0;
        while !self.done.load(Ordering::SeqCst) {
            let before = self.taken_out.load(Ordering::SeqCst);
            let asked = ask(client, to);
            let was_followed = before % 2 == 1 || before != self.taken_out.load(Ordering::SeqCst);
            if !was_followed {
                asked.with_context(|| format!("connection {connections} to {to}"))?;
                connections += 1;
            }
        }
        Ok(connections)
    }

    fn exchange(&self, stage: &Stage, backends: &[&str]) -> Result<()> {
        let mut kept = vec![];
        for to in stage.server.at(8081) {
            kept.push((to, Client::connect(&stage.client, to)?));
        }
        for round in 0..EXCHANGES {
            let backend = backends[round % backends.len()];
            replace(stage, &TRACKED, backend, &mut kept)?;
            self.taken_out.fetch_add(1, Ordering::SeqCst);
            let replaced = replace(stage, &UNTRACKED, backend, &mut kept);
            self.taken_out.fetch_add(1, Ordering::SeqCst);
            replaced?;
        }
        Ok(())
    }
}

/// Connections that conntrack has never followed stay open.
fn replace(stage: &Stage, kind: &[&str], backend: &str, kept: &mut [(SocketAddr, Client)]) -> Result<()> {
    let said = weir::run(&stage.server, &[kind, &["--backend", backend]].concat())?;
    ensure!(said.text().contains("Captured"), "{backend}: {}", said.text());
    for (to, client) in kept {
        let answer = client.get("web", "/");
        let answer = answer.map_err(|failure| anyhow!("{backend} {kind:?}, open to {to}: {failure:?}"))?;
        ensure!(answer.status == 200, "{backend}, open to {to}: {answer:?}");
    }
    Ok(())
}

#[test]
fn one_kind_replaces_the_other_without_a_gap() -> Result<()> {
    let stage = Stage::set(|server| {
        // However many connections a fast machine makes, conntrack's table must not fill up.
        server.sysctl("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "1")?;
        init(server, &UNTRACKED, BACKENDS[0])
    })?;
    for backends in [&BACKENDS[..1], &BACKENDS[1..2], &BACKENDS[2..], &BACKENDS] {
        let progress = &Progress::default();
        let connections = thread::scope(|scope| -> Result<u32> {
            let client = &stage.client;
            let clients = stage.server.at(8080);
            let clients = clients.map(|to| scope.spawn(move || progress.ask(client, to)));
            let exchanged = progress.exchange(&stage, backends);
            progress.done.store(true, Ordering::SeqCst);
            let mut connections = 0;
            for client in clients {
                connections += client.join().map_err(|_| anyhow!("a client panicked"))??;
            }
            exchanged.map(|()| connections)
        })?;
        ensure!(connections > 0, "no connection was made");
        println!("{backends:?}: {connections} connections while the kinds were exchanged {EXCHANGES} times");
    }
    Ok(())
}
