//! What other people's rules do, as it is evaluated and as the kernel does it: rule sets like those of kube-proxy,
//! Docker and Linkerd, and each match and statement alone; real connections show where they arrive.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::{Net, Pod};
use netsys::route_to::{Here, Question, route_to};
use rules::cgroup::Membership;
use rules::ruleset::IpProtocol;
use rules::{Fate, Installed, Origin, Packet, State, Verdict};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_gid, set_thread_uid};
use socket2::{Domain, Socket, Type};

use super::rulesets::{ALONE, DOCKER, IPTABLES, KUBE, KUBE_NFT, LINKERD, SETS};

/// Each pod listens on them, on all of its addresses.
const PORTS: [u16; 6] = [80, 81, 4140, 4143, 8080, 30080];
/// Addresses of the machine outside: services that nobody translates, and endpoints.
const OUTSIDE: [&str; 8] = [
    "10.96.0.1",
    "10.96.0.2",
    "10.96.0.3",
    "192.0.2.7",
    "10.244.0.1",
    "10.244.0.2",
    "10.244.1.3",
    "10.244.1.4",
];
/// The node's address towards its container, and the container's.
const INSIDE: [&str; 2] = ["172.17.0.1", "172.17.0.2"];
/// What is expected to arrive is waited for as long as this.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is expected to be dropped, as long as this; one that comes later was not dropped either, and its answer
/// would be no less wrong.
const SHORT: Duration = Duration::from_millis(300);
/// Connections that are made where chance decides: that one of four ways is not taken by any of them happens once in
/// ten million times.
const MANY: usize = 60;

/// A node between a machine outside and a container.
struct World {
    node: Pod,
    outside: Pod,
    _container: Pod,
    _net: Net,
}

impl World {
    fn create() -> Result<Self> {
        let net = Net::create()?;
        let (node, outside) = (net.pod("node")?, net.pod("outside")?);
        let container = Pod::bare("container", Ipv4Addr::new(172, 17, 0, 2), outside.v6)?;
        for address in OUTSIDE {
            outside.ip(&format!("addr add {address}/32 dev lo"))?;
        }
        for net in ["10.96.0.0/16", "192.0.2.0/24", "10.244.0.0/16"] {
            node.ip(&format!("route add {net} via {}", outside.v4))?;
        }
        e2e::connect((&node, "docker0"), (&container, "eth0"))?;
        for (pod, device, address) in [(&node, "docker0", INSIDE[0]), (&container, "eth0", INSIDE[1])] {
            pod.ip(&format!("addr add {address}/16 dev {device}"))?;
        }
        container.ip(&format!("route add default via {}", INSIDE[0]))?;
        outside.ip(&format!("route add 172.17.0.0/16 via {}", node.v4))?;
        node.sysctl("net/ipv4/ip_forward", "1")?;
        // As kube-proxy does, for node ports of 127.0.0.1.
        node.sysctl("net/ipv4/conf/all/route_localnet", "1")?;
        for pod in [&node, &outside, &container] {
            pod.widen()?;
            listen(pod)?;
        }
        Ok(Self {
            node,
            outside,
            _container: container,
            _net: net,
        })
    }

    /// Takes everything out, and puts this in.
    fn put(&self, program: &str, text: &str) -> Result<()> {
        self.node.run("nft", ["flush ruleset"])?;
        for table in ["nat", "filter", "mangle"] {
            for action in ["-F", "-X"] {
                self.node.run("iptables-legacy", ["-t", table, action])?;
            }
        }
        let empty = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n";
        self.restore("iptables-legacy-restore", empty)?;
        match program {
            "nft" => self.restore("nft -f", text),
            program => self.restore(program, text),
        }
    }

