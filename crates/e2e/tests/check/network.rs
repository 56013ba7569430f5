//! What runs in the namespace, and what is set there.

use std::net::UdpSocket;

use anyhow::{Context, Result};
use e2e::manifests::Manifests;
use e2e::weir::{self, Sidecar};
use e2e::{Pod, Program, RunAs};
use rustix::process::Signal;

use crate::stage::{Said, Stage};

#[test]
fn who_runs_as_the_proxy_is_named() -> Result<()> {
    let stage = Stage::set()?;
    let other = stage.pod.start(RunAs::Proxy, "sleep", ["1000"])?;
    stage.check("")?.is(&[&format!(
        "error WEIR-PROXY-ID sleep (pid {}) runs as the proxy's user 1337",
        other.id()
    )])?;
    stage.check("-- --sidecar -u 1400")?.is_silent()?;
    drop(other);

    let ids = [
        "--reuid",
        "1000",
        "--regid",
        "1337",
        "--clear-groups",
        "sleep",
        "1000",
    ];
    let other = stage.pod.start(RunAs::Root, "setpriv", ids)?;
    e2e::eventually("its group", || {
        let said = stage.check("").ok()?;
        said.report["findings"]
            .to_string()
            .contains("WEIR-PROXY-ID")
            .then_some(())
    })?;
    stage
        .check("")?
        .is(&["error WEIR-PROXY-ID as the proxy's group 1337"])?;
    drop(other);
    stage.check("")?.is_silent()
}

/// As in a container: processes of its own, on the network of the pod.
const IN_A_CONTAINER: &str = "exec unshare --pid --fork --mount-proc \"$@\"";

/// Listens as the proxy's user.
fn as_the_proxy(stage: &Stage, port: u16) -> Result<Program> {
    let script = format!("import socket, signal; s = socket.create_server((\"\", {port})); signal.pause()");
    let program = stage.pod.start(RunAs::Proxy, "python3", ["-c", &script])?;
    stage.pod.wait_listening(port)?;
    Ok(program)
}

#[test]
fn what_a_container_cannot_see_of_others_is_said() -> Result<()> {
    let stage = Stage::set()?;
    let check = || stage.check_after(IN_A_CONTAINER, "");
    let says_what_it_cannot_see = |said: &Said| {
        let skipped = said.report["not_looked_at"].to_string();
        assert!(
            skipped.contains("processes of other containers") && skipped.contains("user 1337 or group 1337"),
            "{said:?}"
        );
    };
    let said = check()?;
    says_what_it_cannot_see(&said);
    said.is(&[])?;
    // By its sockets it is seen all the same.
    let other = as_the_proxy(&stage, 9000)?;
    let said = check()?;
    says_what_it_cannot_see(&said);
    said.is(&["error WEIR-PROXY-ID a process that cannot be seen from this container has 1 socket as the proxy's user 1337"])?;
    drop(other);
    // A proxy in its own container is no clash, and nobody who has taken its ports.
    let proxy = as_the_proxy(&stage, 15001)?;
    check()?.is(&[])?;
    // From the machine it is seen what it is.
    stage
        .check("")?
        .is(&["error WEIR-PORT-IN-USE python3", "error WEIR-PROXY-ID python3"])?;
    drop(proxy);
    Ok(())
}

#[test]
fn who_has_the_proxys_ports_is_named() -> Result<()> {
    let stage = Stage::set()?;
    for (address, port) in [
        ("0.0.0.0", 15001),
        ("::", 15006),
        ("127.0.0.1", 15000),
        ("::1", 15053),
    ] {
        let at = std::net::SocketAddr::new(address.parse()?, port);
        let listener = stage.pod.within(|| std::net::TcpListener::bind(at))??;
        stage
            .check("")?
            .is(&[&format!("error WEIR-PORT-IN-USE port {port}")])?;
        drop(listener);
    }
    let listener = stage
        .pod
        .within(|| std::net::TcpListener::bind("0.0.0.0:15001"))??;
    stage.check("-- --sidecar -p 16001")?.is_silent()?;
    drop(listener);
    stage.check("")?.is_silent()
}

/// A setting of the kernel, and what must be named.
const SETTINGS: [(&[(&str, &str)], &str); 6] = [
    (
        &[("net/ipv4/ip_local_port_range", "1024 60999")],
        "warning WEIR-PORT-RANGE covers 15000, 15001",
    ),
    (
        &[("net/ipv4/ip_local_port_range", "40000 40999")],
        "warning WEIR-PORT-RANGE has 1000 ports",
    ),
    (
        &[("net/ipv4/ip_unprivileged_port_start", "15010")],
        "error WEIR-LOW-PORTS below 15010",
    ),
    (
        &[("net/ipv6/conf/lo/disable_ipv6", "1")],
        "error WEIR-PASSTHROUGH-ADDRESS off at lo",
    ),
    (
        &[
            ("net/ipv6/conf/all/disable_ipv6", "1"),
            ("net/ipv6/conf/lo/disable_ipv6", "0"),
            ("net/ipv6/conf/eth0/disable_ipv6", "0"),
        ],
        "warning WEIR-HALF-FAMILY on at eth0",
    ),
    // What is off everywhere is no hole.
    (&[("net/ipv6/conf/all/disable_ipv6", "1")], ""),
];

