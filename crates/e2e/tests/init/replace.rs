//! Rules replaced by others, again and again: each time the kernel holds exactly what was planned, and in
//! between no connection finds a gap.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use e2e::Net;
use netsys::netns::Netns;
use netsys::rules::{Backend, Session};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rules::{Flags, plan};

const BACKENDS: [Backend; 3] = [Backend::IptablesNft, Backend::IptablesLegacy, Backend::Nft];

fn install(flags: &Flags, backend: Backend) -> Result<bool> {
    let intent = flags.intent().map_err(|mistakes| anyhow!("{mistakes:?}"))?;
    let session = Session::open(Some(backend))?;
    let plan = plan(&intent, &session.facts(&intent)?).map_err(|mistakes| anyhow!("{mistakes:?}"))?;
    Ok(session.install(&plan)?.changed)
}

fn sidecar(excluded_ports: &str) -> Flags {
    Flags {
        sidecar: true,
        outbound_exclude_ports: Some(excluded_ports.to_owned()),
        ..Flags::default()
    }
}

/// How often the rules are replaced while connections are made.
const REPLACEMENTS: usize = 100;
/// Of these as many at least on average while one rule set takes the place of another, which takes 10 to 35 ms:
/// what 500 a second come to.
const AT_ONCE: u64 = 16;

/// Replaces rules while connections are made in both families; each of these must come to the proxy.
fn replaced_under_load(backends: &[Backend]) -> Result<u64> {
    let net = Net::create()?;
    let pod = net.pod("client")?;
    pod.widen()?;
    // However many connections a fast machine makes, conntrack's table must not fill up.
    pod.sysctl("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "1")?;
    pod.within(|| install(&sidecar(""), backends[0]))??;
    // Nobody has these addresses: only a captured connection comes about.
    let nobody = ["192.0.2.1:80", "[2001:db8::1]:80"];
    for proxy in ["0.0.0.0:15001", "[::1]:15001"] {
        let proxy = pod.within(|| TcpListener::bind(proxy))??;
        // Ends with the test's process.
        thread::spawn(move || proxy.incoming().for_each(drop));
    }

    let (made, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let (pod, made, done) = (&pod, &made, &done);
    let during = thread::scope(|scope| -> Result<u64> {
        let clients = nobody.map(|to| {
            scope.spawn(move || {
                pod.within(|| -> Result<()> {
                    while !done.load(Ordering::Relaxed) {
                        std::net::TcpStream::connect(to).with_context(|| {
                            let number = made.load(Ordering::Relaxed);
                            format!("{backends:?}: connection {number} to {to} escaped or was refused")
                        })?;
                        made.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })?
            })
        });
        let replaced = (0..REPLACEMENTS).try_fold(0, |during, round| {
            let ports = ["22", "22,23", ""][round % 3];
            let backend = backends[(round + 1) % backends.len()];
            let before = made.load(Ordering::Relaxed);
            let changed = pod.within(|| install(&sidecar(ports), backend))??;
            ensure!(changed, "round {round} replaced nothing");
            Ok(during + made.load(Ordering::Relaxed) - before)
        });
        done.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        replaced
    })?;
    ensure!(
        during >= AT_ONCE * REPLACEMENTS as u64,
        "{backends:?}: only {during} connections were made while {REPLACEMENTS} rule sets were replaced"
    );
    Ok(during)
}

#[test]
fn no_connection_finds_a_gap_while_rules_are_replaced() -> Result<()> {
    for backend in BACKENDS {
        let connections = replaced_under_load(&[backend])?;
        println!("{backend}: {connections} connections while {REPLACEMENTS} rule sets were replaced");
    }
    Ok(())
}

#[test]
fn no_connection_finds_a_gap_while_rules_move_between_back_ends() -> Result<()> {
    let connections = replaced_under_load(&BACKENDS)?;
    println!("{connections} connections while rules moved {REPLACEMENTS} times between back-ends");
    Ok(())
}

fn some(of: &'static [&'static str]) -> impl Strategy<Value = Option<String>> {
    prop::option::of(prop::sample::subsequence(of, 0..=of.len()).prop_map(|items| items.join(",")))
}

fn flags() -> impl Strategy<Value = Flags> {
    const PORTS: &[&str] = &["22", "80", "8080", "15008", "65535"];
    const NETS: &[&str] = &[
        "10.0.0.0/8",
        "10.1.2.3",
        "0.0.0.0/0",
        "127.0.0.0/8",
        "fd00::/8",
        "::/0",
        "2001:db8::1",
    ];
    const IDS: &[&str] = &["0", "1337", "4294967294"];
    const MARKS: &[&str] = &["0x539", "0x1/0xff", "0"];
    (
        any::<bool>(),
        (some(IDS), some(IDS), some(MARKS)),
        (some(NETS), some(NETS), some(PORTS), some(PORTS)),
        (some(PORTS), some(PORTS)),
    )
        .prop_map(
            |(
                sidecar,
                (uid, gid, mark),
                (cidrs, exclude, ports, exclude_ports),
                (inbound, exclude_inbound),
            )| Flags {
                sidecar,
                proxy_uid: uid,
                proxy_gid: gid,
                proxy_mark: mark,
                outbound_cidrs: cidrs,
                outbound_exclude_cidrs: exclude,
                outbound_ports: ports,
                outbound_exclude_ports: exclude_ports,
                inbound_ports: inbound,
                inbound_exclude_ports: exclude_inbound,
                ..Flags::default()
            },
        )
}

/// `install` itself compares a dump with the plan after it has written, and fails where they differ; asked
/// again, it finds nothing to do.
#[test]
fn any_rule_set_after_any_other_is_held_as_planned() -> Result<()> {
    let mut random = TestRunner::deterministic();
    for backend in BACKENDS {
        let netns = Netns::create()?;
        for _ in 0..60 {
            let flags = flags()
                .new_tree(&mut random)
                .map_err(|why| anyhow!("{why}"))?
                .current();
            netns.run(|| -> Result<()> {
                install(&flags, backend).with_context(|| format!("{backend}: {flags:?}"))?;
                ensure!(
                    !install(&flags, backend)?,
                    "{backend}: {flags:?} was written twice"
                );
                Ok(())
            })??;
        }
        netns.run(|| -> Result<()> {
            Session::open(None)?.remove()?;
            ensure!(!Session::open(None)?.has_rules(), "something is left");
            Ok(())
        })??;
    }
    Ok(())
}
