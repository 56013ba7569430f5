//! Where each packet goes: `rules::evaluate` says it, a real socket in a real namespace shows it, on every
//! back-end. The number of cases is printed.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use e2e::{Net, Pod};
use netsys::rules::{Backend, Session};
use netsys::sock::original_dst;
use rules::ruleset::{IpProtocol, Ruleset};
use rules::{Family, Fate, Flags, Origin, Packet, State, evaluate, plan};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_gid, set_thread_uid};
use socket2::{Domain, Socket, Type};

/// Destination ports, each with a listener in both pods. 15001 and 15006 are the stand-in for the proxy.
const PORTS: [u16; 7] = [22, 80, 8080, 15001, 15006, 15008, 15020];
const MARK: u32 = 0x539;

/// A sender: uid, gid and mark of its socket.
const SENDERS: [(u32, u32, u32); 7] = [
    (0, 0, 0),
    (1000, 1000, 0),
    (1337, 1337, 0),
    (1337, 1000, 0),
    (1000, 1337, 0),
    (1338, 1000, 0),
    (1000, 1000, MARK),
];

/// Addresses of others: each is one of the second pod's.
const ELSEWHERE: [&str; 6] = [
    "10.77.0.2",
    "10.96.0.10",
    "192.0.2.7",
    "fd00:77::2",
    "fd00:96::10",
    "2001:db8::7",
];

struct Setting {
    name: &'static str,
    flags: Flags,
}

/// `-i * -b 80`, and so on.
fn setting(name: &'static str) -> Setting {
    let mut flags = Flags::default();
    let mut words = name.split(' ');
    while let Some(flag) = words.next() {
        if flag == "--sidecar" {
            flags.sidecar = true;
            continue;
        }
        let value = words.next().map(str::to_owned);
        match flag {
            "-u" => flags.proxy_uid = value,
            "-g" => flags.proxy_gid = value,
            "--proxy-mark" => flags.proxy_mark = value,
            "-i" => flags.outbound_cidrs = value,
            "-x" => flags.outbound_exclude_cidrs = value,
            "-q" => flags.outbound_ports = value,
            "-o" => flags.outbound_exclude_ports = value,
            "-b" => flags.inbound_ports = value,
            "-d" => flags.inbound_exclude_ports = value,
            "-e" => flags.tunnel_port = value,
            _ => panic!("{flag} is no flag of this table"),
        }
    }
    Setting { name, flags }
}

const SETTINGS: [&str; 20] = [
    "--sidecar",
    "-i *",
    "-b *",
    "-b 80,8080",
    "-b 80,15008 -i 10.96.0.0/12",
    "-b * -d 22,80",
    "-i * -x 192.0.2.0/24,2001:db8::/32",
    "-i * -o 22,15020",
    "-i 10.96.0.0/12,fd00:96::/32",
    "-i 10.0.0.0/8 -x 10.96.0.0/16",
    "-q 80",
    "-q 80,8080 -x 192.0.2.7/32,fd00:96::/32",
    "-q 80 -o 80 -i 10.96.0.0/12",
    "-i 127.0.0.0/8,10.96.0.0/12",
    "-i 0.0.0.0/0,::/0 -b *",
    "-i * -b * -u 1337,1338 -g 1337",
    "-i * -b * -u 1338 -g 1338",
    "-i * -b * --proxy-mark 0x539",
    "-i * -b * --proxy-mark 0x539/0xfff -u 1337",
    "-i * -b * -e 8080",
];

/// Where a connection arrived.
#[derive(PartialEq, Eq, Debug)]
struct Arrival {
    /// The address of the socket that took it.
    local: SocketAddr,
    /// Where it was going, as conntrack says; the same without a redirect.
    original: SocketAddr,
}

/// Takes connections on every port of both families and tells each where it has arrived.
fn listen(pod: &Pod) -> Result<()> {
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    for ip in any {
        for port in PORTS {
            let listener = pod.within(|| -> std::io::Result<TcpListener> {
                let socket = Socket::new(Domain::for_address((ip, port).into()), Type::STREAM, None)?;
                if ip.is_ipv6() {
                    socket.set_only_v6(true)?;
                }
                socket.set_reuse_address(true)?;
                socket.bind(&SocketAddr::new(ip, port).into())?;
                socket.listen(128)?;
                Ok(socket.into())
            })??;
            // Ends with the test's process.
            thread::spawn(move || {
                for stream in listener.incoming().map_while(std::result::Result::ok) {
                    let Ok(local) = stream.local_addr() else { continue };
                    let original = original_dst(&stream, local).map_or(local, |original| original.socket());
                    // A client that is gone fails its own test.
                    let _ = std::io::Write::write_all(&mut &stream, format!("{local} {original}").as_bytes());
                }
            });
        }
    }
    Ok(())
}

