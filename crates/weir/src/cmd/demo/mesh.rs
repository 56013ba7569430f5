//! The mesh of the demo: pods on a switch, each a network namespace with rules, a sidecar and, in the
//! servers, an application process.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use diagnose::journey::{self, MadeBy, RuleOf};
use model::ObjectName;
use model::event::Event;
use netsys::netlink::{Changes, LinkIndex};
use netsys::netns::Netns;
use proxy::{Inbound, Kernel, Listeners};
use rules::evaluate::Origin;
use rules::flags::Flags;
use rules::{Facts, Family, Ruleset};
use runtime::telemetry::Level;
use tokio::sync::mpsc;

use crate::servers::Places;
use crate::sidecar::{self, Parts, Sidecar};

/// The service's name and address.
pub(super) const HOST: &str = "web.demo";
pub(super) const SERVICE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 10), 80));
/// Where the applications listen.
pub(super) const APP_PORT: u16 = 8080;
/// Kubernetes namespace of everything here.
const NAMESPACE: &str = "demo";
/// Mark of the sidecars' own connections. The usual sign, uid 1337, does not exist in a user namespace.
const MARK: u32 = 1337;
pub(super) const MARK_TEXT: &str = "1337";
/// `/tmp` is the process's own.
const MANIFESTS: &str = "/tmp/manifests";
/// More steps than the whole demo has.
const EVENTS_MAX: usize = 100_000;
/// A proxy that has said nothing for so long has nothing more to say.
const QUIET: Duration = Duration::from_millis(100);
/// And one that goes on and on is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);

const CLIENTS: [(&str, Ipv4Addr); 2] = [
    ("client-a", Ipv4Addr::new(10, 244, 0, 1)),
    ("client-b", Ipv4Addr::new(10, 244, 0, 2)),
];
const SERVERS: [(&str, Ipv4Addr); 3] = [
    ("web-1", Ipv4Addr::new(10, 244, 0, 11)),
    ("web-2", Ipv4Addr::new(10, 244, 0, 12)),
    ("web-3", Ipv4Addr::new(10, 244, 0, 13)),
];

/// One pod.
pub(super) struct Pod {
    pub(super) name: &'static str,
    pub(super) address: Ipv4Addr,
    pub(super) netns: Netns,
    /// Rules that were installed, both families.
    pub(super) rules_count: usize,
    pub(super) rule_of: RuleOf,
    events: mpsc::Receiver<Event>,
    sidecar: Option<Sidecar>,
    app: Option<Child>,
}

/// All pods, clients first, and the switch between them.
pub(super) struct Mesh {
    pods: Vec<Pod>,
    _switch: Netns,
}

impl Mesh {
    /// Builds it and waits until every sidecar accepts. The namespaces are the caller's to change.
    pub(super) fn start(level: &Level) -> Result<Self> {
        write_manifests(Path::new(MANIFESTS)).context("cannot write the manifests")?;
        let switch = Netns::create().context("cannot make a network namespace")?;
        let names = CLIENTS.iter().chain(&SERVERS);
        let netnses: Vec<_> = names
            .map(|&(name, address)| Ok((name, address, Netns::create()?)))
            .collect::<Result<_>>()
            .context("cannot make a network namespace")?;
        plug(&switch, &netnses)?;
        let pods = netnses
            .into_iter()
            .map(|(name, address, netns)| start_pod(name, address, netns, level));
        Ok(Self {
            pods: pods.collect::<Result<_>>()?,
            _switch: switch,
        })
    }

    pub(super) fn pods(&self) -> &[Pod] {
        &self.pods
    }

    pub(super) fn pods_mut(&mut self) -> &mut [Pod] {
        &mut self.pods
    }

    pub(super) fn clients(&self) -> Result<[&Pod; 2]> {
        match &self.pods[..] {
            [one, other, ..] => Ok([one, other]),
            _ => bail!("the mesh has no two clients; please report this"),
        }
    }

    pub(super) fn servers(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().skip(CLIENTS.len())
    }

    /// Ends a pod as a crash does: its application is killed, its sidecar closes everything at once.
    pub(super) fn kill(&mut self, name: &str) -> Result<()> {
        let pod = self.pods.iter_mut().find(|pod| pod.name == name);
        pod.context("a pod of the mesh")?.stop()
    }

    /// Ends every process and thread of it.
    pub(super) fn stop(mut self) -> Result<()> {
        self.pods.iter_mut().try_for_each(Pod::stop)
    }
}

impl Pod {
    /// Where its application is reached.
    pub(super) fn endpoint(&self) -> SocketAddr {
        (self.address, APP_PORT).into()
    }

    fn stop(&mut self) -> Result<()> {
        if let Some(mut app) = self.app.take() {
            app.kill().context("cannot kill an application")?;
            app.wait()?;
        }
        if let Some(sidecar) = self.sidecar.take() {
            sidecar.trigger().start(Duration::ZERO);
            sidecar.finish()?;
        }
        Ok(())
    }

