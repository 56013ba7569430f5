//! A pod with rules for TPROXY, an application on several ports, and a stand-in for the proxy, which dials the
//! application in its clients' names; and who connects to it.

use std::fmt;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use e2e::{Net, Pod};
use model::ports;
use netsys::sock::transparent;
use rules::Family;
use rules::ruleset::IpProtocol;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_gid, set_thread_uid};
use socket2::Socket;

use super::super::world::{listener, sockets, tracked};

/// Where applications listen, in both pods.
const PORTS: [u16; 6] = [22, 8080, 15008, 15020, 15021, 15090];
/// Those of them that are not captured inbound.
const EXCLUDED: [u16; 4] = [15008, 15020, 15021, 15090];
/// Where nobody listens.
const CLOSED: u16 = 9;
const TAKE_UP: &str = "net/netfilter/nf_conntrack_tcp_loose";
/// The pod's address to its virtual machine.
const MACHINE: [&str; 2] = ["10.79.2.1", "fd00:79:2::1"];
/// Where the pod publishes what listens on 8080.
const PUBLISHED: u16 = 7070;
/// User and group.
const APPLICATION: Option<(u32, u32)> = Some((1000, 1000));
const BY_USER: Option<(u32, u32)> = Some((1337, 1000));
const BY_GROUP: Option<(u32, u32)> = Some((1000, 1337));
const PROXY: u32 = 1337;
/// How long the stand-in waits for the application.
const DIAL: Duration = Duration::from_millis(700);

pub(super) struct Stage {
    pub(super) pod: Arc<Pod>,
    proxy: [TcpListener; 2],
    other: Pod,
    /// From before the first rule, and not used since: each set has one of each kind, by both families.
    open: Vec<Vec<TcpStream>>,
    _net: Net,
}

/// A connection that somebody makes.
pub(super) struct Probe {
    /// User and group of a socket of the pod; none for the other pod.
    from: Option<(u32, u32)>,
    source: Option<IpAddr>,
    pub(super) to: SocketAddr,
    /// What it meets with all rules.
    pub(super) expected: String,
}

impl Probe {
    pub(super) fn family(&self) -> Family {
        Family::of(self.to.ip())
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {:?} -> {} ({})",
            self.from, self.source, self.to, self.expected
        )
    }
}

impl Stage {
    pub(super) fn set() -> Result<Self> {
        let net = Net::create()?;
        let (pod, other) = (net.pod("server")?, net.pod("client")?);
        other.ip("addr add 10.77.200.1/16 dev eth0")?;
        other.ip("addr add fd00:77::200:1/64 dev eth0 nodad preferred_lft 0")?;
        for (number, device) in [(1, "eth1"), (2, "eth2")] {
            e2e::connect((&pod, device), (&other, device))?;
            for (pod, last) in [(&pod, 1), (&other, 2)] {
                pod.ip(&format!("addr add 10.79.{number}.{last}/24 dev {device}"))?;
                pod.ip(&format!(
                    "addr add fd00:79:{number}::{last}/64 dev {device} nodad"
                ))?;
            }
        }
        // No socket keeps what opens a connection.
        pod.sysctl("net/ipv4/tcp_syncookies", "2")?;
        // What is tracked shows by its first packet.
        pod.sysctl(TAKE_UP, "0")?;
        // So that what conntrack knows of those that have ended is soon little.
        for state in ["time_wait", "fin_wait", "last_ack", "close_wait"] {
            pod.sysctl(&format!("net/netfilter/nf_conntrack_tcp_timeout_{state}"), "1")?;
        }
        let pod = Arc::new(pod);
        for pod in [&pod, &other] {
            for port in PORTS {
                application(pod, port)?;
            }
        }
        application(&pod, ports::OUTBOUND)?;
        let proxy = stand_in(&pod)?;
        Ok(Self {
            pod,
            proxy,
            other,
            open: vec![],
            _net: net,
        })
    }

