//! Inbound TPROXY: the application sees its clients' own addresses, whether conntrack follows or not.

mod cookies;
mod kinds;
mod switches;

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use e2e::manifests::Port;
use e2e::weir::Sidecar;
use e2e::{Mesh, Pod, Program, RunAs, eventually, servers, weir};

/// More addresses of the client.
const MORE: [&str; 2] = ["10.77.200.1", "10.77.200.2"];

/// And those that nothing has been asked from yet: a socket of the proxy's in TIME_WAIT takes a connection from
/// the same address and port to whoever listens there, even when the proxy is gone.
const FRESH: [&str; 2] = ["10.77.200.3", "fd00:77::200:3"];

/// Every back-end, as `--backend` names it.
const BACKENDS: [&str; 3] = ["nft", "iptables-nft", "iptables-legacy"];

struct Stage {
    server: Pod,
    client: Pod,
    sidecar: Sidecar,
    service: [IpAddr; 2],
    _running: (Mesh, [Program; 2]),
}

impl Stage {
    /// A server with rules, and its proxy; a client with several addresses, which serves too.
    fn set(rules: impl FnOnce(&Pod) -> Result<()>) -> Result<Self> {
        Self::by(&TPROXY, rules)
    }

    /// The same with other flags of the proxy.
    fn by(mode: &[&str], rules: impl FnOnce(&Pod) -> Result<()>) -> Result<Self> {
        let mesh = Mesh::create()?;
        let (server, client) = (mesh.pod("server", "web")?, mesh.pod("client", "client")?);
        let service = mesh.service(
            "web",
            1,
            &[Port::new("http", 80, 8080), Port::new("tcp", 81, 8081)],
            &[&server],
        )?;
        for more in MORE {
            client.ip(&format!("addr add {more}/16 dev eth0"))?;
        }
        client.ip(&format!("addr add {}/16 dev eth0", FRESH[0]))?;
        client.ip(&format!("addr add {}/64 dev eth0 nodad", FRESH[1]))?;
        for pod in [&server, &client] {
            pod.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
        }
        rules(&server)?;
        let site =
            "location / { return 200 $remote_addr; } location /proxied { return 200 $http_x_request_id; }";
        let nginx = servers::nginx_with(
            &server,
            mesh.dir(),
            "worker_processes 1;",
            &format!("server {{ listen 8080; listen [::]:8080; listen 8081; listen [::]:8081; {site} }}"),
        )?;
        server.wait_listening(8081)?;
        let other = servers::nginx(&client, mesh.dir(), 9000, site)?;
        let sidecar = Sidecar::proxy_as(RunAs::ProxyNetAdmin, &server, &mesh.manifests, mode)?;
        Ok(Self {
            server,
            client,
            sidecar,
            service,
            _running: (mesh, [nginx, other]),
        })
    }

    /// Every address of the client is what the application sees, on a port read as HTTP and on an opaque one.
    fn check_addresses(&self) -> Result<()> {
        let more = MORE.map(|address| address.parse::<IpAddr>());
        let sources = self.client.addresses().into_iter().map(Ok).chain(more);
        for source in sources {
            let source = source?;
            for port in [8080, 8081] {
                let to = self.server.at(port)[usize::from(source.is_ipv6())];
                let url = format!("http://{to}/");
                let from = source.to_string();
                // Twice on one connection.
                let seen = self.client.run(
                    "curl",
                    ["-gsSf", "--max-time", "15", "--interface", &from, &url, &url],
                )?;
                assert_eq!(seen.text(), from.repeat(2), "{url} from {from}");
            }
        }
        Ok(())
    }

    /// New connections one after the other and side by side, far more than there are ports.
    fn check_load(&self) -> Result<()> {
        for port in [8080, 8081] {
            let url = format!("http://{}/", self.server.at(port)[0]);
            let loaded = self
                .client
                .run("wrk", ["-t1", "-c32", "-d4", "-H", "Connection: close", &url])?;
            let said = loaded.text();
            ensure!(
                !said.contains("Socket errors") && !said.contains("Non-2xx"),
                "port {port}:\n{said}"
            );
        }
        Ok(())
    }

    /// What is made in the server's pod: out of it, to its own address, and to itself by way of the proxy.
    fn check_calls_of_the_pod(&self) -> Result<()> {
        for v6 in [false, true] {
            let of = |pod: &Pod, port: u16| pod.at(port)[usize::from(v6)];
            let own = of(&self.server, 0).ip();
            let service = SocketAddr::new(self.service[usize::from(v6)], 80);
            for to in [of(&self.client, 9000), of(&self.server, 8080), service] {
                let url = format!("http://{to}/");
                let said = self.server.run("curl", ["-gsSf", "--max-time", "15", &url])?;
                assert_eq!(said.text(), own.to_string(), "{url}");
            }
        }
        Ok(())
    }

