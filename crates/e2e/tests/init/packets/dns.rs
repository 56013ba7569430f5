//! The same for DNS: look-ups by everybody to servers that are meant and others, by UDP and TCP, while the DNS proxy
//! gives signs of life and while it gives none.

mod each_rule;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use model::ports;
use netsys::rules::Backend;
use rules::intent::Dns;
use rules::ruleset::{IpProtocol, LIST, Ruleset, SET};
use rules::{Fate, Flags, Origin, Packet, State, evaluate};
use socket2::Socket;

use super::settings::{Setting, setting};
use super::world::{Arrival, Group, World, connect, listen};
use super::{BACKENDS, Case, MARK, MORE_TRIES, install, of_family, packet, source};

/// Each with servers, `*` for any, and whether it fails closed.
const SETTINGS: [(&str, &str, bool); 14] = [
    ("--sidecar", "10.96.0.10,fd00:96::10", false),
    ("--sidecar", "*", false),
    ("--sidecar", "*", true),
    ("--sidecar", "10.96.0.10,127.0.0.1,OWN", false),
    ("-u 1337", "*", false),
    ("-i 10.96.0.0/12,127.0.0.0/8", "127.0.0.1,fd00:96::10", false),
    ("-q 53,80 -b 53", "10.96.0.10", false),
    ("--sidecar -o 53", "*", false),
    ("--sidecar -x 10.96.0.10/32 -c eth1", "*", false),
    ("--sidecar --exclude-groups 77", "*", false),
    ("--sidecar --groups 77", "10.96.0.10,fd00:96::10", true),
    ("--sidecar --proxy-mark 0x539", "*", false),
    ("--sidecar -u 1337,1338 -g 1000", "10.96.0.10,fd00:96::10", false),
    ("--sidecar -m TPROXY -t 7", "*", false),
];
/// A sender: uid, gid and mark of its socket.
const SENDERS: [(u32, u32, u32); 8] = [
    (0, 0, 0),
    (1000, 1000, 0),
    (1337, 1337, 0),
    (1337, 1000, 0),
    (1000, 1337, 0),
    (1338, 1000, 0),
    (1000, 77, 0),
    (1000, 1000, MARK),
];
const PORTS: [u16; 3] = [Dns::PORT, 80, ports::DNS];
const PROTOCOLS: [IpProtocol; 2] = [IpProtocol::Udp, IpProtocol::Tcp];
/// A part of the cases is sent for each setting, another one for the next.
const EVERY: usize = 3;

fn with_dns(world: &World, (name, servers, fail_closed): (&str, &str, bool)) -> Setting {
    let own = format!("{},{}", world.pod.v4, world.pod.v6);
    let servers = servers.replace("OWN", &own);
    let mut setting = setting(name.to_owned(), 1);
    setting.name = format!("{name} --redirect-dns {servers} {fail_closed}");
    let some = |value: bool| Some(value.to_string());
    setting.flags = Flags {
        redirect_dns: some(true),
        capture_all_dns: some(servers == "*"),
        dns_fail_closed: some(fail_closed),
        dns_servers: servers
            .split(',')
            .filter_map(|server| server.parse().ok())
            .collect(),
        ..setting.flags
    };
    setting
}

fn world() -> Result<World> {
    let world = World::create()?;
    listen(&world.other, &[Dns::PORT], &[Dns::PORT, 80])?;
    listen(&world.pod, &[Dns::PORT, ports::DNS], &[Dns::PORT, 80, ports::DNS])?;
    Ok(world)
}