    fn restore(&self, command: &str, text: &str) -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), text)?;
        let mut words = command.split(' ');
        let program = words.next().unwrap_or_default();
        let path = file.path().display().to_string();
        let arguments: Vec<_> = words.chain([path.as_str()]).collect();
        self.node.run(program, arguments).map(drop)
    }

    fn installed(&self) -> Result<Installed> {
        let seen = self.node.within(netsys::rules::look)??;
        ensure!(seen.hidden.is_empty(), "{:?}", seen.hidden);
        Ok(seen.installed)
    }

    /// Sends it, and holds where it arrives against what is said; answers what was said.
    fn check(&self, installed: &Installed, from: From, to: SocketAddr, what: &str) -> Result<Verdict> {
        let packet = self.packet(from, to)?;
        let said = self
            .node
            .within(|| installed.evaluate_in(&packet, &Membership::none(), &Here))?;
        let by = said.decided_by().map(ToString::to_string).unwrap_or_default();
        let what = format!("{what}: {from:?} to {to}, which is {:?} by {by}", said.fate);
        let pod = match from {
            From::Node(_) => &self.node,
            From::Outside => &self.outside,
        };
        let call = |patience| -> Result<Arrival> { pod.within(|| call(from, to, patience))? };
        match said.fate {
            Fate::Unknown => {}
            Fate::Split => {
                let expected: BTreeSet<_> = said
                    .ways
                    .iter()
                    .map(|way| arrives(way.verdict.fate, to))
                    .collect();
                let is_dropped = expected.contains(&Arrival::Nowhere);
                let patience = if is_dropped { SHORT } else { PATIENCE };
                let mut met = BTreeSet::new();
                for _ in 0..MANY {
                    let one = call(patience)?;
                    ensure!(expected.contains(&one), "{what}: {one:?} is none of {expected:?}");
                    met.insert(one);
                }
                // Of a range of addresses, one client is always given the same.
                let is_by_client = what.contains("10.244.0.1-10.244.0.2");
                ensure!(
                    met == expected || is_by_client,
                    "{what}: {met:?} alone of {expected:?}"
                );
            }
            fate => {
                let expected = arrives(fate, to);
                let patience = if expected == Arrival::Nowhere {
                    SHORT
                } else {
                    PATIENCE
                };
                let met = call(patience)?;
                ensure!(met == expected, "{what}: {met:?} instead of {expected:?}");
            }
        }
        Ok(said)
    }

    fn packet(&self, from: From, to: SocketAddr) -> Result<Packet> {
        let route = self.node.within(|| {
            route_to(Question {
                to: to.ip(),
                mark: 0,
                uid: 0,
            })
        })??;
        let (origin, source, device) = match from {
            From::Node(uid) => (
                Origin::Socket {
                    uid,
                    gid: uid,
                    mark: 0,
                },
                route.source.context("a source")?,
                if route.is_local {
                    "lo".to_owned()
                } else {
                    route.device
                },
            ),
            From::Outside => (Origin::Remote, self.outside.v4.into(), "eth0".to_owned()),
        };
        Ok(Packet {
            origin,
            protocol: IpProtocol::Tcp,
            source,
            source_port: 40_000,
            destination: to.ip(),
            destination_port: to.port(),
            device,
            state: State::New,
            connection_mark: 0,
            transparent: false,
            dns_answers: false,
        })
    }
}

/// Who calls.
#[derive(Clone, Copy, Debug)]
enum From {
    /// A process of that user.
    Node(u32),
    /// The machine outside.
    Outside,
}

/// Where a connection comes to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Arrival {
    /// This address; of a redirect the port alone is known.
    At(Option<IpAddr>, u16),
    Refused,
    Nowhere,
}

impl Arrival {
    /// What is redirected arrives at whatever address the device has.
    fn at(local: SocketAddr) -> Self {
        let is_redirected = matches!(local.port(), 4140 | 4143);
        Self::At((!is_redirected).then_some(local.ip()), local.port())
    }
}

fn arrives(fate: Fate, to: SocketAddr) -> Arrival {
    match fate {
        Fate::Direct => Arrival::at(to),
        Fate::Dnat { to, port } => Arrival::at((to, port).into()),
        Fate::Redirect { port } => Arrival::At(None, port),
        Fate::Reject => Arrival::Refused,
        _ => Arrival::Nowhere,
    }
}

fn call(from: From, to: SocketAddr, patience: Duration) -> Result<Arrival> {
    let made = thread::scope(|scope| {
        let make = || -> io::Result<Socket> {
            if let From::Node(uid) = from {
                set_thread_gid(Gid::from_raw(uid))?;
                set_thread_uid(Uid::from_raw(uid))?;
            }
            Socket::new(Domain::IPV4, Type::STREAM, None)
        };
        // The ids go with the thread.
        scope.spawn(make).join()
    });
    let socket = made.map_err(|_| anyhow::anyhow!("the thread panicked"))??;
    match socket.connect_timeout(&to.into(), patience) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(Arrival::Refused),
        Err(error) if error.kind() == ErrorKind::TimedOut => return Ok(Arrival::Nowhere),
        Err(error) => bail!("{to}: {error}"),
    }
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let local: SocketAddr = text.parse()?;
    Ok(Arrival::at(local))
}

/// Tells each that connects where it has arrived.
fn listen(pod: &Pod) -> Result<()> {
    for port in PORTS {
        let listener = pod.within(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))??;
        // Ends with the test's process.
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                if let Ok(local) = stream.local_addr() {
                    // A client that is gone fails its own test.
                    let _ = stream.write_all(local.to_string().as_bytes());
                }
            }
        });
    }
    Ok(())
}