    /// What its proxy has told since the last time, and tells until it falls silent.
    pub(super) fn told_until_quiet(&mut self) -> Vec<Event> {
        let mut told = vec![];
        let begun = Instant::now();
        let mut silent_since = begun;
        while silent_since.elapsed() < QUIET && begun.elapsed() < PATIENCE {
            match self.events.try_recv() {
                Ok(event) => {
                    told.push(event);
                    silent_since = Instant::now();
                }
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
        told
    }
}

/// Hangs every pod on a bridge in the switch.
fn plug(switch: &Netns, pods: &[(&str, Ipv4Addr, Netns)]) -> Result<()> {
    const BRIDGE: LinkIndex = LinkIndex(2);
    const FIRST_PORT: u32 = 10;
    const ETH0: LinkIndex = LinkIndex(2);
    let mut changes = Changes::new();
    changes.bridge((BRIDGE, "br0"));
    for (number, (name, _, netns)) in (FIRST_PORT..).zip(pods) {
        let port = LinkIndex(number);
        changes
            .veth_into((port, name), (ETH0, "eth0"), netns.as_fd())
            .join(port, BRIDGE);
    }
    switch.run(|| changes.commit())??;
    for (_, address, netns) in pods {
        let address = IpAddr::V4(*address);
        let mut changes = Changes::new();
        changes
            .up(ETH0)
            .address(ETH0, address)
            .route("0.0.0.0/0".parse()?, ETH0, address);
        netns.run(|| changes.commit())??;
    }
    Ok(())
}

fn start_pod(name: &'static str, address: Ipv4Addr, netns: Netns, level: &Level) -> Result<Pod> {
    let started = netns.run(|| -> Result<_> {
        let rulesets = capture()?;
        let (watcher, events) = mpsc::channel(EVENTS_MAX);
        // Its threads stay where this one is: in the pod's namespace.
        let sidecar = sidecar::start(Parts {
            source: discovery::start_manifests(MANIFESTS.into(), Some(ObjectName::new(NAMESPACE, name)))?,
            workers: 1,
            listeners: Listeners::bind(1, Inbound::Redirected)?,
            sockets: Arc::new(Kernel {
                mark: Some(MARK),
                inbound: Inbound::Redirected,
            }),
            places: Places::default(),
            access_log: None,
            watcher: Some(watcher),
            level: level.clone(),
            quiet: Duration::ZERO,
        })?;
        let is_server = SERVERS.iter().any(|(server, _)| *server == name);
        let listener = is_server
            .then(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, APP_PORT)))
            .transpose()?;
        Ok((rulesets, events, sidecar, listener))
    });
    let (rulesets, events, sidecar, listener) = started?.with_context(|| format!("pod {name}"))?;
    // From the main thread: the kernel ends the application when the thread that started it goes.
    let app = listener
        .map(|listener| start_app(name, &netns, listener))
        .transpose()?;
    let of_ours = |mark| Origin::Socket {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mark,
    };
    let made_by = MadeBy {
        application: of_ours(0),
        proxy: of_ours(MARK),
    };
    Ok(Pod {
        name,
        address,
        netns,
        rules_count: rulesets.iter().map(count).sum(),
        rule_of: journey::from_dump(rulesets, made_by),
        events,
        sidecar: Some(sidecar),
        app,
    })
}

/// `weir init --sidecar --proxy-mark 1337`, and what the kernel then holds.
fn capture() -> Result<Vec<Ruleset>> {
    let flags = Flags {
        sidecar: true,
        proxy_mark: Some(MARK_TEXT.to_owned()),
        ..Flags::default()
    };
    let told = |mistakes: Vec<rules::Mistake>| {
        anyhow!(
            mistakes
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ")
        )
    };
    let families: &[Family] = if netsys::links::ipv6_is_on()? {
        &Family::ALL
    } else {
        &[Family::V4]
    };
    let plan = rules::plan(&flags.intent().map_err(told)?, &Facts::fresh(families)).map_err(told)?;
    if plan.passthrough_v6 {
        netsys::links::add_passthrough_v6()?;
    }
    let programs = netsys::rules::install_fresh(&plan)?;
    programs
        .iter()
        .map(|programs| Ok(netsys::rules::dump(programs)?))
        .collect()
}

fn count(ruleset: &Ruleset) -> usize {
    ruleset
        .tables
        .iter()
        .flat_map(|table| &table.chains)
        .map(|chain| chain.rules.len())
        .sum()
}

fn start_app(name: &str, netns: &Netns, listener: TcpListener) -> Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["demo", "--serve", name])
        .stdin(OwnedFd::from(listener));
    netns.start_in(&mut command);
    command
        .spawn()
        .with_context(|| format!("cannot start the application of {name}"))
}

/// A Service, its `EndpointSlice` and the Pods, as `kubectl get -o yaml` would print them.
fn write_manifests(directory: &Path) -> Result<()> {
    fs::create_dir(directory)?;
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: {NAMESPACE}}}\nspec:\n  clusterIP: {}\n  \
         selector: {{app: web}}\n  ports:\n  - {{name: http, port: {}, targetPort: {APP_PORT}}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\nmetadata:\n  name: web-1\n  \
         namespace: {NAMESPACE}\n  labels: {{kubernetes.io/service-name: web}}\nports:\n\
         - {{name: http, port: {APP_PORT}, protocol: TCP}}\nendpoints:\n",
        SERVICE.ip(),
        SERVICE.port(),
    );
    // Writing to a string cannot fail.
    for (name, address) in SERVERS {
        let _ = writeln!(
            text,
            "- {{addresses: [{address}], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: {name}, namespace: {NAMESPACE}}}}}"
        );
    }
    for (app, pods) in [("client", &CLIENTS[..]), ("web", &SERVERS[..])] {
        for (name, address) in pods {
            let _ = write!(
                text,
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {NAMESPACE}, labels: {{app: {app}}}}}\n\
                 spec: {{containers: []}}\nstatus:\n  podIP: {address}\n  podIPs: [{{ip: {address}}}]\n  \
                 conditions: [{{type: Ready, status: 'True'}}]\n"
            );
        }
    }
    Ok(fs::write(directory.join("mesh.yaml"), text)?)
}