    /// Without a proxy nobody comes in; without rules everybody does.
    fn check_end(self) -> Result<()> {
        drop(self.sidecar);
        for (to, from) in self.server.at(8080).into_iter().zip(FRESH) {
            let url = format!("http://{to}/");
            let asked = self.client.try_run(
                RunAs::Root,
                "curl",
                ["-gsS", "--max-time", "2", "--interface", from, &url],
            )?;
            assert!(!asked.status.success(), "{url} got past: {}", asked.text());
        }
        weir::run(&self.server, &["init", "--cleanup"])?;
        let made = routes(&self.server)?;
        assert!(!made.contains("fwmark") && !made.contains("133"), "{made}");
        for to in self.server.at(8080) {
            let url = format!("http://{to}/");
            self.client.run("curl", ["-gsSf", "--max-time", "15", &url])?;
        }
        Ok(())
    }

    /// A port that nobody listens on: the proxy is told so at once, and need not ask again.
    fn check_refusal(&self) -> Result<()> {
        let before = self.asked_again()?;
        for to in self.server.at(9999) {
            let url = format!("http://{to}/");
            let asked = ["-gsS", "--max-time", "15", &url];
            let said = self.client.try_run(RunAs::Root, "curl", asked)?;
            assert!(!said.status.success(), "{url}: {}", said.text());
        }
        assert_eq!(self.asked_again()?, before);
        Ok(())
    }

    /// How often the server's namespace has sent the first packet of a connection again.
    fn asked_again(&self) -> Result<u64> {
        let text = self.server.run("cat", ["/proc/net/netstat"])?.text();
        let mut rows = text.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, values) = (rows.next().context("names")?, rows.next().context("values")?);
        let named = names.split(' ').zip(values.split(' '));
        let (_, value) = named
            .into_iter()
            .find(|(name, _)| *name == "TCPSynRetrans")
            .context("TCPSynRetrans")?;
        Ok(value.parse()?)
    }

    /// Conntrack entries of TCP in the server's namespace, but for those of loopback.
    fn tracked(&self) -> Result<Vec<String>> {
        let listed = self.server.run("cat", ["/proc/net/nf_conntrack"])?.text();
        let tcp = listed
            .lines()
            .filter(|line| line.contains(" tcp ") && !line.contains("src=127.0.0.1 dst=127.0.0.1 "));
        Ok(tcp.map(str::to_owned).collect())
    }
}

/// The flags of the proxy.
const TPROXY: [&str; 2] = ["--inbound-mode", "tproxy"];

/// The flags of both kinds.
const TRACKED: [&str; 4] = ["init", "--sidecar", "-m", "TPROXY"];
const UNTRACKED: [&str; 6] = [
    "init",
    "--sidecar",
    "-m",
    "TPROXY",
    "--inbound-tproxy-conntrack",
    "off",
];

/// As a person would do it, once and again.
fn init(server: &Pod, kind: &[&str], backend: &str) -> Result<()> {
    let flags = &[kind, &["--backend", backend]].concat();
    let said = weir::run(server, flags)?;
    let expected = match kind.contains(&"off") {
        true => "without conntrack (asked for)",
        false => "followed by conntrack (as with istio-iptables",
    };
    ensure!(
        said.text().contains("by TPROXY")
            && said.text().contains(expected)
            && said.errors().contains("CAP_NET_ADMIN"),
        "{}{}",
        said.text(),
        said.errors()
    );
    let before = routes(server)?;
    let said = weir::run(server, flags)?.text();
    ensure!(said.contains("Nothing to do"), "{backend}: {said}");
    ensure!(routes(server)? == before, "a second run has changed the routes");
    Ok(())
}

/// Routing rules, and routes that others than the kernel have made.
fn routes(pod: &Pod) -> Result<String> {
    let mut all = String::new();
    for family in ["-4", "-6"] {
        all += &pod.run("ip", [family, "rule"])?.text();
        let routes = pod.run("ip", [family, "route", "show", "table", "all"])?.text();
        let made = routes.lines().filter(|line| !line.contains("proto kernel"));
        all += &made.collect::<Vec<_>>().join("\n");
    }
    Ok(all)
}

/// As many machines have it: what came by another way than its answers would go is dropped.
fn filter_by_way(pod: &Pod) -> Result<()> {
    for device in ["all", "default", "lo", "eth0"] {
        pod.sysctl(&format!("net/ipv4/conf/{device}/rp_filter"), "1")?;
    }
    Ok(())
}

fn stage(kind: &[&str], backend: &str) -> Result<Stage> {
    let stage = Stage::set(|server| {
        filter_by_way(server)?;
        init(server, kind, backend)
    })?;
    stage.check_addresses()?;
    stage.check_load()?;
    stage.check_refusal()?;
    Ok(stage)
}

fn tracked(backend: &str) -> Result<Stage> {
    let stage = stage(&TRACKED, backend)?;
    assert!(
        !stage.tracked()?.is_empty(),
        "the list of conntrack entries works"
    );
    stage.check_calls_of_the_pod()?;
    Ok(stage)
}

