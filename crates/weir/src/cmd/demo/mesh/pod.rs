//! A pod of the demo: a network namespace with rules, a sidecar and, in the servers, an application process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use diagnose::journey::{self, MadeBy, RuleOf};
use model::event::Event;
use model::{ErrorName, ObjectName, ports};
use netsys::netns::Netns;
use proxy::{Inbound, Kernel, Listeners};
use rules::evaluate::Origin;
use rules::flags::Flags;
use rules::{Facts, Family, Ruleset};
use runtime::tap::Tap;
use runtime::telemetry::Level;
use tokio::sync::mpsc;

use super::super::names;
use super::{APP_PORT, HOST, MANIFESTS, NAMESPACE, SERVERS, Stack};
use crate::errors::{OrNamed, of_mistakes};
use crate::servers::Places;
use crate::sidecar::{self, Dns, Parts, Sidecar};

/// Mark of the sidecars' own connections. The usual sign, uid 1337, does not exist in a user namespace.
const MARK: u32 = 1337;
/// What is captured, as flags of `weir init`.
pub(in crate::cmd::demo) const FLAGS: &str =
    "--sidecar --proxy-mark 1337 --redirect-dns --capture-all-dns --backend iptables";
/// More steps than the whole demo has.
const EVENTS_MAX: usize = 100_000;
/// A proxy that has said nothing for so long has nothing more to say.
const QUIET: Duration = Duration::from_millis(100);
/// And one that goes on and on is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// One pod.
pub(in crate::cmd::demo) struct Pod {
    pub(in crate::cmd::demo) name: &'static str,
    /// Of each family that the machine speaks, IPv4 first.
    pub(in crate::cmd::demo) addresses: Vec<IpAddr>,
    pub(in crate::cmd::demo) netns: Netns,
    /// Rules that were installed, both families.
    pub(in crate::cmd::demo) rules_count: usize,
    pub(in crate::cmd::demo) rule_of: RuleOf,
    events: mpsc::Receiver<Event>,
    sidecar: Option<Sidecar>,
    app: Option<Child>,
}

/// Starts it, and waits until its sidecar accepts.
pub(super) fn start(
    name: &'static str,
    addresses: Vec<IpAddr>,
    netns: Netns,
    (stack, level): (Stack, &Level),
) -> Result<Pod> {
    let started = netns.run(|| -> Result<_> {
        let rulesets = capture(stack)?;
        let steps = Tap::default();
        let listening = steps.listen(EVENTS_MAX);
        let (events, _) = listening.or_named(ErrorName::Defect, "nobody else listens yet")?;
        // Its threads stay where this one is: in the pod's namespace.
        let sidecar = sidecar::start(Parts {
            source: discovery::start_manifests(MANIFESTS.into(), Some(ObjectName::new(NAMESPACE, name)))?,
            workers: 1,
            listeners: Listeners::bind(1, Inbound::Redirected)?,
            sockets: Arc::new(Kernel {
                mark: Some(MARK),
                inbound: Inbound::Redirected,
            }),
            dns: Some(Dns {
                sockets: dns::Sockets::bind_loopback(ports::DNS)
                    .or_named(ErrorName::PortInUse, "the port of DNS is in use")?,
                resolv_conf: names::RESOLV_CONF.into(),
                ttl: None,
                mark: Some(MARK),
                gives_signs: true,
            }),
            places: Places::default(),
            access_log: None,
            steps,
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
        .map(|listener| start_app(name, &netns, &["--serve", name], listener.into()))
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

impl Pod {
    /// Where its application is reached in the family of an address.
    pub(in crate::cmd::demo) fn endpoint(&self, family: SocketAddr) -> Option<SocketAddr> {
        let mut addresses = self.addresses.iter();
        let address = addresses.find(|ip| ip.is_ipv4() == family.is_ipv4())?;
        Some(SocketAddr::new(*address, APP_PORT))
    }

    pub(super) fn stop(&mut self) -> Result<()> {
        if let Some(mut app) = self.app.take() {
            end(&mut app)?;
        }
        if let Some(sidecar) = self.sidecar.take() {
            sidecar.trigger().start(Duration::ZERO);
            sidecar.finish()?;
        }
        Ok(())
    }

    /// Look-ups go to the resolver, who does not know the service, until the rules know that the proxy answers.
    pub(super) fn wait_for_names(&mut self) -> Result<()> {
        let begun = Instant::now();
        let look_up = || {
            loop {
                match names::look_up(HOST, Family::V4) {
                    Err(_) if begun.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(5)),
                    result => break result,
                }
            }
        };
        let found = self.netns.run(look_up)?;
        found.or_named_with(ErrorName::Demo, || {
            format!("look-ups of {} do not come to its proxy", self.name)
        })?;
        // That was no part of what is shown.
        while self.events.try_recv().is_ok() {}
        Ok(())
    }

    /// What its proxy has told since the last time, and tells until it falls silent.
    pub(in crate::cmd::demo) fn told_until_quiet(&mut self) -> Vec<Event> {
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

/// `weir init` with [`FLAGS`], and what the kernel then holds.
fn capture(stack: Stack) -> Result<Vec<Ruleset>> {
    let yes = || Some(true.to_string());
    let flags = Flags {
        sidecar: true,
        proxy_mark: Some(MARK.to_string()),
        redirect_dns: yes(),
        capture_all_dns: yes(),
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

/// This program once more, as one that serves on the socket.
pub(super) fn start_app(name: &str, netns: &Netns, arguments: &[&str], socket: OwnedFd) -> Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("demo").args(arguments).stdin(socket);
    netns.start_in(&mut command);
    command.spawn().or_named_with(ErrorName::Demo, || {
        format!("cannot start the application of {name}")
    })
}

pub(super) fn end(app: &mut Child) -> Result<()> {
    app.kill()
        .or_named(ErrorName::System, "cannot kill an application")?;
    app.wait()?;
    Ok(())
}
