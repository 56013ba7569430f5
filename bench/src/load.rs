//! The load: the server's side, and one sample of a row by iperf3, wrk or h2load.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::{Pod, Program, RunAs, servers};

use crate::contenders::{Contender, HTTP_PORT, IPERF_PORT};
use crate::rows::Load;

/// What the fixed-rate row asks for: 125 a second on each of 16 connections.
const RATE_CONNECTIONS: u32 = 16;
const RATE_A_CONNECTION: u32 = 125;

/// Makes wrk print one line that is easy to read.
const WRK_DONE: &str = r#"done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"#;

/// What one load gave.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Yield {
    /// Gbit/s for bulk, requests a second for the rest.
    pub(crate) rate: f64,
    /// GiB for bulk, requests for the rest.
    pub(crate) work: f64,
    /// Median and 99th percentile in microseconds, where requests were timed.
    pub(crate) latency_us: Option<(f64, f64)>,
    /// Requests that failed or were answered with anything but success.
    pub(crate) failures: u64,
}

/// Starts the server's programs: nginx with two workers, and iperf3.
pub(crate) fn start_server(server: &Pod, dir: &Path) -> Result<[Program; 2]> {
    let www = dir.join("www");
    fs::create_dir(&www)?;
    fs::write(www.join("1k"), "x".repeat(1 << 10))?;
    fs::write(www.join("100k"), "x".repeat(100 << 10))?;
    fs::write(dir.join("done.lua"), WRK_DONE)?;
    let http = format!(
        "sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_timeout 3600;\n\
         client_header_timeout 3600; client_body_timeout 3600;\n\
         open_file_cache max=100 inactive=1h; open_file_cache_valid 1h;\n\
         server {{ listen 0.0.0.0:{HTTP_PORT} reuseport backlog=65535; root {}; location = /2b {{ return 200 ok; }} }}",
        www.display()
    );
    let main = "worker_processes 2; worker_rlimit_nofile 20000;";
    let nginx = servers::nginx_with(server, dir, main, &http)?;
    server.wait_listening(HTTP_PORT).with_context(|| nginx.said())?;
    let port = IPERF_PORT.to_string();
    let iperf = server.start(RunAs::Root, "iperf3", ["-s", "-p", &port])?;
    server.wait_listening(IPERF_PORT).with_context(|| iperf.said())?;
    Ok([nginx, iperf])
}

/// Puts one load on a contender, from its client, as an application.
pub(crate) fn put(load: Load, on: &Contender, sample: Duration, dir: &Path) -> Result<Yield> {
    match load {
        Load::Bulk { streams } => iperf(on, streams, sample),
        Load::KeepAlive { path, connections } => wrk(on, path, connections, &[], sample, dir),
        Load::Close => wrk(on, "/1k", 16, &["-H", "Connection: close"], sample, dir),
        Load::FixedRate => h2load(on, sample, dir),
    }
}

/// Runs a load generator; `timeout` ends one whose proxy has stopped answering.
fn generate(on: &Contender, sample: Duration, command: &[&str]) -> Result<String> {
    let limit = (sample.as_secs() * 2 + 20).to_string();
    let mut all = vec!["-k", "1", &limit];
    all.extend(command);
    let said = on.client.run_as(RunAs::Application, "timeout", all)?;
    Ok(said.text())
}

fn iperf(on: &Contender, streams: u32, sample: Duration) -> Result<Yield> {
    let (to, port) = (on.server.to_string(), IPERF_PORT.to_string());
    let (seconds, streams) = (sample.as_secs().to_string(), streams.to_string());
    let command = [
        "iperf3", "-c", &to, "-p", &port, "-t", &seconds, "-P", &streams, "-J",
    ];
    let text = generate(on, sample, &command)?;
    // The last `sum_received` of the report is that of the whole test.
    let sum = text
        .rsplit_once("\"sum_received\"")
        .context("iperf3 received nothing")?
        .1;
    let field = |name: &str| -> Result<f64> {
        let rest = sum
            .split_once(name)
            .with_context(|| format!("iperf3 did not say {name}"))?
            .1;
        let value = rest.split([',', '}']).next().unwrap_or_default();
        Ok(value.trim_start_matches(['"', ':']).trim().parse()?)
    };
    let gib = field("bytes")? / f64::from(1 << 30);
    ensure!(gib > 0.0, "iperf3 carried nothing through {}", on.name);
    Ok(Yield {
        rate: field("bits_per_second")? / 1e9,
        work: gib,
        latency_us: None,
        failures: 0,
    })
}

fn wrk(
    on: &Contender,
    path: &str,
    connections: u32,
    more: &[&str],
    sample: Duration,
    dir: &Path,
) -> Result<Yield> {
    let url = format!("http://{}:{HTTP_PORT}{path}", on.server);
    let script = dir.join("done.lua").display().to_string();
    let threads = connections.min(2).to_string();
    let (connections, seconds) = (connections.to_string(), sample.as_secs().to_string());
    let mut command = vec![
        "wrk",
        "-t",
        &threads,
        "-c",
        &connections,
        "-d",
        &seconds,
        "-s",
        &script,
    ];
    command.extend(more);
    command.push(&url);
    let text = generate(on, sample, &command)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("RESULT "))
        .context("wrk said nothing")?;
    let numbers: Vec<f64> = line.split(' ').filter_map(|number| number.parse().ok()).collect();
    let &[requests, duration_us, p50, p99, failures] = numbers.as_slice() else {
        bail!("wrk said `{line}`")
    };
    Ok(Yield {
        rate: requests / (duration_us / 1e6),
        work: requests,
        latency_us: Some((p50, p99)),
        failures: failures as u64,
    })
}

fn h2load(on: &Contender, sample: Duration, dir: &Path) -> Result<Yield> {
    let url = format!("http://{}:{HTTP_PORT}/1k", on.server);
    let log = dir.join("open").join("h2load.log");
    // h2load appends to a log that is there.
    if log.exists() {
        fs::remove_file(&log)?;
    }
    let log = log.display().to_string();
    let (connections, rate) = (RATE_CONNECTIONS.to_string(), RATE_A_CONNECTION.to_string());
    let rate = format!("--rps={rate}");
    let (seconds, log_option) = (sample.as_secs().to_string(), format!("--log-file={log}"));
    let command = [
        "h2load",
        "--h1",
        "-t",
        "1",
        "-c",
        &connections,
        &rate,
        "-D",
        &seconds,
        &log_option,
        &url,
    ];
    generate(on, sample, &command)?;
    // A line a request: start in microseconds, status, duration in microseconds.
    let (mut durations, mut failures) = (Vec::new(), 0);
    for line in fs::read_to_string(&log)?.lines() {
        let mut fields = line.split('\t').skip(1);
        let (status, duration) = (fields.next(), fields.next());
        match (status, duration.and_then(|text| text.parse::<f64>().ok())) {
            (Some("200"), Some(duration)) => durations.push(duration),
            _ => failures += 1,
        }
    }
    ensure!(
        !durations.is_empty(),
        "h2load was answered nothing by {}",
        on.name
    );
    durations.sort_by(f64::total_cmp);
    let at = |percent: usize| durations[(durations.len() - 1) * percent / 100];
    Ok(Yield {
        rate: durations.len() as f64 / sample.as_secs_f64(),
        work: durations.len() as f64,
        latency_us: Some((at(50), at(99))),
        failures,
    })
}