/// What was captured has left no entry; what the pod calls has one, as it has without capture.
fn untracked(backend: &str) -> Result<Stage> {
    let stage = stage(&UNTRACKED, backend)?;
    assert_eq!(stage.tracked()?, [""; 0]);
    stage.check_calls_of_the_pod()?;
    let tracked = stage.tracked()?;
    for redirected in [
        "dport=9000 src=127.0.0.1 ",
        "dport=9000 src=0000:0000:0000:0000:0000:0000:0000:0001 ",
    ] {
        assert!(
            tracked.iter().any(|entry| entry.contains(redirected)),
            "{redirected}: {tracked:?}"
        );
    }
    Ok(stage)
}

#[test]
fn the_application_sees_its_clients_addresses_by_nft() -> Result<()> {
    tracked(BACKENDS[0])?.check_end()
}

#[test]
fn the_application_sees_its_clients_addresses_by_iptables_nft() -> Result<()> {
    tracked(BACKENDS[1])?.check_end()
}

#[test]
fn the_application_sees_its_clients_addresses_by_iptables_legacy() -> Result<()> {
    tracked(BACKENDS[2])?.check_end()
}

#[test]
fn what_is_captured_leaves_no_conntrack_entry_by_nft() -> Result<()> {
    untracked(BACKENDS[0])?.check_end()
}

#[test]
fn what_is_captured_leaves_no_conntrack_entry_by_iptables_nft() -> Result<()> {
    untracked(BACKENDS[1])?.check_end()
}

#[test]
fn what_is_captured_leaves_no_conntrack_entry_by_iptables_legacy() -> Result<()> {
    untracked(BACKENDS[2])?.check_end()
}

#[test]
fn what_was_in_the_way_of_the_routes_is_mended_and_all_of_it_goes() -> Result<()> {
    let pod = Pod::bare("pod", "10.77.0.1".parse()?, "fd00:77::1".parse()?)?;
    pod.ip("link set lo up")?;
    pod.ip("link add eth0 type veth peer name other")?;
    pod.ip("link set eth0 up")?;
    pod.ip("rule add fwmark 1337 to 192.0.2.0/24 lookup 77")?;
    for backend in BACKENDS {
        let before = routes(&pod)?;
        init(&pod, &TRACKED, backend)?;
        let made = routes(&pod)?;
        assert_eq!(made.matches("fwmark 0x539 lookup 133").count(), 2, "{made}");
        assert_eq!(
            made.matches("local default dev lo table 133").count(),
            2,
            "{made}"
        );
        // Drift of each kind.
        for drift in [
            "rule del fwmark 1337 lookup 133",
            "-6 route del local ::/0 dev lo table 133",
            "rule add fwmark 1337 lookup 133 protocol 87",
        ] {
            pod.ip(drift)?;
            let again = ["init", "--sidecar", "-m", "TPROXY", "--backend", backend];
            let said = weir::run(&pod, &again)?.text();
            assert!(said.contains("Captured"), "{backend}, {drift}: {said}");
            let now = routes(&pod)?;
            assert_eq!(now.matches("lookup 133").count(), 2, "{backend}, {drift}: {now}");
            assert_eq!(now.matches("table 133").count(), 2, "{backend}, {drift}: {now}");
        }
        // Other numbers replace; the other mode needs none of it.
        weir::run(
            &pod,
            &["init", "--sidecar", "-m", "TPROXY", "-t", "7", "-r", "300"],
        )?;
        let other = routes(&pod)?;
        assert!(
            !other.contains("lookup 133") && !other.contains("table 133"),
            "{other}"
        );
        assert_eq!(other.matches("fwmark 0x7 lookup 300").count(), 2, "{other}");
        weir::run(&pod, &["init", "--sidecar"])?;
        assert_eq!(routes(&pod)?, before);
        init(&pod, &TRACKED, backend)?;
        weir::run(&pod, &["init", "--cleanup"])?;
        assert_eq!(routes(&pod)?, before);
    }
    Ok(())
}

#[test]
fn an_unconfirmed_change_is_taken_back_with_its_routes() -> Result<()> {
    let pod = Pod::bare("pod", "10.77.0.1".parse()?, "fd00:77::1".parse()?)?;
    pod.ip("link set lo up")?;
    pod.ip("link add eth0 type veth peer name other")?;
    pod.ip("link set eth0 up")?;
    let without = routes(&pod)?;
    let for_a_moment = ["--host", "--confirm-within", "2"];
    let tproxy = ["init", "--sidecar", "-m", "TPROXY"];
    weir::run(&pod, &[&tproxy[..], &for_a_moment].concat())?;
    eventually("no route to be left", || {
        (routes(&pod).ok()? == without).then_some(())
    })?;
    // And the other way round: the routes that were there come back.
    weir::run(&pod, &tproxy)?;
    let with = routes(&pod)?;
    assert_ne!(with, without);
    // The process that has undone the first change may be about to end.
    let again = [&["init", "--sidecar"], &for_a_moment[..]].concat();
    eventually("the other mode", || weir::run(&pod, &again).ok())?;
    eventually("the routes to be back", || {
        (routes(&pod).ok()? == with).then_some(())
    })
}
