//! `weir proxy`: the sidecar's data path in the current network namespace.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use model::{ErrorName, ObjectName, ports};
use proxy::{Inbound, Kernel, Listeners, Served};
use runtime::tap::Tap;
use runtime::{lines, telemetry};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::errors::{self, OrNamed, fail};
use crate::servers::Places;
use crate::sidecar::{self, Dns, Parts, Sidecar};
use crate::{socket, version};

/// Run the proxy of one workload: accept what the rules redirect, decide, carry, report
///
/// Listens on 15001 (outbound) and 15006 (inbound), 15000 on loopback (admin), 15020 (metrics) and
/// 15021 (health); with --dns also on 15053 of loopback. SIGTERM drains: new connections are still accepted until
/// none has been under way for 5 s or the deadline passes; a second one ends at once. SIGINT (Ctrl-C) waits only
/// for what is under way.
#[derive(clap::Args)]
#[command(after_long_help = "EXIT STATUS:\n  \
    0  ended as it was told to\n  \
    2  it could not start or go on, or the arguments say nothing")]
pub(crate) struct Args {
    /// Folder with Kubernetes manifests (*.yaml, *.yml, *.json), watched for changes
    #[arg(long, value_name = "FOLDER", env = "WEIR_MANIFESTS")]
    manifests: PathBuf,

    /// The pod this proxy belongs to; otherwise `POD_NAMESPACE` and `POD_NAME` say it
    #[arg(long = "as", value_name = "NAMESPACE/POD")]
    own: Option<ObjectName>,

    /// Worker threads; as many as CPUs by default
    #[arg(long, value_name = "N", env = "WEIR_WORKERS", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,

    /// Mark of the proxy's own connections and DNS queries, where the rules know them by it (needs `CAP_NET_ADMIN`)
    #[arg(long, value_name = "MARK", value_parser = mark)]
    mark: Option<u32>,

    /// How the rules bring connections to the application here, as `weir init -m` was told. With `tproxy`
    /// the application sees its clients' own addresses; it needs `CAP_NET_ADMIN`
    #[arg(
        long,
        value_name = "MODE",
        default_value = "redirect",
        ignore_case = true,
        env = "ISTIO_META_INTERCEPTION_MODE"
    )]
    inbound_mode: Mode,

    /// Mark of the connections to the application with `--inbound-mode tproxy`, as `weir init -t` was told
    #[arg(long, value_name = "MARK", default_value = "1337", value_parser = mark, env = "INBOUND_TPROXY_MARK")]
    inbound_tproxy_mark: u32,

    /// Serve DNS on port 15053 of loopback, UDP and TCP: names of the mesh are answered, all others are
    /// forwarded as they are to the resolvers of `/etc/resolv.conf` (or `--resolv-conf`)
    #[arg(long)]
    dns: bool,

    /// Seconds that clients may keep answers for names of the mesh; by default what the setting dnsTtl says
    #[arg(long, value_name = "SECONDS", requires = "dns", value_parser = clap::value_parser!(u32).range(0..=86_400))]
    dns_ttl: Option<u32>,

    /// The file that names the resolvers of all other names, read again when it changes
    /// [default: /etc/resolv.conf]
    #[arg(long, value_name = "FILE", requires = "dns")]
    resolv_conf: Option<PathBuf>,

    /// Where the access log goes: a file, or `-` for standard output. Its form is a setting (accessLog)
    #[arg(long, value_name = "FILE", default_value = "-")]
    access_log: PathBuf,

    /// Socket file for `weir pc` [default: `PID.sock` in `$XDG_RUNTIME_DIR/weir`, or in `/tmp/weir-UID` where that
    /// variable names no directory of this user]
    #[arg(long, value_name = "FILE")]
    admin_socket: Option<PathBuf>,

    /// What is logged, on standard error: a level, or target=level, separated by commas
    #[arg(long, value_name = "FILTER", env = "WEIR_LOG", default_value = telemetry::DEFAULT_FILTER)]
    log: String,

    /// Form of the log on standard error
    #[arg(long, value_name = "FORM", default_value = "text")]
    log_format: Form,
}

#[derive(Clone, Copy, ValueEnum)]
enum Form {
    Text,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Redirect,
    Tproxy,
}

