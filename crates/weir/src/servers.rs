//! The servers for operators, on a control thread of their own: metrics (15020), health (15021), admin
//! (15000 on loopback, and a socket file). Comes in: where they listen, and what they show and steer.

mod conntrack;
mod follow;
mod gauges;

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use model::event::Event;
use model::{ErrorName, Problem, ports};
use registry::Snapshot;
use registry::dump::ListenerDump;
use runtime::drain::Trigger;
use runtime::metrics::{self, Counter, Metrics};
use runtime::ready::Readiness;
use runtime::server::{Listener, Reply, Routes, Socket, serve};
use runtime::tap::Tap;
use runtime::telemetry::Level;
use runtime::thread;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::errors::{OrNamed, fail};
use crate::version;
use conntrack::ConntrackGauges;
use gauges::{ProblemGauges, SnapshotGauges};

/// Where the servers listen. The sockets may belong to another network namespace.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub(crate) metrics: Vec<TcpListener>,
    pub(crate) health: Vec<TcpListener>,
    /// On loopback alone.
    pub(crate) admin: Vec<TcpListener>,
    /// The socket file by which `weir pc` finds this proxy.
    pub(crate) socket: Option<PathBuf>,
}

/// What the servers show and steer.
pub(crate) struct Shown {
    pub(crate) metrics: Metrics,
    pub(crate) readiness: Readiness,
    pub(crate) drain: Trigger,
    pub(crate) level: Level,
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What is wrong with the manifests.
    pub(crate) problems: watch::Receiver<Arc<[Problem]>>,
    /// Steps of connections, and look-ups.
    pub(crate) steps: Tap<Event>,
    /// Writes `GET /config_dump`.
    pub(crate) dump: Dumper,
    /// The capture listeners and published ports.
    pub(crate) listeners: Vec<ListenerDump>,
}

/// Writes everything a proxy was told, and what is wrong with it, as JSON.
pub(crate) type Dumper = Box<dyn Fn(&Snapshot, &[Problem]) -> String + Send>;

/// The running servers.
#[derive(Debug)]
pub(crate) struct Servers {
    thread: thread::Handle<Result<()>>,
    /// Dropped to stop them.
    stop: watch::Sender<()>,
}

impl Places {
    /// The well-known ports: metrics and health on every address, admin on loopback, both families where
    /// the kernel has both. No socket file yet.
    pub(crate) fn bind() -> Result<Self> {
        let any = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let bind = |what, ips: [_; 2], port| {
            let [v4, v6] = ips.map(|ip| SocketAddr::new(ip, port));
            let first = netsys::sock::listen(v4, false);
            let first = first.or_named_with(ErrorName::PortInUse, || {
                format!("cannot listen on {v4} for {what}; is another proxy running?")
            })?;
            match netsys::sock::listen(v6, false) {
                Ok(second) => Ok(vec![first, second]),
                Err(error) if netsys::sock::lacks_family(&error) => Ok(vec![first]),
                Err(error) => Err(error).or_named_with(ErrorName::PortInUse, || {
                    format!("cannot listen on {v6} for {what}")
                }),
            }
        };
        Ok(Self {
            metrics: bind("metrics", any, ports::METRICS)?,
            health: bind("health", any, ports::HEALTH)?,
            admin: bind("admin", loopback, ports::ADMIN)?,
            socket: None,
        })
    }
}

/// The metrics of this process, and the one that counts lost lines of the access log.
pub(crate) fn metrics() -> (Metrics, Counter) {
    let metrics = Metrics::of_process(version::VERSION, version::COMMIT);
    let lost = metrics.counter(
        "weir_access_log_lost_total",
        "Lines of the access log that were lost, because its reader was too slow or gone",
    );
    (metrics, lost)
}

/// Starts the servers. They answer from now on, through a drain, until they are stopped.
///
/// # Errors
/// Where the socket file is in use, or the thread cannot be made.
pub(crate) fn start(places: Places, shown: Shown) -> Result<Servers> {
    let (stop, stopped) = watch::channel(());
    let (ready, is_ready) = std::sync::mpsc::channel();
    let thread = thread::spawn("control", move || async move {
        let mut servers = JoinSet::new();
        for (listener, routes) in put_together(places, shown)? {
            let mut stopped = stopped.clone();
            let stop = async move {
                // Nothing is sent: the sender is dropped.
                let _ = stopped.changed().await;
            };
            servers.spawn_local(serve(listener, routes, stop));
        }
        let watch = tokio::task::spawn_local(conntrack::watch());
        let _ = ready.send(());
        servers.join_all().await;
        watch.abort();
        Ok(())
    })?;
    if is_ready.recv().is_err() {
        // It ended before it was ready: its result says why.
        thread.join()??;
        fail!(Defect, "the control thread ended at once; please report this");
    }
    Ok(Servers { thread, stop })
}

impl Servers {
    /// Stops them, and removes the socket file.
    pub(crate) fn stop(self) -> Result<()> {
        drop(self.stop);
        self.thread.join()?
    }
}

