//! Inbound TPROXY at a fixed rate of new connections: an nginx behind it must see the client's own address, and
//! not one connection may fail. Both kinds, each with pods of its own.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::manifests::Port;
use e2e::weir::Sidecar;
use e2e::{Mesh, Pod, RunAs, servers, weir};

use crate::contenders::prepare;
use crate::usage;

/// New connections a second.
const RATE: u32 = 2_000;
/// Clients, each with its part of the rate.
const CLIENTS: u32 = 8;
const PATIENCE: Duration = Duration::from_secs(20);
const PORT: u16 = 8080;

const KINDS: [(&str, &str); 2] = [("followed by conntrack", "on"), ("without conntrack", "off")];

/// What became of one client's connections.
#[derive(Default)]
struct Sample {
    /// Microseconds from connecting to the whole answer.
    took_us: Vec<u32>,
    /// The first of them are told.
    failures: Vec<String>,
}

/// Measures both kinds and tells in a table.
pub(crate) fn run(length: Duration) -> Result<String> {
    let mut text = format!(
        "## Inbound TPROXY, {RATE} new connections a second for {} s\n\n\
         | kind | connections | failures | per second | p50, p99 | proxy's CPU | conntrack entries at the end |\n\
         |---|---|---|---|---|---|---|\n",
        length.as_secs()
    );
    for (kind, conntrack) in KINDS {
        measure(kind, conntrack, length, &mut text).with_context(|| kind.to_owned())?;
    }
    Ok(text)
}

fn measure(kind: &str, conntrack: &str, length: Duration, text: &mut String) -> Result<()> {
    let mesh = Mesh::create()?;
    let (server, client) = (mesh.pod("server", "web")?, mesh.pod("client", "client")?);
    mesh.service("web", 1, &[Port::new("http", 80, PORT)], &[&server])?;
    prepare(&server, None)?;
    prepare(&client, None)?;
    let init = [
        "init",
        "--sidecar",
        "-m",
        "TPROXY",
        "--inbound-tproxy-conntrack",
        conntrack,
    ];
    weir::run(&server, &init)?;
    let site = "location / { return 200 $remote_addr; }";
    let _nginx = servers::nginx(&server, mesh.dir(), PORT, site)?;
    let mode = ["--inbound-mode", "tproxy", "--access-log", "/dev/null"];
    let sidecar = Sidecar::proxy_as(RunAs::ProxyNetAdmin, &server, &mesh.manifests, &mode)?;
    let processes = usage::group(sidecar.proxy.id())?;

    let before = usage::cpu(&processes)?;
    let start = Instant::now();
    let mut sample = load(&client, server.at(PORT)[0], length)?;
    let took = start.elapsed();
    let cpu = usage::cpu(&processes)? - before;

    sample.took_us.sort_unstable();
    let made = sample.took_us.len();
    ensure!(
        made > 0,
        "not one connection was made: {:?}",
        sample.failures.first()
    );
    let at = |percent: usize| sample.took_us[(made - 1) * percent / 100];
    let entries = server
        .run("cat", ["/proc/sys/net/netfilter/nf_conntrack_count"])?
        .text();
    for failure in sample.failures.iter().take(5) {
        eprintln!("{kind}: {failure}");
    }
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "| {kind} | {made} | {} | {:.0} | {} us, {} us | {:.1} s | {} |",
        sample.failures.len(),
        made as f64 / took.as_secs_f64(),
        at(50),
        at(99),
        cpu.as_secs_f64(),
        entries.trim()
    );
    Ok(())
}

fn load(client: &Pod, to: SocketAddr, length: Duration) -> Result<Sample> {
    let own = IpAddr::from(client.v4).to_string();
    let count = u32::try_from(length.as_secs())? * RATE / CLIENTS;
    let pause = Duration::from_secs(1) * CLIENTS / RATE;
    let start = Instant::now();
    thread::scope(|scope| {
        let netns = client.netns();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let first = start + pause * number / CLIENTS;
                let own = &own;
                scope.spawn(move || netns.run(|| put(to, own, (first, pause), count)))
            })
            .collect();
        let mut all = Sample::default();
        for client in clients {
            let one = client.join().map_err(|_| anyhow!("a client panicked"))??;
            all.took_us.extend(one.took_us);
            all.failures.extend(one.failures);
        }
        Ok(all)
    })
}

/// One connection after the other, each at its time, or at once where it is late.
fn put(to: SocketAddr, own: &str, (first, pause): (Instant, Duration), count: u32) -> Sample {
    let mut sample = Sample::default();
    for number in 0..count {
        thread::sleep((first + pause * number).saturating_duration_since(Instant::now()));
        let start = Instant::now();
        match ask(to) {
            Ok(seen) if seen == own => {
                let took = u32::try_from(start.elapsed().as_micros());
                sample.took_us.push(took.unwrap_or(u32::MAX));
            }
            Ok(seen) => sample.failures.push(format!("the application saw `{seen}`")),
            Err(error) => sample.failures.push(error.to_string()),
        }
    }
    sample
}

/// The body of the answer.
fn ask(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = std::net::TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    body.ok_or_else(|| std::io::Error::other(format!("no answer but `{answer}`")))
}