fn arrival(text: &str) -> Result<Arrival> {
    let (local, original) = text.split_once(' ').context("an answer of two addresses")?;
    Ok(Arrival {
        local: local.parse()?,
        original: original.parse()?,
    })
}

/// Sockets of that sender, one for each destination.
fn sockets(pod: &Pod, sender: (u32, u32, u32), to: &[SocketAddr]) -> Result<Vec<Socket>> {
    let (uid, gid, mark) = sender;
    // The packet filter looks at who made the socket, so the thread changes its ids first; it ends with
    // them. The mark needs a right that the thread has then given up.
    let sockets = pod.within(|| -> std::io::Result<Vec<Socket>> {
        set_thread_gid(Gid::from_raw(gid))?;
        set_thread_uid(Uid::from_raw(uid))?;
        to.iter()
            .map(|&to| Socket::new(Domain::for_address(to), Type::STREAM, None))
            .collect()
    })??;
    for socket in &sockets {
        socket.set_mark(mark)?;
    }
    Ok(sockets)
}

/// Connects and reads where it arrived.
fn connect(socket: &Socket, source: Option<IpAddr>, to: SocketAddr) -> Result<Arrival> {
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect_timeout(&to.into(), Duration::from_secs(5))?;
    let mut text = String::new();
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut stream = socket;
    stream.read_to_string(&mut text)?;
    arrival(&text)
}

struct Case {
    origin: Origin,
    source: Option<IpAddr>,
    to: SocketAddr,
    device: &'static str,
}

/// Everything that the first pod sends, sender by sender, and what comes to it.
fn cases(pod: &Pod) -> Result<Vec<(Origin, Vec<Case>)>> {
    let mut cases = vec![];
    let own = pod.addresses();
    let loopback = ["127.0.0.1", "127.0.0.5", "::1"].map(str::parse::<IpAddr>);
    let elsewhere = ELSEWHERE.map(str::parse::<IpAddr>);
    let inside = own.into_iter().map(Ok).chain(loopback);
    let destinations = inside
        .map(|ip| (ip, "lo"))
        .chain(elsewhere.map(|ip| (ip, "eth0")));
    for (ip, device) in destinations {
        let ip = ip?;
        for port in PORTS {
            let to = SocketAddr::new(ip, port);
            for (uid, gid, mark) in SENDERS {
                let origin = Origin::Socket { uid, gid, mark };
                let case = |source| Case {
                    origin,
                    source,
                    to,
                    device,
                };
                cases.push(case(None));
                if device == "lo" && port == 8080 {
                    let passthrough: IpAddr = match ip {
                        IpAddr::V4(_) => model::ports::PASSTHROUGH_V4.into(),
                        IpAddr::V6(_) => model::ports::PASSTHROUGH_V6.into(),
                    };
                    cases.push(case(Some(passthrough)));
                }
            }
            if own.contains(&ip) {
                cases.push(Case {
                    origin: Origin::Remote,
                    source: None,
                    to,
                    device: "eth0",
                });
            }
        }
    }
    let origins = SENDERS.map(|(uid, gid, mark)| Origin::Socket { uid, gid, mark });
    let by_origin = origins.into_iter().chain([Origin::Remote]).map(|origin| {
        let (its, rest) = std::mem::take(&mut cases)
            .into_iter()
            .partition(|case: &Case| case.origin == origin);
        cases = rest;
        (origin, its)
    });
    Ok(by_origin.collect())
}

/// The source that the kernel takes where the sender does not say.
fn source(case: &Case, pod: &Pod, other: &Pod) -> IpAddr {
    let of = |pod: &Pod| match case.to {
        SocketAddr::V4(_) => pod.v4.into(),
        SocketAddr::V6(_) => pod.v6.into(),
    };
    match (case.source, case.origin) {
        (Some(source), _) => source,
        (None, Origin::Remote) => of(other),
        (None, _) if case.to.ip().is_loopback() => case.to.ip(),
        (None, _) => of(pod),
    }
}

