//! What a new connection costs: one after the other is opened and reset again, with a bare listener where the
//! proxy would be. The way through the kernel is the same with rules and without.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::{Pod, connect, weir};
use socket2::{Domain, Socket, Type};

use super::{Table, cell};
use crate::usage::Machine;

/// How long one sample takes.
const SAMPLE: Duration = Duration::from_secs(1);
/// Where a caller connects to.
const PORT: u16 = 8080;

/// A way of capture.
struct Way {
    name: &'static str,
    /// Of `weir init`; none without rules.
    flags: Option<&'static str>,
    /// Where the connections arrive.
    port: u16,
}

const fn way(name: &'static str, flags: &'static str, port: u16) -> Way {
    Way {
        name,
        flags: Some(flags),
        port,
    }
}

/// Connections that come in.
const INBOUND: [Way; 10] = [
    Way {
        name: "no rules",
        flags: None,
        port: PORT,
    },
    way("REDIRECT, nft", "-b * --backend nft", 15006),
    way("REDIRECT, iptables-nft", "-b * --backend iptables-nft", 15006),
    way(
        "REDIRECT, iptables-legacy",
        "-b * --backend iptables-legacy",
        15006,
    ),
    way("TPROXY, nft", "-b * -m TPROXY --backend nft", 15006),
    way(
        "TPROXY, iptables-nft",
        "-b * -m TPROXY --backend iptables-nft",
        15006,
    ),
    way(
        "TPROXY, iptables-legacy",
        "-b * -m TPROXY --backend iptables-legacy",
        15006,
    ),
    way(
        "TPROXY without conntrack, nft",
        "-b * -m TPROXY --inbound-tproxy-conntrack off --backend nft",
        15006,
    ),
    way(
        "TPROXY without conntrack, iptables-nft",
        "-b * -m TPROXY --inbound-tproxy-conntrack off --backend iptables-nft",
        15006,
    ),
    way(
        "TPROXY without conntrack, iptables-legacy",
        "-b * -m TPROXY --inbound-tproxy-conntrack off --backend iptables-legacy",
        15006,
    ),
];
/// Connections made here. Without rules they go to where the others are led.
const OUTBOUND: [Way; 4] = [
    Way {
        name: "no rules",
        flags: None,
        port: 15001,
    },
    way("REDIRECT, nft", "-i * --backend nft", 15001),
    way("REDIRECT, iptables-nft", "-i * --backend iptables-nft", 15001),
    way(
        "REDIRECT, iptables-legacy",
        "-i * --backend iptables-legacy",
        15001,
    ),
];

/// A way, set up.
struct Stage {
    /// Where connections are made.
    client: Pod,
    to: SocketAddr,
    /// Where they arrive, which is where the rules are.
    _pod: Option<Pod>,
}

/// Connections a second, and microseconds of all cores for each.
type Sample = (f64, f64);

/// Both tables.
pub(super) fn measure(rounds: usize) -> Result<[Table; 2]> {
    Ok([
        table(
            rounds,
            "A new connection that comes in",
            "One client in another namespace opens one after the other and resets it. CPU is that of the whole machine, client \
             and accepting program included.",
            &INBOUND,
            inbound,
        )?,
        table(
            rounds,
            "A new connection that is made here",
            "The same over loopback; without rules the client names the listener itself.",
            &OUTBOUND,
            outbound,
        )?,
    ])
}

fn table(
    rounds: usize,
    title: &'static str,
    about: &'static str,
    ways: &[Way],
    set: fn(&Way) -> Result<Stage>,
) -> Result<Table> {
    let stages = ways.iter().map(|way| set(way).with_context(|| way.name));
    let stages: Vec<Stage> = stages.collect::<Result<_>>()?;
    let mut samples: Vec<Vec<Sample>> = vec![vec![]; ways.len()];
    for round in 0..rounds {
        eprintln!("{title}: round {}", round + 1);
        for turn in 0..ways.len() {
            let number = (round + turn) % ways.len();
            samples[number].push(load(&stages[number]).with_context(|| ways[number].name)?);
        }
    }
    let rows = ways.iter().zip(&samples).map(|(way, own)| {
        let cells = row(own, &samples[0]);
        (way.name.to_owned(), cells)
    });
    Ok(Table {
        title,
        about,
        columns: vec!["connections/s", "CPU, us", "more CPU than without rules, us"],
        rows: rows.collect(),
    })
}