fn put_together(places: Places, shown: Shown) -> Result<Vec<(Listener, Rc<Routes>)>> {
    let scrape = scraper(shown.metrics, shown.snapshots.clone(), shown.problems.clone());
    let metrics = Rc::new(metrics_routes(&scrape));
    let health = Rc::new(health_routes(shown.readiness, shown.drain.clone()));
    let socket = places.socket.as_deref().map(Socket::bind).transpose()?;
    let routes = admin_routes(
        shown.drain,
        shown.level,
        shown.snapshots,
        shown.problems,
        shown.dump,
        shown.listeners,
    );
    // A proxy of `weir run` has no other place for them.
    let steps = shown.steps;
    let routes = routes.get("/metrics", ALL_METRICS, move |_| scrape()).get(
        "/journey",
        "Each step of each connection as it happens, a JSON object a line (weir pc journey prints it)",
        move |_| follow::journey(&steps),
    );
    let admin = Rc::new(routes);
    let mut all: Vec<_> = socket
        .into_iter()
        .map(|socket| (Listener::Unix(socket), Rc::clone(&admin)))
        .collect();
    for (listeners, routes) in [
        (places.metrics, metrics),
        (places.health, health),
        (places.admin, admin),
    ] {
        for listener in listeners {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            all.push((Listener::Tcp(listener), Rc::clone(&routes)));
        }
    }
    Ok(all)
}

const ALL_METRICS: &str = "All metrics, in OpenMetrics text";

/// Answers with all metrics as they are at the time.
pub(crate) type Scrape = Rc<dyn Fn() -> Reply>;

pub(crate) fn scraper(
    metrics: Metrics,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    problems: watch::Receiver<Arc<[Problem]>>,
) -> Scrape {
    let of_snapshot = Rc::new(SnapshotGauges::new(&metrics));
    let of_problems = Rc::new(ProblemGauges::new(&metrics));
    let of_conntrack = Rc::new(ConntrackGauges::new(&metrics));
    Rc::new(move || {
        of_snapshot.set(&snapshots.borrow());
        of_problems.set(&problems.borrow());
        of_conntrack.set();
        Reply::new(metrics::CONTENT_TYPE, metrics.encode())
    })
}

fn metrics_routes(scrape: &Scrape) -> Routes {
    let (scrape, same) = (Rc::clone(scrape), Rc::clone(scrape));
    Routes::new("metrics")
        .get("/metrics", ALL_METRICS, move |_| scrape())
        .get("/stats/prometheus", "The same, under Envoy's path", move |_| {
            same()
        })
}

fn health_routes(readiness: Readiness, drain: Trigger) -> Routes {
    let ready = move |_: &_| {
        let closed = readiness.closed();
        if drain.is_draining() {
            Reply::unavailable("draining")
        } else if closed.is_empty() {
            Reply::text("ready")
        } else {
            Reply::unavailable(format!("not ready: waiting for {}", closed.join(", ")))
        }
    };
    Routes::new("health")
        .get(
            "/healthz/ready",
            "200 while new connections are welcome, else 503 and why",
            ready,
        )
        .get("/healthz/live", "200 while the process answers", |_| {
            Reply::text("live")
        })
}

fn admin_routes(
    drain: Trigger,
    level: Level,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    problems: watch::Receiver<Arc<[Problem]>>,
    dump: Dumper,
    listeners: Vec<ListenerDump>,
) -> Routes {
    let steered = level.clone();
    let settings = snapshots.clone();
    let mut listening = String::new();
    for ListenerDump { name, address, .. } in listeners {
        // Writing to a string cannot fail.
        let _ = writeln!(listening, "{name} {address}");
    }
    Routes::new("admin")
        .loopback_names_only()
        .get(
            "/config_dump",
            "Everything this proxy was told, as JSON (weir pc reads it)",
            move |_| {
                let snapshot = Arc::clone(&snapshots.borrow());
                let problems = Arc::clone(&problems.borrow());
                Reply::json(dump(&snapshot, &problems))
            },
        )
        .get("/listeners", "The capture listeners", move |_| {
            Reply::text(listening.clone())
        })
        .get("/logging", "The log filter in force", move |_| {
            Reply::text(level.filter())
        })
        .post(
            "/logging",
            "?level=FILTER puts another in force: info, or debug,proxy=trace",
            move |request| {
                let Some(filter) = request.query("level") else {
                    return Reply::bad_request("say which: POST /logging?level=debug");
                };
                match steered.set(filter) {
                    Ok(()) => Reply::text(filter),
                    Err(error) => Reply::bad_request(error.to_string()),
                }
            },
        )
        .post("/drain", "Finishes what is under way, then exits", move |_| {
            let within = settings.borrow().settings.drain_deadline;
            drain.start(within);
            Reply::text(said(within))
        })
}

fn said(within: Duration) -> String {
    format!(
        "draining: the proxy exits when every connection has ended, at the latest in {} s",
        within.as_secs()
    )
}
