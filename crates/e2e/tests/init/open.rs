//! Connections that are open go on, whatever becomes of the rules: those from before the first rule, which
//! conntrack has never seen, and those that were made since, captured or not.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use e2e::{Net, Pod, eventually};

use crate::native::init;

const PATIENCE: Duration = Duration::from_secs(20);
const PORT: u16 = 8080;
/// Between two uses of a busy connection, so that there is something left of the machine.
const PAUSE: Duration = Duration::from_millis(5);

/// Both ends of a connection, and what it is.
struct Connection {
    what: String,
    /// The one that speaks first.
    first: TcpStream,
    second: TcpStream,
}

impl Connection {
    /// From one pod to a listener of the other, which is closed again.
    fn open(from: &Pod, to: &Pod, at: SocketAddr, listening: SocketAddr) -> Result<Self> {
        // The one before may live on for a moment in a program that is just being started.
        let listener = eventually("the port to be free", || {
            to.within(|| TcpListener::bind(listening)).ok()?.ok()
        })?;
        let first = from.dial(at).with_context(|| format!("to {at}"))?;
        let (second, _) = listener.accept()?;
        for end in [&first, &second] {
            end.set_read_timeout(Some(PATIENCE))?;
            end.set_nodelay(true)?;
        }
        Ok(Self {
            what: format!("{} -> {at}", from.name),
            first,
            second,
        })
    }

    /// The server speaks first.
    fn reversed(self) -> Self {
        Self {
            what: format!("{}, from the server", self.what),
            first: self.second,
            second: self.first,
        }
    }

    /// A byte there and one back.
    fn exchange(&self) -> Result<()> {
        for (mut from, mut to) in [(&self.first, &self.second), (&self.second, &self.first)] {
            let mut byte = [0];
            from.write_all(&[42])
                .and_then(|()| to.read_exact(&mut byte))
                .with_context(|| format!("{} has ended", self.what))?;
        }
        Ok(())
    }
}

/// Both ways, both families, and in each either side speaks first.
fn open_all(pod: &Pod, other: &Pod) -> Result<Vec<Connection>> {
    let mut all = vec![];
    for (from, to) in [(pod, other), (other, pod)] {
        for at in to.at(PORT) {
            all.push(Connection::open(from, to, at, at)?);
            all.push(Connection::open(from, to, at, at)?.reversed());
        }
    }
    Ok(all)
}

/// Those that the rules lead to a proxy, out of the pod and into it.
fn open_captured(pod: &Pod, other: &Pod) -> Result<Vec<Connection>> {
    let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let nobody = ["192.0.2.1:80".parse()?, "[2001:db8::1]:80".parse()?];
    let mut all = vec![];
    for (at, proxy) in nobody.into_iter().zip(loopback) {
        all.push(Connection::open(pod, pod, at, SocketAddr::new(proxy, 15001))?);
    }
    for at in pod.at(PORT) {
        all.push(Connection::open(other, pod, at, SocketAddr::new(at.ip(), 15006))?);
    }
    Ok(all)
}

/// Exchanges bytes on connections of its own all the time that `during` takes.
fn while_busy(
    pod: &Pod,
    other: &Pod,
    during: impl FnOnce(&dyn Fn() -> Result<()>) -> Result<()>,
) -> Result<()> {
    let (busy, done) = (open_all(pod, other)?, AtomicBool::new(false));
    let counts: Vec<_> = busy.iter().map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        let exchanges: Vec<_> = busy
            .iter()
            .zip(&counts)
            .map(|(connection, count)| {
                let done = &done;
                scope.spawn(move || -> Result<()> {
                    while !done.load(Ordering::Relaxed) {
                        connection.exchange().context("while it was busy")?;
                        count.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(PAUSE);
                    }
                    Ok(())
                })
            })
            .collect();
        // Returns once every connection has carried something more.
        let used = || {
            let before: Vec<_> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
            eventually("each busy connection to carry more", || {
                let more = |(count, before): (&AtomicU64, &u64)| count.load(Ordering::Relaxed) > before + 1;
                counts.iter().zip(&before).all(more).then_some(())
            })
        };
        let result = during(&used);
        done.store(true, Ordering::Relaxed);
        for exchange in exchanges {
            exchange.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        result
    })
}

fn network() -> Result<(Net, Pod, Pod)> {
    let net = Net::create()?;
    let (pod, other) = (net.pod("pod")?, net.pod("other")?);
    Ok((net, pod, other))
}

/// Each change of these, in order, with connections from before the first and from in between.
fn go_on_through(changes: &[String]) -> Result<()> {
    let (_net, pod, other) = network()?;
    let (mut open, mut captured) = (open_all(&pod, &other)?, vec![]);
    // One half is not used before the end.
    let idle = open_all(&pod, &other)?;
    while_busy(&pod, &other, |used| {
        for change in changes {
            let captures = !change.contains("--cleanup");
            if !captures {
                // Without rules nothing leads it to the proxy any more.
                captured.clear();
            }
            init(&pod, change)?;
            for connection in open.iter().chain(&captured) {
                connection.exchange().with_context(|| format!("after {change}"))?;
            }
            used()?;
            if captures {
                captured.extend(open_captured(&pod, &other)?);
            } else {
                open.extend(open_all(&pod, &other)?);
            }
        }
        Ok(())
    })?;
    for connection in &idle {
        connection
            .exchange()
            .with_context(|| format!("idle all through {changes:?}"))?;
    }
    Ok(())
}

const BACKENDS: [&str; 3] = ["iptables-nft", "nft", "iptables-legacy"];

#[test]
fn open_connections_go_on_while_rules_come_change_and_go() -> Result<()> {
    for backend in BACKENDS {
        let changes = [
            "--sidecar",
            "--sidecar -o 22",
            "-i * -b 80,8080",
            "--cleanup",
            "--sidecar",
        ];
        go_on_through(&changes.map(|change| format!("{change} --backend {backend}")))
            .with_context(|| format!("by {backend}"))?;
    }
    Ok(())
}

#[test]
fn open_connections_go_on_while_rules_move_between_back_ends() -> Result<()> {
    let changes = ["iptables-nft", "nft", "iptables-legacy", "nft", "iptables-nft"];
    go_on_through(&changes.map(|backend| format!("--sidecar --backend {backend}")))
}

#[test]
fn with_tproxy_open_connections_go_on() -> Result<()> {
    for backend in BACKENDS {
        let (_net, pod, other) = network()?;
        let open = open_all(&pod, &other)?;
        for change in [
            "--sidecar -m TPROXY",
            "--sidecar",
            "--sidecar -m TPROXY --inbound-tproxy-conntrack off",
            "--cleanup",
            "--sidecar -m TPROXY --inbound-tproxy-conntrack off",
            "--cleanup",
        ] {
            init(&pod, &format!("{change} --backend {backend}"))?;
            for connection in &open {
                connection
                    .exchange()
                    .with_context(|| format!("{change} by {backend}"))?;
            }
        }
    }
    Ok(())
}
