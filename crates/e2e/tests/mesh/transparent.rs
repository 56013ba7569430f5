//! Inbound TPROXY: the application sees its clients' own addresses, whether the flow is tracked or not.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use e2e::manifests::Port;
use e2e::weir::Sidecar;
use e2e::{Mesh, Pod, Program, RunAs, servers};

/// More addresses of the client.
const MORE: [&str; 2] = ["10.77.200.1", "10.77.200.2"];

/// Marks what the proxy sends to the application, so that the answers come back to it.
const ROUTES: [&str; 4] = [
    "rule add fwmark 1337 lookup 133",
    "route add local 0.0.0.0/0 dev lo table 133",
    "-6 rule add fwmark 1337 lookup 133",
    "-6 route add local ::/0 dev lo table 133",
];

/// With conntrack, which remembers by its own mark whose answers are to come back.
const TRACKED: &str = "table inet test {
    chain pre { type filter hook prerouting priority mangle;
        meta l4proto tcp meta mark 1337 ct mark set meta mark accept
        iifname lo accept
        tcp dport { 15020, 15021 } accept
        meta l4proto tcp socket transparent 1 accept
        meta nfproto ipv4 meta l4proto tcp tproxy ip to :15006 accept
        meta nfproto ipv6 meta l4proto tcp tproxy ip6 to :15006 accept
    }
    chain out { type route hook output priority mangle;
        oifname lo accept
        ct mark 1337 meta l4proto tcp meta mark set ct mark
    }
}";

/// Without: the application's sockets inherit the mark (`tcp_fwmark_accept`).
const UNTRACKED: &str = "table inet test {
    chain raw_pre { type filter hook prerouting priority raw; meta l4proto tcp notrack; }
    chain raw_out { type filter hook output priority raw; meta l4proto tcp notrack; }
    chain pre { type filter hook prerouting priority mangle;
        iifname lo accept
        tcp dport { 15020, 15021 } accept
        meta l4proto tcp socket transparent 1 accept
        meta nfproto ipv4 meta l4proto tcp tproxy ip to :15006 accept
        meta nfproto ipv6 meta l4proto tcp tproxy ip6 to :15006 accept
    }
}";

struct Stage {
    server: Pod,
    client: Pod,
    _running: (Mesh, Program, Sidecar),
}

impl Stage {
    /// A server with these rules, and its proxy; a client with several addresses.
    fn set(rules: &str) -> Result<Self> {
        let mesh = Mesh::create()?;
        let (server, client) = (mesh.pod("server", "web")?, mesh.pod("client", "client")?);
        mesh.service(
            "web",
            1,
            &[Port::new("http", 80, 8080), Port::new("tcp", 81, 8081)],
            &[&server],
        )?;
        for more in MORE {
            client.ip(&format!("addr add {more}/16 dev eth0"))?;
        }
        for pod in [&server, &client] {
            pod.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
        }
        server.sysctl("net/ipv4/tcp_fwmark_accept", "1")?;
        for route in ROUTES {
            server.ip(route)?;
        }
        server.run("nft", [rules])?;
        let site = "location / { return 200 $remote_addr; }";
        let nginx = servers::nginx_with(
            &server,
            mesh.dir(),
            "worker_processes 1;",
            &format!("server {{ listen 8080; listen [::]:8080; listen 8081; listen [::]:8081; {site} }}"),
        )?;
        server.wait_listening(8081)?;
        let mode = ["--inbound-mode", "tproxy"];
        let sidecar = Sidecar::proxy_as(RunAs::ProxyNetAdmin, &server, &mesh.manifests, &mode)?;
        Ok(Self {
            server,
            client,
            _running: (mesh, nginx, sidecar),
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

    /// Conntrack entries of TCP in the server's namespace.
    fn tracked(&self) -> Result<usize> {
        let listed = self.server.run("cat", ["/proc/net/nf_conntrack"])?.text();
        Ok(listed.lines().filter(|line| line.contains(" tcp ")).count())
    }
}

#[test]
fn the_application_sees_its_clients_addresses() -> Result<()> {
    let stage = Stage::set(TRACKED)?;
    stage.check_addresses()?;
    stage.check_load()?;
    assert!(stage.tracked()? > 0, "the list of conntrack entries works");
    Ok(())
}

#[test]
fn an_untracked_flow_leaves_no_conntrack_entry() -> Result<()> {
    let stage = Stage::set(UNTRACKED)?;
    stage.check_addresses()?;
    stage.check_load()?;
    assert_eq!(stage.tracked()?, 0);
    Ok(())
}