/// Where the resolvers of other names are, unless somebody says otherwise.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Runs until it has drained.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let form = match args.log_format {
        Form::Text => telemetry::Format::Text,
        Form::Json => telemetry::Format::Json,
    };
    let level = telemetry::start(form, &args.log, crate::LOGGING)?;
    let own = own_name(args.own)?;
    let workers = match args.workers {
        Some(workers) => usize::from(workers),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let inbound = match args.inbound_mode {
        Mode::Redirect => Inbound::Redirected,
        Mode::Tproxy => Inbound::Transparent {
            mark: args.inbound_tproxy_mark,
        },
    };
    if let Some(mark) = args.mark {
        may_mark(mark)?;
    }
    // First the ports that one proxy alone can have: on the others a second one would be dealt connections
    // before it finds out that it is one too many.
    let dns = args
        .dns
        .then(|| dns(args.dns_ttl, args.mark, args.resolv_conf.as_deref()))
        .transpose()?;
    let mut places = Places::bind()?;
    let listeners = Listeners::bind(workers, inbound).map_err(|error| cannot_listen(error, inbound))?;
    places.socket = Some(match args.admin_socket {
        Some(path) => path,
        None => socket::path()?,
    });
    let access_log = if args.access_log.as_os_str() == "-" {
        lines::stdout().or_named(
            ErrorName::AccessLog,
            "cannot write the access log to standard output",
        )?
    } else {
        lines::file(&args.access_log).or_named_with(ErrorName::AccessLog, || {
            format!("cannot open the access log {}", args.access_log.display())
        })?
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Signals are caught before anything is there that one could leave behind.
    let signals = runtime.block_on(async { Signals::new() })?;
    let source = discovery::start_manifests(args.manifests.clone(), own.clone())?;
    let snapshot = Arc::clone(&source.0.borrow());
    if let Some(own) = &own
        && snapshot.own.is_none()
    {
        tracing::warn!(see = %ErrorName::Identity, pod = %own, "no manifest describes the pod of this proxy: until one does, inbound ports are known by their numbers alone");
    }
    let mut sidecar = sidecar::start(Parts {
        source,
        workers,
        listeners,
        sockets: Arc::new(Kernel {
            mark: args.mark,
            inbound,
        }),
        dns,
        places,
        access_log: Some(access_log),
        steps: Tap::default(),
        level,
        quiet: model::settings::DRAIN_QUIET,
    })?;
    say_up(own.as_ref(), workers, &args.manifests, args.dns);
    let is_told_twice = runtime.block_on(drain_when_told(&mut sidecar, signals));
    let Served { connections, cut_off } = sidecar.finish()?;
    let how = match (is_told_twice, cut_off) {
        (true, _) => "told a second time",
        (false, 0) => "drained",
        (false, _) => "the time for the drain was up",
    };
    tracing::info!(connections, cut_off, "the proxy has ended: {how}");
    Ok(ExitCode::SUCCESS)
}

/// What somebody wants to know who finds this in a log.
fn say_up(own: Option<&ObjectName>, workers: usize, manifests: &Path, dns: bool) {
    let pod = own.map_or_else(|| "none".to_owned(), ToString::to_string);
    let dns = if dns {
        ports::DNS.to_string()
    } else {
        "off".to_owned()
    };
    tracing::info!(
        version = version::SHORT,
        %pod,
        workers,
        manifests = %manifests.display(),
        outbound = ports::OUTBOUND,
        inbound = ports::INBOUND,
        admin = ports::ADMIN,
        metrics = ports::METRICS,
        health = ports::HEALTH,
        %dns,
        "the proxy is up"
    );
}

fn dns(ttl: Option<u32>, mark: Option<u32>, resolv_conf: Option<&Path>) -> Result<Dns> {
    if let Some(file) = resolv_conf {
        // Later it may vanish for a while; whoever names one that never was is mistaken.
        std::fs::read(file).or_named_with(ErrorName::Resolvers, || {
            format!("--resolv-conf {}: cannot read it", file.display())
        })?;
    }
    let sockets = dns::Sockets::bind_loopback(ports::DNS).or_named(
        ErrorName::PortInUse,
        "cannot listen on 15053 for DNS; is another proxy running in this network namespace?",
    )?;
    Ok(Dns {
        sockets,
        resolv_conf: resolv_conf.unwrap_or(Path::new(RESOLV_CONF)).to_owned(),
        ttl,
        mark,
        gives_signs: true,
    })
}

/// Said at the start: later, each connection would fail for it.
fn may_mark(mark: u32) -> Result<()> {
    match netsys::sock::datagram_to((Ipv4Addr::LOCALHOST, ports::DNS).into(), Some(mark)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => fail!(
            Privilege,
            "--mark needs CAP_NET_ADMIN: give the proxy that capability, or have the rules recognise it by its user \
             (weir init --proxy-uid)"
        ),
        _ => Ok(()),
    }
}

fn cannot_listen(error: io::Error, inbound: Inbound) -> anyhow::Error {
    let (name, what) = match (error.kind(), inbound) {
        (io::ErrorKind::PermissionDenied, Inbound::Transparent { .. }) => (
            ErrorName::Privilege,
            "cannot make a transparent listener on 15006: `--inbound-mode tproxy` needs CAP_NET_ADMIN; \
             give the proxy that capability, or use `redirect` here and in `weir init`",
        ),
        _ => (
            ErrorName::PortInUse,
            "cannot listen on 15001 and 15006; is another proxy running in this network namespace?",
        ),
    };
    errors::while_doing(name, what, error)
}

/// What ends the proxy from outside.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let catch = |kind| signal(kind).or_named(ErrorName::System, "cannot catch signals");
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
        })
    }

    /// Whether the next one comes from somebody who waits for the end, as at a terminal.
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.terminate.recv() => false,
            _ = self.interrupt.recv() => true,
        }
    }
}