fn packet(case: &Case, source: IpAddr) -> Packet {
    Packet {
        origin: case.origin,
        protocol: IpProtocol::Tcp,
        source,
        source_port: 40_000,
        destination: case.to.ip(),
        destination_port: case.to.port(),
        device: case.device.to_owned(),
        state: State::New,
    }
}

/// Puts the setting in and gives back what the kernel then holds, a rule set a family.
fn install(pod: &Pod, setting: &Setting, backend: Backend) -> Result<Vec<Ruleset>> {
    pod.within(|| {
        let intent = setting
            .flags
            .intent()
            .map_err(|mistakes| anyhow!("{mistakes:?}"))?;
        let session = Session::open(Some(backend))?;
        let plan = plan(&intent, &session.facts()?).map_err(|mistakes| anyhow!("{mistakes:?}"))?;
        session.install(&plan)?;
        drop(session);
        let mut dumps: Vec<_> = Session::open(Some(backend))?
            .own()
            .into_iter()
            .map(|(_, own)| own)
            .collect();
        for table in dumps.iter_mut().flat_map(|dump| &mut dump.tables) {
            table.chains.retain(|chain| chain.name != "WEIR_MADE_THIS_TABLE");
        }
        let wanted = match backend {
            Backend::Nft => rules::nft::render(&plan),
            _ => rules::render(&plan),
        };
        ensure!(dumps == wanted, "the kernel holds something else");
        Ok(dumps)
    })?
}

#[test]
fn the_kernel_does_with_every_packet_what_evaluate_says() -> Result<()> {
    let net = Net::create()?;
    let pod = net.pod("client")?;
    let other = net.pod("server")?;
    for pod in [&pod, &other] {
        pod.widen()?;
    }
    for address in ELSEWHERE
        .iter()
        .filter(|address| !address.ends_with(".0.2") && !address.ends_with("77::2"))
    {
        let (family, length) = if address.contains(':') {
            ("-6", 128)
        } else {
            ("-4", 32)
        };
        let via: IpAddr = if address.contains(':') {
            other.v6.into()
        } else {
            other.v4.into()
        };
        other.ip(&format!("{family} addr add {address}/{length} dev lo"))?;
        pod.ip(&format!("{family} route add {address}/{length} via {via}"))?;
    }
    listen(&pod)?;
    listen(&other)?;

    let (mut asked, mut redirected) = (0, 0);
    for backend in [Backend::IptablesNft, Backend::IptablesLegacy, Backend::Nft] {
        for setting in SETTINGS.map(setting) {
            let held = install(&pod, &setting, backend)?;
            for (origin, cases) in cases(&pod)? {
                let to: Vec<_> = cases.iter().map(|case| case.to).collect();
                let sockets = match origin {
                    Origin::Remote => sockets(&other, (0, 0, 0), &to)?,
                    Origin::Socket { uid, gid, mark } => sockets(&pod, (uid, gid, mark), &to)?,
                };
                for (case, socket) in cases.iter().zip(sockets) {
                    let source = source(case, &pod, &other);
                    let family = Family::of(case.to.ip());
                    let ruleset = held
                        .iter()
                        .find(|held| held.family == family)
                        .context("both families")?;
                    let verdict = evaluate(ruleset, &packet(case, source));
                    let what = format!("{backend} {}: {origin:?} {source} -> {}", setting.name, case.to);
                    let arrived = connect(&socket, case.source, case.to).with_context(|| what.clone())?;
                    let as_said = match verdict.fate {
                        Fate::Direct => arrived.local == case.to && arrived.original == case.to,
                        Fate::Redirect { port } => {
                            arrived.local.port() == port && arrived.original == case.to
                        }
                        _ => false,
                    };
                    assert!(
                        as_said,
                        "{what}: evaluate says {:?} by {:?}, but it arrived at {arrived:?}",
                        verdict.fate,
                        verdict.decided_by().map(ToString::to_string),
                    );
                    asked += 1;
                    redirected += usize::from(matches!(verdict.fate, Fate::Redirect { .. }));
                }
            }
        }
    }
    println!(
        "{asked} packets, {redirected} of them redirected: no disagreement between evaluate and the kernel"
    );
    assert!(redirected * 10 > asked, "the table hardly asks for a redirect");
    Ok(())
}
