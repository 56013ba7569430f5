//! One running sidecar: registry from a manifests folder, data path, access log, operators' servers.
//! Comes in: arguments and listeners. Goes out: a handle that drains. `proxy`, `run` and `demo` start it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use model::ErrorName;
use model::event::Event;
use proxy::{Config, Listeners, Served, Sockets};
use registry::Snapshot;
use registry::dump::{DnsDump, Dump, ListenerDump, ProcessDump};
use runtime::clock;
use runtime::drain::{self, Trigger};
use runtime::lines;
use runtime::ready::Readiness;
use runtime::tap::Tap;
use runtime::telemetry::Level;
use tokio::sync::watch;

use crate::errors::OrNamed;
use crate::servers::{self, Dumper, Places, Servers, Shown};
use crate::version;

/// Descriptors kept for everything that is not a proxied connection.
const DESCRIPTORS_KEPT: usize = 256;
/// Time that the log has to be written out at the end.
const LOG_TIME: Duration = Duration::from_secs(5);

/// What a sidecar is started with.
pub(crate) struct Parts {
    /// The registry, and what feeds it.
    pub(crate) source: (watch::Receiver<Arc<Snapshot>>, discovery::Handle),
    /// Worker threads.
    pub(crate) workers: usize,
    /// Capture listeners; they may belong to another network namespace.
    pub(crate) listeners: Listeners,
    /// How endpoints are reached.
    pub(crate) sockets: Arc<dyn Sockets>,
    /// What serves DNS, if anything.
    pub(crate) dns: Option<Dns>,
    /// Where the operators' servers listen.
    pub(crate) places: Places,
    /// Where the access log goes; nowhere for none.
    pub(crate) access_log: Option<File>,
    /// Tells each step of each connection, and each look-up.
    pub(crate) steps: Tap<Event>,
    /// The program's own log.
    pub(crate) level: Level,
    /// How long no client may have come before a drain ends; none where no more can come.
    pub(crate) quiet: Duration,
}

/// How DNS is served.
pub(crate) struct Dns {
    /// Where it listens; they may belong to another network namespace.
    pub(crate) sockets: dns::Sockets,
    /// The file with the resolvers of names outside.
    pub(crate) resolv_conf: PathBuf,
    /// Seconds that answers for names of the mesh may be kept; none: what the settings say.
    pub(crate) ttl: Option<u32>,
    /// `SO_MARK` of the sockets by which resolvers are asked.
    pub(crate) mark: Option<u32>,
    /// Whether it gives the signs of life that capture rules wait for.
    pub(crate) gives_signs: bool,
}

/// What a dump says of DNS.
struct ShownDns {
    listeners: Vec<SocketAddr>,
    resolv_conf: PathBuf,
    ttl: Option<u32>,
}

impl Dns {
    fn shown(&self) -> ShownDns {
        let sockets = self.sockets.datagrams.iter();
        ShownDns {
            listeners: sockets.filter_map(|socket| socket.local_addr().ok()).collect(),
            resolv_conf: self.resolv_conf.clone(),
            ttl: self.ttl,
        }
    }
}

impl ShownDns {
    /// As it is now: the file may have changed.
    fn dump(&self, snapshot: &Snapshot) -> DnsDump {
        let conf = dns::read_conf(&self.resolv_conf);
        DnsDump {
            listeners: self.listeners.clone(),
            resolv_conf: self.resolv_conf.display().to_string(),
            resolvers: conf.addresses,
            search: conf.search,
            ndots: conf.ndots,
            ttl: dns::ttl(self.ttl, &snapshot.settings),
        }
    }
}

