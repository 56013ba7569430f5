//! The mesh of the demo: pods on a switch, each a network namespace with rules, a sidecar and, in the
//! servers, an application process.

mod manifests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use diagnose::journey::{self, MadeBy, RuleOf};
use model::event::Event;
use model::{ErrorName, ObjectName};
use netsys::netlink::{Changes, LinkIndex};
use netsys::netns::Netns;
use proxy::{Inbound, Kernel, Listeners};
use rules::evaluate::Origin;
use rules::flags::Flags;
use rules::{Facts, Family, Ruleset};
use runtime::telemetry::Level;
use tokio::sync::mpsc;

use crate::errors::{OrNamed, fail, of_mistakes};
use crate::servers::Places;
use crate::sidecar::{self, Parts, Sidecar};

/// The service's name and addresses.
pub(super) const HOST: &str = "web.demo";
pub(super) const SERVICE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 10), 80));
pub(super) const SERVICE_V6: SocketAddr = SocketAddr::V6(SocketAddrV6::new(
    Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x10),
    80,
    0,
    0,
));
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
    /// Of each family that the machine speaks, IPv4 first.
    pub(super) addresses: Vec<IpAddr>,
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

/// Whose addresses the pods get.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stack {
    V4,
    Both,
}

impl Stack {
    /// What the calling thread's namespace speaks.
    fn here() -> Result<Self> {
        Ok(if netsys::links::ipv6_is_on()? {
            Self::Both
        } else {
            Self::V4
        })
    }

    fn families(self) -> &'static [Family] {
        match self {
            Self::V4 => &[Family::V4],
            Self::Both => &Family::ALL,
        }
    }

    /// Of a pod by its IPv4 address: `10.244.0.11` and `fd00:244::11`.
    fn addresses(self, v4: Ipv4Addr) -> Vec<IpAddr> {
        let [.., last] = v4.octets();
        let digits = u16::from_str_radix(&last.to_string(), 16).unwrap_or_default();
        let v6 = Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, digits);
        match self {
            Self::V4 => vec![v4.into()],
            Self::Both => vec![v4.into(), v6.into()],
        }
    }
}

impl Mesh {
    /// Builds it and waits until every sidecar accepts. The namespaces are the caller's to change.
    pub(super) fn start(level: &Level) -> Result<Self> {
        let switch = Netns::create().or_named(ErrorName::Namespace, "cannot make a network namespace")?;
        let stack = switch.run(Stack::here)??;
        manifests::write(Path::new(MANIFESTS), stack)
            .or_named(ErrorName::System, "cannot write the manifests")?;
        let names = CLIENTS.iter().chain(&SERVERS);
        let netnses: Vec<_> = names
            .map(|&(name, v4)| Ok((name, stack.addresses(v4), Netns::create()?)))
            .collect::<Result<_>>()
            .or_named(ErrorName::Namespace, "cannot make a network namespace")?;
        plug(&switch, &netnses)?;
        let pods = netnses
            .into_iter()
            .map(|(name, addresses, netns)| start_pod(name, addresses, netns, (stack, level)));
        Ok(Self {
            pods: pods.collect::<Result<_>>()?,
            _switch: switch,
        })
    }

    /// The service's addresses, one a family that the machine speaks.
    pub(super) fn services(&self) -> &'static [SocketAddr] {
        match self.pods.first().map(|pod| pod.addresses.len()) {
            Some(2) => &[SERVICE, SERVICE_V6],
            _ => &[SERVICE],
        }
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
            _ => fail!(Defect, "the mesh has no two clients; please report this"),
        }
    }

    pub(super) fn servers(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().skip(CLIENTS.len())
    }

    /// Ends a pod as a crash does: its application is killed, its sidecar closes everything at once.
    pub(super) fn kill(&mut self, name: &str) -> Result<()> {
        let pod = self.pods.iter_mut().find(|pod| pod.name == name);
        pod.or_named(ErrorName::Defect, "a pod of the mesh is not there")?
            .stop()
    }

    /// Ends every process and thread of it.
    pub(super) fn stop(mut self) -> Result<()> {
        self.pods.iter_mut().try_for_each(Pod::stop)
    }
}

impl Pod {
    /// Where its application is reached in the family of an address.
    pub(super) fn endpoint(&self, family: SocketAddr) -> Option<SocketAddr> {
        let mut addresses = self.addresses.iter();
        let address = addresses.find(|ip| ip.is_ipv4() == family.is_ipv4())?;
        Some(SocketAddr::new(*address, APP_PORT))
    }

    fn stop(&mut self) -> Result<()> {
        if let Some(mut app) = self.app.take() {
            app.kill()
                .or_named(ErrorName::System, "cannot kill an application")?;
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
fn plug(switch: &Netns, pods: &[(&str, Vec<IpAddr>, Netns)]) -> Result<()> {
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
    for (_, addresses, netns) in pods {
        let mut changes = Changes::new();
        changes.up(ETH0);
        for &address in addresses {
            let everywhere = if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            changes
                .address(ETH0, address)
                .route(everywhere.parse()?, ETH0, address);
        }
        netns.run(|| changes.commit())??;
    }
    Ok(())
}

fn start_pod(
    name: &'static str,
    addresses: Vec<IpAddr>,
    netns: Netns,
    (stack, level): (Stack, &Level),
) -> Result<Pod> {
    let started = netns.run(|| -> Result<_> {
        let rulesets = capture(stack)?;
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
            dns: None,
            places: Places::default(),
            access_log: None,
            watcher: Some(watcher),
            level: level.clone(),
            quiet: Duration::ZERO,
        })?;
        let is_server = SERVERS.iter().any(|(server, _)| *server == name);
        let listener = is_server
            .then(|| match stack {
                Stack::V4 => TcpListener::bind((Ipv4Addr::UNSPECIFIED, APP_PORT)),
                // Takes IPv4 too.
                Stack::Both => TcpListener::bind((Ipv6Addr::UNSPECIFIED, APP_PORT)),
            })
            .transpose()?;
        Ok((rulesets, events, sidecar, listener))
    });
    let (rulesets, events, sidecar, listener) =
        started?.map_err(|error| error.context(format!("pod {name}")))?;
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
        addresses,
        netns,
        rules_count: rulesets.iter().map(count).sum(),
        rule_of: journey::from_dump(rulesets, made_by),
        events,
        sidecar: Some(sidecar),
        app,
    })
}

/// `weir init --sidecar --proxy-mark 1337`, and what the kernel then holds.
fn capture(stack: Stack) -> Result<Vec<Ruleset>> {
    let flags = Flags {
        sidecar: true,
        proxy_mark: Some(MARK_TEXT.to_owned()),
        ..Flags::default()
    };
    let told = |mistakes: Vec<rules::Mistake>| of_mistakes(&mistakes);
    let families = stack.families();
    let plan = rules::plan(&flags.intent().map_err(told)?, &Facts::fresh(families)).map_err(told)?;
    if plan.passthrough_v6 {
        netsys::passthrough::add()?;
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
    command.spawn().or_named_with(ErrorName::Demo, || {
        format!("cannot start the application of {name}")
    })
}
