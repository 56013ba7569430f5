//! Handshakes that the kernel keeps in SYN cookies, and in no socket: always, or while a flood of first packets
//! has filled the listener's queue. The proxy has the connection all the same.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Pod, eventually, weir};
use model::ports;
use socket2::{Domain, Socket, Type};

use super::{BACKENDS, Stage, TPROXY, TRACKED, UNTRACKED, filter_by_way, init};

const PATIENCE: Duration = Duration::from_secs(20);
const SYN_COOKIES: &str = "net/ipv4/tcp_syncookies";
/// Where an application listens on all addresses, and where on the pod's own ones alone.
const ON_ALL: u16 = 8090;
const ON_ONE: u16 = 8091;
/// From where the flood comes, and a station that nobody has, which the answers go to.
const FLOOD: [&str; 2] = ["10.77.250.1", "fd00:77::250:1"];
const NOBODY: &str = "02:00:00:00:00:01";
/// Long queues would take a long flood.
const QUEUE: &str = "4";
const FLOODED: usize = 512;
/// Of connections while the queue is full.
const MORE: usize = 20;
const REDIRECT: [&str; 2] = ["init", "--sidecar"];

fn stage(mode: &[&str], rules: impl FnOnce(&Pod) -> Result<()>) -> Result<Stage> {
    let stage = Stage::by(mode, |server| {
        filter_by_way(server)?;
        server.sysctl("net/core/somaxconn", QUEUE)?;
        rules(server)
    })?;
    let Stage { server, client, .. } = &stage;
    application(server, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), ON_ALL))?;
    for at in server.at(ON_ONE) {
        application(server, at)?;
    }
    for (address, length) in FLOOD.into_iter().zip(["16", "64 nodad preferred_lft 0"]) {
        client.ip(&format!("addr add {address}/{length} dev eth0"))?;
        server.ip(&format!(
            "neigh replace {address} lladdr {NOBODY} dev eth0 nud permanent"
        ))?;
    }
    Ok(stage)
}

/// Says who has come, as soon as somebody does.
fn application(pod: &Pod, at: SocketAddr) -> Result<()> {
    let listener = pod.within(|| TcpListener::bind(at))??;
    // Ends with the test's process.
    thread::spawn(move || {
        for stream in listener.incoming().map_while(std::result::Result::ok) {
            thread::spawn(move || -> std::io::Result<u64> {
                let peer = stream.peer_addr()?;
                let line = format!("{} {}\n", peer.ip().to_canonical(), peer.port());
                (&stream).write_all(line.as_bytes())?;
                std::io::copy(&mut &stream, &mut std::io::sink())
            });
        }
    });
    Ok(())
}

/// Who has come by that connection, as the application sees it: address and port.
fn seen(stream: &TcpStream) -> Result<(IpAddr, u16)> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let (ip, port) = line.trim().split_once(' ').context("a line")?;
    Ok((ip.parse()?, port.parse()?))
}

/// The proxy calls from a port of its own, in the client's name.
fn check_is_proxied(stream: &TcpStream) -> Result<()> {
    let (ip, port) = seen(stream)?;
    let own = stream.local_addr()?;
    ensure!(ip == own.ip(), "the application sees {ip}, not {}", own.ip());
    ensure!(port != own.port(), "it went past the proxy");
    Ok(())
}

/// Whether the proxy has a new connection to each of these ports, by both families.
fn check_each(stage: &Stage, ports: &[u16]) -> Result<()> {
    for to in ports.iter().flat_map(|port| stage.server.at(*port)) {
        let checked = stage.client.dial(to).map_err(Into::into);
        checked
            .and_then(|stream| check_is_proxied(&stream))
            .with_context(|| format!("to {to}"))?;
    }
    Ok(())
}

/// How many cookies the namespace has sent, and how many it has taken for good.
fn cookies(pod: &Pod) -> Result<[u64; 2]> {
    let text = pod.run("cat", ["/proc/net/netstat"])?.text();
    let mut rows = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (rows.next().context("names")?, rows.next().context("values")?);
    let value = |wanted: &str| -> Result<u64> {
        let mut named = names.split(' ').zip(values.split(' '));
        let (_, value) = named.find(|(name, _)| *name == wanted).context("a counter")?;
        Ok(value.parse()?)
    };
    Ok([value("SyncookiesSent")?, value("SyncookiesRecv")?])
}

/// First packets that nobody goes on with: they fill the queues of all workers until they are dropped.
fn flood(stage: &Stage) -> Result<Vec<Socket>> {
    let mut sockets = vec![];
    for (from, to) in FLOOD.into_iter().zip(stage.server.at(ON_ALL)) {
        let from = SocketAddr::new(from.parse()?, 0);
        for _ in 0..FLOODED {
            let socket = stage
                .client
                .within(|| Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), None))??;
            socket.bind(&from.into())?;
            // It is under way.
            let _ = socket.connect(&to.into());
            sockets.push(socket);
        }
    }
    Ok(sockets)
}