/// Resolves when the data path has ended: a drain was asked for, by signal or `POST /drain`, and either
/// everything is finished and look-ups go direct, or its deadline passed, or a second signal came. Says
/// whether it was the signal.
async fn drain_when_told(sidecar: &mut Sidecar, mut signals: Signals) -> bool {
    let trigger = sidecar.trigger().clone();
    tokio::select! {
        is_waited_for = signals.next() => {
            let within = sidecar.drain_deadline();
            let seconds = within.as_secs();
            if is_waited_for {
                tracing::info!("draining: ends when nothing is under way, after {seconds} s at the latest; a second signal ends it at once");
                trigger.start_last_call(within);
            } else {
                let quiet = model::settings::DRAIN_QUIET.as_secs();
                tracing::info!("draining: ends when nothing has been under way for {quiet} s, after {seconds} s at the latest; a second signal ends it at once");
                trigger.start(within);
            }
        }
        () = trigger.started() => tracing::info!("draining, as POST /drain asked; a signal ends it at once"),
    }
    tokio::select! {
        () = sidecar.ended() => {
            // Names are resolved until the last connection has ended, and none is asked for in vain then.
            tokio::select! {
                () = sidecar.hand_dns_over() => {}
                _ = signals.next() => {}
            }
            false
        }
        _ = signals.next() => {
            trigger.start(Duration::ZERO);
            sidecar.ended().await;
            true
        }
    }
}

/// A mark in decimal or, with `0x`, in hexadecimal.
fn mark(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    match parsed {
        Ok(0) => Err("a mark of 0 is no mark; give one from 1 to 0xffffffff".to_owned()),
        Ok(mark) => Ok(mark),
        Err(error) => Err(format!("{error}; give a number from 1 to 0xffffffff")),
    }
}

/// Who the proxy is: the flag, else the environment that the Kubernetes downward API fills.
fn own_name(flag: Option<ObjectName>) -> Result<Option<ObjectName>> {
    if flag.is_some() {
        return Ok(flag);
    }
    let read = |name| {
        std::env::var(name)
            .ok()
            .filter(|value: &String| !value.is_empty())
    };
    match (read("POD_NAMESPACE"), read("POD_NAME")) {
        (Some(namespace), Some(name)) => Ok(Some(ObjectName::new(namespace, name))),
        (None, None) => Ok(None),
        (Some(_), None) => {
            fail!(
                Identity,
                "POD_NAMESPACE is set but POD_NAME is not; set both, or use --as NAMESPACE/POD"
            )
        }
        (None, Some(_)) => {
            fail!(
                Identity,
                "POD_NAME is set but POD_NAMESPACE is not; set both, or use --as NAMESPACE/POD"
            )
        }
    }
}