    /// Connections that nothing is said on before [`Stage::open_ones_fare`].
    pub(super) fn open_some(&mut self, sets: usize) -> Result<()> {
        let (pod, machine): (&Pod, [IpAddr; 2]) = (&self.pod, [MACHINE[0].parse()?, MACHINE[1].parse()?]);
        let at = |to: [IpAddr; 2]| to.map(|ip| SocketAddr::new(ip, 8080));
        let dial = |from: &Pod, at: SocketAddr| -> Result<TcpStream> {
            let stream = from.dial(at)?;
            BufReader::new(&stream).read_line(&mut String::new())?;
            Ok(stream)
        };
        for _ in 0..sets {
            let outward = at(self.other.addresses()).map(|at| dial(pod, at));
            let inward = at(pod.addresses()).map(|at| dial(&self.other, at));
            let of_machine = at(machine).map(|at| dial(&self.other, at));
            let set = outward.into_iter().chain(inward).chain(of_machine);
            self.open.push(set.collect::<Result<_>>()?);
        }
        // From here on conntrack looks.
        pod.run("nft", ["add table inet published"])?;
        pod.run(
            "nft",
            ["add chain inet published in { type nat hook prerouting priority -90; }"],
        )?;
        let rule = format!("add rule inet published in tcp dport {PUBLISHED} redirect to :8080");
        pod.run("nft", [rule])?;
        for set in &mut self.open {
            for at in pod.at(PUBLISHED) {
                set.push(dial(&self.other, at)?);
            }
        }
        Ok(())
    }

    /// Connections that somebody opens, of which nothing but the first packet gets further: from outside, and the
    /// proxy's to its own workload.
    pub(super) fn half_open(&self) -> Result<Vec<Socket>> {
        let mut all = vec![];
        for pod in [&self.pod, &self.other] {
            pod.run("nft", ["add table inet held"])?;
            pod.run(
                "nft",
                ["add chain inet held out { type filter hook output priority 0; }"],
            )?;
            let rule = "add rule inet held out tcp dport 8080 tcp flags & (syn | ack) == ack drop";
            pod.run("nft", [rule])?;
        }
        for to in self.pod.at(8080) {
            let to = [(IpProtocol::Tcp, to)];
            all.extend(sockets(&self.other, (0, 0, 0), None, &to)?);
            all.extend(sockets(&self.pod, (PROXY, PROXY, 0), None, &to)?);
            for socket in &all[all.len() - 2..] {
                socket.connect_timeout(&to[0].1.into(), DIAL)?;
                socket.send(b"?")?;
            }
        }
        Ok(all)
    }

    /// Whether the rest of them, which now comes through, gets to the application; each in turn.
    pub(super) fn let_through(&self, half_open: &[Socket], patience: Duration) -> Result<Vec<bool>> {
        for pod in [&self.pod, &self.other] {
            pod.run("nft", ["delete table inet held"])?;
        }
        let is_answered = |socket: &Socket| {
            socket.set_read_timeout(Some(patience))?;
            Ok(BufReader::new(socket)
                .read_line(&mut String::new())
                .is_ok_and(|count| count > 0))
        };
        half_open.iter().map(is_answered).collect()
    }

    /// Whether each of one set goes on, and is followed by conntrack then.
    pub(super) fn open_ones_fare(&mut self, patience: Duration) -> Result<Vec<String>> {
        let mut set = self.open.pop().context("open connections that are idle")?;
        self.take_up(true)?;
        let fares = |stream: &mut TcpStream| {
            stream.set_read_timeout(Some(patience))?;
            let (from, to) = (stream.local_addr()?, stream.peer_addr()?);
            let goes_on = stream
                .write_all(b"?")
                .and_then(|()| stream.read_exact(&mut [0]))
                .is_ok();
            let is_tracked = tracked(&self.pod)?.contains(&[from, to]);
            Ok(format!(
                "{} -> {}: goes on: {goes_on}, tracked: {}",
                from.ip(),
                to.ip(),
                is_tracked
            ))
        };
        let fared = set.iter_mut().map(fares).collect();
        self.take_up(false)?;
        fared
    }