#[test]
fn settings_of_the_kernel_that_do_not_suit_are_named() -> Result<()> {
    for (settings, expected) in SETTINGS {
        let stage = Stage::set()?;
        for (name, value) in settings {
            stage.pod.sysctl(name, value)?;
        }
        let said = stage.check("")?;
        let expected: Vec<_> = [expected].into_iter().filter(|text| !text.is_empty()).collect();
        said.is(&expected).with_context(|| format!("{settings:?}"))?;
    }
    let stage = Stage::set()?;
    stage.pod.sysctl("net/ipv4/ip_local_port_range", "1024 60999")?;
    stage
        .pod
        .sysctl("net/ipv4/ip_local_reserved_ports", "15000-15090")?;
    stage.check("")?.is_silent()
}

#[test]
fn a_loopback_device_that_is_down_is_named() -> Result<()> {
    let stage = Stage::set()?;
    stage.pod.ip("link set lo down")?;
    stage.check("")?.is(&["error WEIR-LOOPBACK lo"])
}

/// Sends one datagram to each of so many addresses and ports, which each take a place in the table.
fn fill(pod: &Pod, count: u64) -> Result<()> {
    const PORTS: u64 = 50_000;
    pod.within(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        for number in 0..count {
            let [.., high, low] = (number / PORTS).to_be_bytes();
            let port = 1000 + u16::try_from(number % PORTS).unwrap_or(0);
            socket.send_to(b"x", (std::net::Ipv4Addr::new(198, 18, high, low), port))?;
        }
        Ok::<_, std::io::Error>(())
    })??;
    Ok(())
}

#[test]
fn a_table_of_connections_that_fills_is_named() -> Result<()> {
    let stage = Stage::set()?;
    // A rule that asks conntrack has it track; the packets leave for a neighbour that takes them all.
    stage.sh(
        "iptables-nft -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT
              ip neigh add 10.77.0.2 lladdr 02:00:00:00:00:02 nud permanent dev eth0",
    )?;
    let limit = stage.sh("cat /proc/sys/net/netfilter/nf_conntrack_max")?.text();
    let limit: u64 = limit.trim().parse()?;
    fill(&stage.pod, limit * 85 / 100)?;
    stage.check("")?.is(&["warning WEIR-CONNTRACK-FULL of"])
}

#[test]
fn oddities_of_resolv_conf_are_named() -> Result<()> {
    let stage = Stage::set()?;
    for (text, expected) in [
        ("# nobody\n", "names no server"),
        ("nameserver 127.0.0.53\n", "127.0.0.53 is on loopback"),
        ("nameserver dns\nnameserver 10.0.0.1\n", "`dns` is no address"),
        (
            "nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n",
            "names 4 servers",
        ),
        ("nameserver 10.0.0.1\noptions ndots:15\n", "ndots is 15"),
        ("nameserver 10.0.0.1\nsearch a b c d e f g\n", "7 domains"),
    ] {
        stage.resolv_conf(text)?;
        stage
            .check("")?
            .is(&[&format!("warning WEIR-RESOLV-CONF {expected}")])?;
    }
    // Docker's is led on by rules, to a port of its choice.
    stage.resolv_conf("nameserver 127.0.0.11\noptions ndots:0\n")?;
    stage
        .check("")?
        .is(&["warning WEIR-RESOLV-CONF 127.0.0.11 is on loopback"])?;
    stage.sh(
        "iptables-nft -t nat -N DOCKER_OUTPUT
         iptables-nft -t nat -A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT
         iptables-nft -t nat -A DOCKER_OUTPUT -d 127.0.0.11/32 -p tcp --dport 53 -j DNAT --to-destination 127.0.0.11:40111
         iptables-nft -t nat -A DOCKER_OUTPUT -d 127.0.0.11/32 -p udp --dport 53 -j DNAT --to-destination 127.0.0.11:40112",
    )?;
    stage.check("")?.is_silent()?;
    stage.resolv_conf("nameserver 127.0.0.53\n")?;
    let _server = stage.pod.within(|| UdpSocket::bind("127.0.0.53:53"))??;
    stage.check("")?.is_silent()
}

#[test]
fn a_proxy_that_is_not_there_hangs_or_is_unknown_to_the_rules_is_named() -> Result<()> {
    let stage = Stage::set()?;
    let manifests = Manifests::create()?;
    weir::run(&stage.pod, &["init", "--sidecar"])?;
    stage.check("")?.is(&[
        "error WEIR-NO-PROXY Weir's rules lead there, and nobody listens",
        "error WEIR-NO-PROXY Weir's rules lead there, and nobody listens",
    ])?;
    let sidecar = Sidecar::proxy_alone(&stage.pod, &manifests, &[])?;
    stage.check("")?.is_silent()?;
    sidecar.proxy.signal(Signal::STOP)?;
    stage
        .check("")?
        .is(&["error WEIR-NO-PROXY it listens, and said nothing within 2 s"])?;
    sidecar.proxy.signal(Signal::CONT)?;
    drop(sidecar);

    let root = Sidecar::proxy_as(RunAs::Root, &stage.pod, &manifests, &[])?;
    let found = stage.check("")?.is(&[
        "error WEIR-LOOP runs as user 0 and group 0, and the rules know the proxy by user 1337 or group 1337",
    ]);
    drop(root);
    found
}