/// A running sidecar.
pub(crate) struct Sidecar {
    drain: Trigger,
    proxy: proxy::Handle,
    servers: Servers,
    discovery: discovery::Handle,
    lines: Option<lines::Handle>,
    dns: Option<dns::Handle>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

/// Starts it. Connections are accepted from the moment the workers' gates open, which is what
/// `/healthz/ready` waits for.
pub(crate) fn start(parts: Parts) -> Result<Sidecar> {
    let Parts {
        source: (snapshots, discovery),
        workers,
        listeners,
        sockets,
        dns,
        places,
        access_log,
        steps,
        level,
        quiet,
    } = parts;
    let (metrics, lost) = servers::metrics();
    let readiness = Readiness::default();
    let log = access_log
        .map(|file| lines::start(file, lost))
        .transpose()
        .or_named(ErrorName::Threads, "cannot start the access log")?;
    let (sink, lines) = log.unzip();
    let (drain, watch) = drain::channel();
    let named = named_listeners(&listeners);
    let dumped_dns = dns.as_ref().map(Dns::shown);
    let limit = netsys::limits::raise_descriptors()
        .or_named(ErrorName::System, "cannot read the descriptor limit")?;
    let look_ups = dns::Places::within(limit);
    let kept = DESCRIPTORS_KEPT + dns.as_ref().map_or(0, |_| look_ups.descriptors());
    // Each connection has two ends.
    let max_connections = limit.saturating_sub(kept).max(2) / 2;
    if dns.is_some() && look_ups.are_few() {
        let at_resolvers = look_ups.queries();
        tracing::warn!(
            see = %ErrorName::Descriptors, limit, max_connections, at_resolvers,
            "few descriptors: so many connections, and so many look-ups at resolvers, can there be at a time"
        );
    }
    let config = Config {
        workers,
        max_connections,
        sockets,
        snapshots: snapshots.clone(),
        reports: proxy::Reports::new(&metrics, sink, steps.clone()),
        drain: watch,
        quiet,
        readiness: readiness.clone(),
    };
    let proxy = proxy::start_proxy(config, listeners)?;
    let dns = start_dns(
        dns,
        look_ups,
        dns::Reports::new(&metrics, steps.clone()),
        snapshots.clone(),
    )?;
    let shown = Shown {
        metrics,
        readiness,
        drain: drain.clone(),
        level,
        snapshots: snapshots.clone(),
        problems: discovery.watch_problems(),
        steps,
        dump: dump(named.clone(), dumped_dns),
        listeners: named,
    };
    let servers = servers::start(places, shown)?;
    Ok(Sidecar {
        drain,
        proxy,
        servers,
        discovery,
        lines,
        dns,
        snapshots,
    })
}

/// The metrics are there whether it is served or not: what does not count is at zero.
fn start_dns(
    dns: Option<Dns>,
    places: dns::Places,
    reports: dns::Reports,
    snapshots: watch::Receiver<Arc<Snapshot>>,
) -> Result<Option<dns::Handle>> {
    let start = |dns: Dns| {
        let config = dns::Config {
            snapshots,
            resolv_conf: dns.resolv_conf,
            ttl: dns.ttl,
            mark: dns.mark,
            gives_signs: dns.gives_signs,
            places,
            reports,
        };
        dns::start(dns.sockets, config)
    };
    Ok(dns.map(start).transpose()?)
}

fn named_listeners(listeners: &Listeners) -> Vec<ListenerDump> {
    let all = [
        ("outbound", &listeners.outbound),
        ("inbound", &listeners.inbound),
        ("inbound", &listeners.transparent),
    ];
    let captures = all
        .into_iter()
        .flat_map(|(name, of)| of.iter().map(move |one| (name, one, None)));
    let published = listeners
        .published
        .iter()
        .map(|one| ("published", &one.listener, Some(one.to.socket())));
    let mut named: Vec<_> = captures
        .chain(published)
        .filter_map(|(name, listener, to)| {
            Some(ListenerDump {
                name: name.to_owned(),
                address: listener.local_addr().ok()?,
                to,
            })
        })
        .collect();
    named.dedup();
    named
}

/// Writes everything the proxy was told, and what it has lived through, as JSON.
fn dump(listeners: Vec<ListenerDump>, dns: Option<ShownDns>) -> Dumper {
    let process = this_process();
    Box::new(move |snapshot, problems| {
        let mut dump = Dump::new(snapshot, &listeners, problems, clock::millis());
        dump.process = Some(process.clone());
        dump.dns = dns.as_ref().map(|dns| dns.dump(snapshot));
        serde_json::to_string(&dump).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    })
}

/// By what `weir pc` tells this proxy from others.
fn this_process() -> ProcessDump {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let pid = process::id();
    ProcessDump {
        pid,
        version: version::VERSION.to_owned(),
        started: since_1970.map_or(0, |since| since.as_secs()),
        netns: netsys::process::netns_of(pid),
    }
}

impl Sidecar {
    /// What starts a drain: a signal, or `POST /drain`.
    pub(crate) fn trigger(&self) -> &Trigger {
        &self.drain
    }

    /// How long a drain may take, by the settings of now.
    pub(crate) fn drain_deadline(&self) -> Duration {
        self.snapshots.borrow().settings.drain_deadline
    }

    /// Resolves when the data path has ended, after a drain.
    pub(crate) async fn ended(&mut self) {
        self.proxy.ended().await;
    }

    /// Resolves when look-ups go direct, where capture rules have led them here while the proxy lived.
    pub(crate) async fn hand_dns_over(&self) {
        if let Some(dns) = &self.dns {
            dns.hand_over().await;
        }
    }

    /// Ends everything else when the data path has ended, the access log last. Says what became of connections.
    pub(crate) fn finish(self) -> Result<Served> {
        let served = self.proxy.join();
        drop(self.dns);
        self.servers.stop()?;
        drop(self.discovery);
        if let Some(lines) = self.lines
            && !lines.finish(LOG_TIME)
        {
            tracing::warn!(see = %ErrorName::AccessLog, "the end of the access log was not written: its reader does not read");
        }
        Ok(served)
    }
}