    /// What somebody does, and what it meets with all rules.
    pub(super) fn probes(&self, is_tracked: bool) -> Result<Vec<Probe>> {
        let mut all = vec![];
        for v6 in [false, true] {
            let ip = |[of_v4, of_v6]: [&str; 2]| if v6 { of_v6.parse() } else { of_v4.parse() };
            let own = self.pod.addresses()[usize::from(v6)];
            let peer = self.other.addresses()[usize::from(v6)];
            let mut add = |from, source: Option<IpAddr>, to: IpAddr, port: u16, expected: String| {
                all.push(Probe {
                    from,
                    source,
                    to: SocketAddr::new(to, port),
                    expected,
                });
            };
            let t = is_tracked;
            add(
                None,
                Some(peer),
                own,
                8080,
                format!("proxied 8080 {peer} {t} {t}"),
            );
            add(
                None,
                Some(peer),
                own,
                CLOSED,
                format!("refused by the application {t}"),
            );
            for port in EXCLUDED {
                add(None, Some(peer), own, port, format!("{port} {peer} true"));
            }
            let excluded = ip(["10.77.200.1", "fd00:77::200:1"])?;
            add(None, Some(excluded), own, 8080, format!("8080 {excluded} true"));
            let (near, far) = (
                ip(["10.79.1.1", "fd00:79:1::1"])?,
                ip(["10.79.1.2", "fd00:79:1::2"])?,
            );
            add(None, Some(far), near, 8080, format!("8080 {far} true"));
            let machine = ip(["10.79.2.2", "fd00:79:2::2"])?;
            add(
                None,
                Some(machine),
                ip(MACHINE)?,
                8080,
                format!("15001 {machine} true"),
            );
            // To the pod itself.
            let lo = ip(["127.0.0.1", "::1"])?;
            add(APPLICATION, None, own, 8080, format!("8080 {own} true"));
            add(APPLICATION, None, lo, 8080, format!("8080 {lo} true"));
            for proxy in [BY_USER, BY_GROUP] {
                add(proxy, None, own, 8080, format!("proxied 8080 {own} true {t}"));
                add(
                    proxy,
                    None,
                    own,
                    CLOSED,
                    "refused by the application true".to_owned(),
                );
                add(proxy, None, own, 22, format!("22 {own} true"));
                add(proxy, None, own, 15008, format!("15008 {own} true"));
                add(proxy, None, lo, 8080, format!("8080 {lo} true"));
                // Out of it.
                add(proxy, None, peer, 8080, format!("8080 {own} true"));
            }
            add(APPLICATION, None, peer, 8080, format!("15001 {own} true"));
            add(APPLICATION, None, peer, 22, format!("22 {own} true"));
            add(APPLICATION, None, far, 8080, format!("8080 {near} true"));
        }
        Ok(all)
    }

    /// Whether conntrack takes up connections that it has not seen the beginning of, as it mostly does.
    pub(super) fn take_up(&self, any: bool) -> Result<()> {
        self.pod.sysctl(TAKE_UP, if any { "1" } else { "0" })
    }

    /// Nobody listens on the proxy's port any more.
    pub(super) fn stop_proxy(&self) -> Result<()> {
        for listener in &self.proxy {
            socket2::SockRef::from(listener).shutdown(Shutdown::Both)?;
        }
        Ok(())
    }

    /// All at once; what each meets, in their order.
    pub(super) fn send(&self, probes: &[&Probe], patience: Duration) -> Result<Vec<String>> {
        let (pod, other) = (&*self.pod, &self.other);
        let met: Vec<Met> = thread::scope(|scope| {
            let each = probes
                .iter()
                .map(|probe| scope.spawn(move || send_one(pod, other, probe, patience)));
            let each: Vec<_> = each.collect();
            let joined = each
                .into_iter()
                .map(|one| one.join().map_err(|_| anyhow!("a client panicked"))?);
            joined.collect::<Result<_>>()
        })?;
        // All are open still.
        let tracked = tracked(pod)?;
        probes
            .iter()
            .zip(&met)
            .map(|(probe, met)| told(&tracked, probe, met))
            .collect()
    }
}

/// Its socket, and what was said on it.
struct Met {
    socket: Socket,
    said: std::io::Result<String>,
}

fn send_one(pod: &Pod, other: &Pod, probe: &Probe, patience: Duration) -> Result<Met> {
    let to = [(IpProtocol::Tcp, probe.to)];
    let made = match probe.from {
        Some((uid, gid)) => sockets(pod, (uid, gid, 0), None, &to),
        None => sockets(other, (0, 0, 0), None, &to),
    };
    let socket = made?.pop().context("a socket")?;
    if let Some(source) = probe.source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    let connected = socket.connect_timeout(&probe.to.into(), patience);
    let said = connected.and_then(|()| {
        socket.set_read_timeout(Some(patience))?;
        let mut line = String::new();
        BufReader::new(&socket).read_line(&mut line)?;
        Ok(line.trim().to_owned())
    });
    Ok(Met { socket, said })
}