fn cases(world: &World) -> Result<Vec<Case>> {
    let [v4, v6] = world.pod.addresses();
    let mut destinations = vec![(v4, "lo"), (v6, "lo")];
    for (text, device) in [
        ("127.0.0.1", "lo"),
        ("::1", "lo"),
        ("10.96.0.10", "eth0"),
        ("fd00:96::10", "eth0"),
        ("192.0.2.7", "eth0"),
        ("2001:db8::7", "eth0"),
        ("10.79.0.2", "eth1"),
        ("fd00:79::2", "eth1"),
    ] {
        destinations.push((text.parse()?, device));
    }
    let mut cases = vec![];
    for (ip, device) in destinations {
        // Nobody else has a listener at the port of the DNS proxy.
        for port in PORTS
            .into_iter()
            .filter(|port| *port != ports::DNS || device == "lo")
        {
            for (protocol, (uid, gid, mark)) in PROTOCOLS
                .into_iter()
                .flat_map(|protocol| SENDERS.map(|sender| (protocol, sender)))
            {
                cases.push(Case {
                    origin: Origin::Socket { uid, gid, mark },
                    protocol,
                    source: None,
                    group: Group::None,
                    to: SocketAddr::new(ip, port),
                    device,
                });
            }
        }
    }
    Ok(cases)
}

/// As the DNS proxy's own, to itself.
fn sign(sender: (u32, u32, u32), proxy: IpAddr) -> Packet {
    let (uid, gid, mark) = sender;
    Packet {
        origin: Origin::Socket { uid, gid, mark },
        protocol: IpProtocol::Udp,
        source: proxy,
        source_port: 40_000,
        destination: proxy,
        destination_port: ports::DNS,
        device: "lo".to_owned(),
        state: State::New,
        connection_mark: 0,
        transparent: false,
        dns_answers: false,
    }
}

const PROXIES: [&str; 2] = ["127.0.0.1", "::1"];

/// The first sender whose signs count by these rules.
fn proxy_by(held: &[Ruleset]) -> Option<(u32, u32, u32)> {
    SENDERS.into_iter().find(|sender| {
        let signs = PROXIES
            .iter()
            .filter_map(|proxy| Some(sign(*sender, proxy.parse().ok()?)));
        let mut counted = signs.map(|sign| {
            let held = held
                .iter()
                .find(|held| rules::Family::of(sign.source) == held.family);
            held.is_some_and(|held| evaluate(held, &sign).is_remembered)
        });
        counted.any(|counted| counted)
    })
}

/// Gives signs of life in that sender's name while the other runs.
fn alive<T>(world: &World, sender: (u32, u32, u32), during: impl FnOnce() -> Result<T>) -> Result<T> {
    const PAUSE: Duration = Duration::from_millis(200);
    let to: Vec<_> = PROXIES
        .iter()
        .map(|proxy| Ok((IpProtocol::Udp, SocketAddr::new(proxy.parse()?, ports::DNS))))
        .collect::<Result<_>>()?;
    let sockets = world.sockets(sender, Group::None, &to)?;
    for (socket, (_, to)) in sockets.iter().zip(&to) {
        socket.connect(&(*to).into())?;
        socket.send(b"")?;
    }
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let giving: ScopedJoinHandle<'_, ()> = scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                thread::park_timeout(PAUSE);
                for socket in &sockets {
                    // Whoever misses it fails a check.
                    let _ = socket.send(b"");
                }
            }
        });
        let result = during();
        end.store(true, Ordering::Relaxed);
        giving.thread().unpark();
        giving
            .join()
            .map_err(|_| anyhow::anyhow!("the sender panicked"))?;
        result
    })
}

/// As if the last sign had been long ago.
fn forget(world: &World, backend: Backend) -> Result<()> {
    if backend == Backend::Nft {
        return world
            .pod
            .run("nft", ["flush", "set", "inet", "weir", SET])
            .map(drop);
    }
    let list = format!("/proc/thread-self/net/xt_recent/{LIST}");
    world
        .pod
        .within(|| fs::write(list, "/"))?
        .context("emptying the list of xt_recent")
}