/// Always by cookies, then because of a flood.
fn check(stage: &Stage, ports: &[u16]) -> Result<()> {
    stage.server.sysctl(SYN_COOKIES, "2")?;
    check_each(stage, ports).context("always")?;
    stage.check_addresses()?;
    stage.check_calls_of_the_pod()?;
    stage.server.sysctl(SYN_COOKIES, "1")?;
    let [sent_before, taken_before] = cookies(&stage.server)?;
    let _flood = flood(stage)?;
    for _ in 0..MORE {
        check_each(stage, ports).context("in a flood")?;
    }
    let [sent, taken] = cookies(&stage.server)?;
    ensure!(sent > sent_before && taken > taken_before, "no flood");
    Ok(())
}

/// What is not followed is told.
fn each_kind(backend: &str) -> Result<()> {
    let stage = stage(&TPROXY, |_| Ok(()))?;
    for kind in [&TRACKED[..], &UNTRACKED] {
        stage.server.sysctl(SYN_COOKIES, "1")?;
        init(&stage.server, kind, backend)?;
        let again = [kind, &["--backend", backend]].concat();
        let is_told = weir::run(&stage.server, &again)?
            .errors()
            .contains("tcp_syncookies");
        ensure!(is_told == (kind == UNTRACKED && backend != "nft"));
        let ports = [ON_ALL, ON_ONE];
        let ports = if is_told { &ports[..1] } else { &ports };
        check(&stage, ports).with_context(|| format!("{backend} {kind:?}"))?;
    }
    Ok(())
}

#[test]
fn the_proxy_has_what_was_opened_by_a_cookie_by_nft() -> Result<()> {
    each_kind(BACKENDS[0])
}

#[test]
fn the_proxy_has_what_was_opened_by_a_cookie_by_iptables_nft() -> Result<()> {
    each_kind(BACKENDS[1])
}

#[test]
fn the_proxy_has_what_was_opened_by_a_cookie_by_iptables_legacy() -> Result<()> {
    each_kind(BACKENDS[2])
}

/// Conntrack remembers to where a redirected handshake goes.
#[test]
fn a_redirect_leads_to_the_proxy_what_was_opened_by_a_cookie() -> Result<()> {
    let stage = stage(&[], |server| weir::run(server, &REDIRECT).map(drop))?;
    let passthrough: [IpAddr; 2] = [ports::PASSTHROUGH_V4.into(), ports::PASSTHROUGH_V6.into()];
    for backend in BACKENDS {
        weir::run(&stage.server, &[&REDIRECT[..], &["--backend", backend]].concat())?;
        for value in ["2", "1"] {
            stage.server.sysctl(SYN_COOKIES, value)?;
            let _flood = flood(&stage)?;
            let to = stage.server.at(ON_ALL).into_iter().chain(stage.server.at(ON_ONE));
            for to in to {
                let (ip, _) = seen(&stage.client.dial(to)?)?;
                ensure!(passthrough.contains(&ip), "{backend}, {value}: {ip} calls {to}");
            }
        }
    }
    let [sent, taken] = cookies(&stage.server)?;
    ensure!(sent > 0 && taken > 0, "no cookies: {sent}, {taken}");
    Ok(())
}

/// Holds back all that a client says after its first packets to a port.
struct Held<'a>(&'a Pod);

impl<'a> Held<'a> {
    fn back(client: &'a Pod) -> Result<Self> {
        for rule in [
            "add table inet held",
            "add chain inet held out { type filter hook output priority 0; }",
            &format!("add rule inet held out tcp dport {ON_ALL} tcp flags & (syn | ack) == ack drop"),
        ] {
            client.run("nft", [rule])?;
        }
        Ok(Self(client))
    }

    fn release(self) -> Result<()> {
        self.0.run("nft", ["delete table inet held"]).map(drop)
    }
}

/// What opens them is answered by cookies; what completes the handshake is under way still.
fn half_open(stage: &Stage) -> Result<(Held<'_>, Vec<TcpStream>)> {
    let held = Held::back(&stage.client)?;
    let dialled = stage.server.at(ON_ALL).map(|to| stage.client.dial(to));
    let open: Vec<_> = dialled.into_iter().collect::<Result<_, _>>()?;
    for mut stream in &open {
        stream.write_all(b"?")?;
    }
    Ok((held, open))
}

#[test]
fn a_handshake_that_conntrack_has_forgotten_ends_at_the_proxy() -> Result<()> {
    let stage = stage(&TPROXY, |server| {
        server.sysctl("net/netfilter/nf_conntrack_tcp_timeout_syn_recv", "1")
    })?;
    stage.server.sysctl(SYN_COOKIES, "2")?;
    for backend in BACKENDS {
        init(&stage.server, &TRACKED, backend)?;
        // The application's listener takes cookies too, as it has sent some.
        check_each(&stage, &[ON_ALL])?;
        let (held, open) = half_open(&stage)?;
        let ends = open
            .iter()
            .map(TcpStream::local_addr)
            .collect::<Result<Vec<_>, _>>()?;
        eventually("conntrack to forget them", || {
            let entries = stage
                .server
                .within(|| fs::read_to_string("/proc/thread-self/net/nf_conntrack"));
            let entries = entries.ok()?.ok()?;
            let is_known = |end: &SocketAddr| entries.contains(&format!("sport={} ", end.port()));
            (!ends.iter().any(is_known)).then_some(())
        })?;
        held.release()?;
        for stream in &open {
            check_is_proxied(stream).with_context(|| format!("{backend}: {stream:?}"))?;
        }
    }
    Ok(())
}