/// `8080 10.77.0.2:40000` becomes `8080 10.77.0.2` and whether conntrack knows of it, and of the proxy's leg.
fn told(tracked: &[[SocketAddr; 2]], probe: &Probe, met: &Met) -> Result<String> {
    let is_tracked = |from| {
        let ends = [from, probe.to];
        tracked.iter().any(|&[a, b]| [a, b] == ends || [b, a] == ends)
    };
    let client = is_tracked(met.socket.local_addr()?.as_socket().context("an address")?);
    let line = match &met.said {
        Ok(line) => line,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(format!("refused {client}")),
        Err(_) => return Ok("fails".to_owned()),
    };
    let (way, peer) = line.rsplit_once(' ').unwrap_or((line, ""));
    let Ok(peer) = peer.parse::<SocketAddr>() else {
        return Ok(format!("{line} {client}"));
    };
    let told = format!("{way} {} {client}", peer.ip());
    match way.starts_with("proxied") {
        true => Ok(format!("{told} {}", is_tracked(peer))),
        false => Ok(told),
    }
}

const ANY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    IpAddr::V6(Ipv6Addr::UNSPECIFIED),
];

/// Says its port and who has come, then sends back what it gets.
fn application(pod: &Pod, port: u16) -> Result<()> {
    for ip in ANY {
        let listener = listener(pod, SocketAddr::new(ip, port))?;
        // Ends with the test's process, as those below.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(std::result::Result::ok) {
                thread::spawn(move || -> std::io::Result<u64> {
                    let peer = stream.peer_addr()?;
                    (&stream).write_all(format!("{port} {peer}\n").as_bytes())?;
                    std::io::copy(&mut &stream, &mut &stream)
                });
            }
        });
    }
    Ok(())
}

/// The proxy accepts as its user, as the owner of what a socket sends is who accepted it.
fn stand_in(pod: &Arc<Pod>) -> Result<[TcpListener; 2]> {
    let listeners = [
        listener(pod, SocketAddr::new(ANY[0], ports::INBOUND))?,
        listener(pod, SocketAddr::new(ANY[1], ports::INBOUND))?,
    ];
    let (accepted, to_serve) = mpsc::channel();
    for listener in &listeners {
        let listener = listener.try_clone()?;
        let accepted = accepted.clone();
        thread::spawn(move || accept(&listener, &accepted));
    }
    let pod = Arc::clone(pod);
    // By root: it takes rights to make transparent sockets.
    thread::spawn(move || {
        for client in to_serve {
            let pod = Arc::clone(&pod);
            thread::spawn(move || serve(&pod, &client));
        }
    });
    Ok(listeners)
}

fn accept(listener: &TcpListener, accepted: &mpsc::Sender<TcpStream>) -> Result<()> {
    set_thread_gid(Gid::from_raw(PROXY))?;
    set_thread_uid(Uid::from_raw(PROXY))?;
    for stream in listener.incoming() {
        accepted.send(stream?)?;
    }
    Ok(())
}

/// Passes on the line that the application says.
fn serve(pod: &Pod, mut client: &TcpStream) -> Result<()> {
    let line = match ask(pod, client) {
        Ok((_application, line)) => format!("proxied {line}"),
        Err(error) => match error.downcast_ref::<std::io::Error>() {
            Some(error) if error.kind() == ErrorKind::ConnectionRefused => {
                "refused by the application\n".to_owned()
            }
            _ => "unreachable\n".to_owned(),
        },
    };
    client.write_all(line.as_bytes())?;
    client.read_to_end(&mut vec![])?;
    Ok(())
}

fn ask(pod: &Pod, client: &TcpStream) -> Result<(Socket, String)> {
    let (from, to) = (client.peer_addr()?, client.local_addr()?);
    let made = sockets(pod, (PROXY, PROXY, PROXY), None, &[(IpProtocol::Tcp, to)])?;
    let socket = made.into_iter().next().context("a socket")?;
    transparent(&socket)?;
    socket.bind(&SocketAddr::new(from.ip(), 0).into())?;
    socket.connect_timeout(&to.into(), DIAL)?;
    socket.set_read_timeout(Some(DIAL))?;
    let mut line = String::new();
    BufReader::new(&socket).read_line(&mut line)?;
    Ok((socket, line))
}