/// What happens, and whether it is what is said.
fn check(case: &Case, socket: &Socket, held: &[Ruleset], world: &World, answers: bool) -> Result<Fate> {
    let packet = Packet {
        dns_answers: answers,
        ..packet(case, source(case, world)?, State::New)
    };
    let verdict = evaluate(of_family(held, case.to)?, &packet);
    let arrived = connect(socket, case.protocol, None, case.to)?;
    let Arrival {
        listener,
        local,
        original,
    } = arrived;
    let as_said = match verdict.fate {
        Fate::Direct => (listener, local, original) == (case.to.port(), case.to, case.to),
        // Nothing tells whoever gets a datagram where it was going; that its answer came from there is seen here.
        Fate::Redirect { port } if case.protocol == IpProtocol::Udp => {
            (listener, local.port()) == (port, port)
        }
        Fate::Redirect { port } => (listener, local.port(), original) == (port, port, case.to),
        Fate::Tproxy { port } => (listener, local, original) == (port, case.to, case.to),
        _ => false,
    };
    ensure!(
        as_said,
        "{packet:?}: evaluate says {:?} by {:?}, but it arrived at {arrived:?}",
        verdict.fate,
        verdict.decided_by().map(ToString::to_string),
    );
    Ok(verdict.fate)
}

/// Sends all of them; answers how many went to the DNS proxy.
fn send(cases: &[&Case], held: &[Ruleset], world: &World, answers: bool) -> Result<usize> {
    let mut captured = 0;
    for sender in SENDERS {
        let (uid, gid, mark) = sender;
        let its: Vec<_> = cases
            .iter()
            .filter(|case| case.origin == Origin::Socket { uid, gid, mark })
            // It would be a sign of life itself.
            .filter(|case| answers || (case.protocol, case.to.port()) != (IpProtocol::Udp, ports::DNS))
            .collect();
        let to: Vec<_> = its.iter().map(|case| (case.protocol, case.to)).collect();
        let sockets_of = |to: &[(IpProtocol, SocketAddr)]| world.sockets(sender, Group::None, to);
        for (case, socket) in its.into_iter().zip(sockets_of(&to)?) {
            let mut fate = check(case, &socket, held, world, answers);
            // A source port that conntrack still knows, as in the other suite.
            for _ in 0..MORE_TRIES {
                if fate.is_err() {
                    let again = sockets_of(&[(case.protocol, case.to)])?;
                    fate = check(case, &again[0], held, world, answers);
                }
            }
            captured += usize::from(fate? == Fate::Redirect { port: ports::DNS });
        }
    }
    Ok(captured)
}

#[test]
fn look_ups_go_where_evaluate_says_with_and_without_their_proxy() -> Result<()> {
    let world = world()?;
    let cases = cases(&world)?;
    let (mut asked, mut captured) = (0, 0);
    for backend in BACKENDS {
        for (number, setting) in SETTINGS.into_iter().enumerate() {
            let setting = with_dns(&world, setting);
            let held = install(&world.pod, &setting, backend)?;
            let what = format!("{backend} {}", setting.name);
            let mine: Vec<_> = cases.iter().skip(number % EVERY).step_by(EVERY).collect();
            let proxy = proxy_by(&held);
            if proxy.is_some() {
                forget(&world, backend)?;
            }
            let without = send(&mine, &held, &world, false).with_context(|| what.clone())?;
            asked += mine.len();
            let Some(proxy) = proxy else {
                captured += without;
                continue;
            };
            ensure!(without == 0, "{what}: captured without its proxy");
            captured +=
                alive(&world, proxy, || send(&mine, &held, &world, true)).with_context(|| what.clone())?;
            asked += mine.len();
        }
    }
    println!(
        "{} configurations of DNS on {} back-ends, {asked} packets, {captured} of them to the DNS proxy: no disagreement",
        SETTINGS.len(),
        BACKENDS.len()
    );
    assert!(captured * 16 > asked, "the table hardly asks for a look-up");
    Ok(())
}