/// Everything that is called.
fn calls(world: &World) -> Result<Vec<(From, SocketAddr)>> {
    let own: IpAddr = world.node.v4.into();
    let mut all = vec![];
    for address in OUTSIDE.iter().chain(["127.0.0.1"].iter()).chain(&INSIDE) {
        for port in [80, 81, 30080] {
            let to = SocketAddr::new(address.parse()?, port);
            all.extend([1000, 2102].map(|uid| (From::Node(uid), to)));
        }
    }
    for port in PORTS {
        let to = SocketAddr::new(own, port);
        all.extend([(From::Node(1000), to), (From::Outside, to)]);
    }
    all.push((From::Outside, SocketAddr::new(INSIDE[1].parse()?, 80)));
    Ok(all)
}

#[test]
fn the_kernel_does_with_foreign_rules_what_is_evaluated() -> Result<()> {
    let world = World::create()?;
    let calls = calls(&world)?;
    let (mut count, mut led, mut split) = (0, 0, 0);
    for (name, text) in [("kube-proxy", KUBE), ("Docker", DOCKER), ("Linkerd", LINKERD)] {
        for program in ["iptables-nft-restore", "iptables-legacy-restore"] {
            world.put(program, &text.replace("NODE", &world.node.v4.to_string()))?;
            let installed = world.installed()?;
            for (from, to) in &calls {
                let said = world.check(&installed, *from, *to, &format!("{name} by {program}"))?;
                ensure!(
                    said.fate != Fate::Unknown,
                    "{name}: {from:?} {to}: {:?}",
                    said.path.last()
                );
                count += 1;
                led += usize::from(matches!(said.fate, Fate::Dnat { .. } | Fate::Redirect { .. }));
                split += usize::from(said.fate == Fate::Split);
            }
        }
    }
    world.put("nft", &KUBE_NFT.replace("NODE", &world.node.v4.to_string()))?;
    let installed = world.installed()?;
    for (from, to) in &calls {
        let said = world.check(&installed, *from, *to, "kube-proxy by nft")?;
        ensure!(
            said.fate != Fate::Unknown,
            "{from:?} {to}: {:?}",
            said.path.last()
        );
        count += 1;
        led += usize::from(matches!(said.fate, Fate::Dnat { .. }));
        split += usize::from(said.fate == Fate::Split);
    }
    println!("{count} connections, {led} led elsewhere, {split} by chance: no disagreement with the kernel");
    ensure!(led >= 20 && split >= 5, "the rules hardly lead anywhere");
    Ok(())
}

/// Each match and statement in a rule of its own, in front of one that redirects what is left.
#[test]
fn the_kernel_does_with_each_match_what_is_evaluated() -> Result<()> {
    let world = World::create()?;
    world.restore("ipset restore -f", SETS)?;
    let calls = [
        (From::Node(1000), SocketAddr::from(([10, 96, 0, 1], 80))),
        (From::Node(2102), SocketAddr::from(([192, 0, 2, 7], 81))),
        (From::Node(1000), SocketAddr::new(world.node.v4.into(), 8080)),
        (From::Node(1000), SocketAddr::from(([172, 17, 0, 1], 80))),
    ];
    let mut fates: BTreeSet<String> = BTreeSet::new();
    let mut count = 0;
    let mut one = |what: &str| -> Result<bool> {
        let installed = world.installed()?;
        let mut differ: BTreeSet<String> = BTreeSet::new();
        for (from, to) in calls {
            let said = world.check(&installed, from, to, what)?;
            ensure!(said.fate != Fate::Unknown, "{what}: {from:?} {to} is not known");
            differ.insert(format!("{:?}", arrives(said.fate, to)));
            count += 1;
        }
        fates.extend(differ.iter().cloned());
        Ok(differ.len() > 1)
    };
    for program in ["iptables-nft-restore", "iptables-legacy-restore"] {
        for rule in IPTABLES {
            let text = format!(
                "*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:ELSE - [0:0]\n-A OUTPUT {rule}\n-A OUTPUT -p tcp -j REDIRECT --to-ports 4140\n\
                 -A ELSE -p tcp -j DNAT --to-destination 10.244.0.1:81\nCOMMIT\n"
            );
            world.put(program, &text)?;
            one(&format!("{program}: {rule}"))?;
        }
    }
    for rule in ALONE {
        let text = format!(
            "table ip t {{\n\tset some {{ type ipv4_addr; flags interval; elements = {{ 10.96.0.0/24, 172.17.0.1 }}; }}\n\
             \tmap ways {{ type ipv4_addr : verdict; elements = {{ 10.96.0.1 : jump else, 172.17.0.1 : accept }}; }}\n\
             \tmap none {{ type ipv4_addr : verdict; }}\n\
             \tchain else {{ meta l4proto tcp dnat to 10.244.0.1:81; }}\n\
             \tchain out {{ type nat hook output priority -100; {rule}; meta l4proto tcp redirect to :4140; }}\n}}\n"
        );
        world.put("nft", &text)?;
        one(&format!("nft: {rule}"))?;
    }
    println!(
        "{count} connections past single rules, {} ends: no disagreement with the kernel",
        fates.len()
    );
    Ok(())
}
