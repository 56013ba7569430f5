//! `--watch`: verified again and again. What changes is printed; how it stands is a metric.

use std::io::Write;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use diagnose::verify::{Error, Outcome, Question, Report, verify};
use model::ErrorName;
use runtime::metrics::{self, Counter, Family, Gauge, Label, Metrics};
use runtime::server::{Listener, Reply, Routes, serve};
use runtime::thread;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::Args;
use crate::errors::OrNamed;
use crate::version;

pub(super) fn run(args: &Args, question: &Question, interval: Duration) -> Result<ExitCode> {
    let metrics = Metrics::of_process(version::VERSION, version::COMMIT);
    let gauges = Gauges::new(&metrics);
    let listener = netsys::sock::listen(args.metrics, false).or_named_with(ErrorName::PortInUse, || {
        format!("--metrics: cannot listen on {}", args.metrics)
    })?;
    let (stop, stopped) = watch::channel(());
    let server = thread::spawn("metrics", move || scraped(listener, metrics, stopped))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate =
            signal(SignalKind::terminate()).or_named(ErrorName::System, "cannot catch signals")?;
        let mut interrupt =
            signal(SignalKind::interrupt()).or_named(ErrorName::System, "cannot catch signals")?;
        let mut before = None;
        loop {
            // Blocks for as long as it takes: there is nothing else to do here, and a signal waits until nothing
            // is left in the namespace.
            let found = args.place.run(|| verify(question))?;
            gauges.set(found.as_ref());
            let said = summary(&found);
            if before.as_ref() != Some(&said) {
                std::io::stdout()
                    .write_all(said.as_bytes())
                    .or_named(ErrorName::Output, "cannot print")?;
                before = Some(said);
            }
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        Ok::<_, anyhow::Error>(())
    })?;
    drop(stop);
    server.join()??;
    Ok(ExitCode::SUCCESS)
}

/// Serves the metrics until it is stopped.
async fn scraped(
    listener: std::net::TcpListener,
    metrics: Metrics,
    mut stopped: watch::Receiver<()>,
) -> Result<()> {
    let routes = Routes::new("metrics").get("/metrics", "All metrics, in OpenMetrics text", move |_| {
        Reply::new(metrics::CONTENT_TYPE, metrics.encode())
    });
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let stop = async move {
        // Nothing is sent: the sender is dropped.
        let _ = stopped.changed().await;
    };
    serve(Listener::Tcp(listener), Rc::new(routes), stop).await;
    Ok(())
}

/// What is not proven, without what differs from run to run.
fn summary(found: &Result<Report, Error>) -> String {
    let report = match found {
        Ok(report) => report,
        Err(error) => return format!("cannot verify: {error}\n"),
    };
    let mut lines: Vec<_> = report
        .findings
        .iter()
        .filter(|finding| finding.verdict != Outcome::Proven)
        .map(|finding| {
            format!(
                "  {}: {}, {}\n",
                finding.verdict.as_str(),
                finding.probe,
                finding.family
            )
        })
        .collect();
    lines.sort_unstable();
    lines.dedup();
    let sum = match report.verdict {
        Outcome::Proven => "Capture is proven.\n",
        Outcome::NotProbed => "Nothing is broken, but not all is proven:\n",
        Outcome::Broken => "Capture is BROKEN:\n",
    };
    format!("{sum}{}", lines.concat())
}

struct Gauges {
    proven: Gauge,
    probes: Family<Gauge, 1>,
    runs: Family<Counter, 1>,
    at: Gauge,
}

impl Gauges {
    fn new(metrics: &Metrics) -> Self {
        Self {
            proven: metrics.gauge(
                "weir_capture_proven",
                "1 where the last run proved that the namespace is captured as asked, else 0",
            ),
            probes: metrics.gauges(
                "weir_verify_probes",
                "Probes of the last run, by what they came to",
                [Label::fixed("verdict")],
            ),
            runs: metrics.counters(
                "weir_verify_runs_total",
                "Runs, by what they came to",
                [Label::fixed("verdict")],
            ),
            at: metrics.gauge(
                "weir_verify_last_run_timestamp_seconds",
                "When the last run ended, in seconds since 1970",
            ),
        }
    }

    fn set(&self, found: Result<&Report, &Error>) {
        let verdict = found.map_or("failed", |report| word(report.verdict));
        self.proven.set(i64::from(verdict == word(Outcome::Proven)));
        for outcome in [Outcome::Proven, Outcome::NotProbed, Outcome::Broken] {
            let count = found.map_or(0, |report| report.count(outcome));
            self.probes
                .with([word(outcome)])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.runs.with([verdict]).inc();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.at.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Proven => "proven",
        Outcome::NotProbed => "not-probed",
        Outcome::Broken => "broken",
    }
}