fn row(own: &[Sample], without: &[Sample]) -> Vec<String> {
    let rates: Vec<_> = own.iter().map(|(rate, _)| *rate).collect();
    let costs: Vec<_> = own.iter().map(|(_, cost)| *cost).collect();
    let more: Vec<_> = own
        .iter()
        .zip(without)
        .map(|(own, without)| own.1 - without.1)
        .collect();
    vec![cell(&rates), cell(&costs), cell(&more)]
}

fn prepare(pod: &Pod) -> Result<()> {
    pod.ip("link set lo up")?;
    pod.widen()?;
    Ok(())
}

/// What ended is forgotten at once, so that the table of connections is no larger at the end than at the beginning.
fn rules(pod: &Pod, way: &Way) -> Result<()> {
    let Some(flags) = way.flags else { return Ok(()) };
    let mut all = vec!["init"];
    all.extend(flags.split(' '));
    weir::run(pod, &all)?;
    pod.sysctl("net/netfilter/nf_conntrack_tcp_timeout_close", "1")
}

fn inbound(way: &Way) -> Result<Stage> {
    let (v4, v6) = (Ipv4Addr::new(10, 77, 0, 1), Ipv6Addr::LOCALHOST);
    let (pod, client) = (Pod::bare("pod", v4, v6)?, Pod::bare("client", v4, v6)?);
    connect((&pod, "eth0"), (&client, "eth0"))?;
    pod.ip(&format!("addr add {v4}/24 dev eth0"))?;
    client.ip("addr add 10.77.0.2/24 dev eth0")?;
    for pod in [&pod, &client] {
        prepare(pod)?;
    }
    rules(&pod, way)?;
    accept(&pod, Ipv4Addr::UNSPECIFIED, way.port)?;
    Ok(Stage {
        client,
        to: SocketAddr::new(v4.into(), PORT),
        _pod: Some(pod),
    })
}

fn outbound(way: &Way) -> Result<Stage> {
    let v4 = Ipv4Addr::new(10, 77, 0, 1);
    let client = Pod::bare("client", v4, Ipv6Addr::LOCALHOST)?;
    prepare(&client)?;
    client.ip("link add eth0 type veth peer name other")?;
    client.ip("link set eth0 up")?;
    client.ip("link set other up")?;
    client.ip(&format!("addr add {v4}/24 dev eth0"))?;
    client.ip("route add default via 10.77.0.2")?;
    rules(&client, way)?;
    accept(&client, Ipv4Addr::LOCALHOST, way.port)?;
    let to = match way.flags {
        // Nobody has this address.
        Some(_) => SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), 80),
        None => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), way.port),
    };
    Ok(Stage {
        client,
        to,
        _pod: None,
    })
}

/// Takes connections and forgets them, until this process ends.
fn accept(pod: &Pod, at: Ipv4Addr, port: u16) -> Result<()> {
    let at = SocketAddr::new(IpAddr::V4(at), port);
    let listener: TcpListener = pod.within(|| -> std::io::Result<_> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_ip_transparent_v4(true)?;
        socket.bind(&at.into())?;
        socket.listen(1024)?;
        Ok(socket.into())
    })??;
    thread::spawn(move || listener.incoming().for_each(drop));
    Ok(())
}

fn load(stage: &Stage) -> Result<Sample> {
    stage.client.within(|| -> Result<Sample> {
        let (before, start) = (Machine::now()?, Instant::now());
        let mut connections = 0_u32;
        while start.elapsed() < SAMPLE {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            // Its end is a reset: no port and no socket waits for anything.
            socket.set_linger(Some(Duration::ZERO))?;
            socket.connect(&stage.to.into())?;
            connections += 1;
        }
        let (took, after) = (start.elapsed().as_secs_f64(), Machine::now()?);
        let connections = f64::from(connections);
        Ok((
            connections / took,
            (after.busy_s - before.busy_s) / connections * 1e6,
        ))
    })?
}
