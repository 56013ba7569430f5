//! A command that listens: reached from inside as in a sidecar, by the services that it is an endpoint of,
//! and from outside by a published port.

use anyhow::{Context, Result};
use e2e::{RunAs, eventually};

use crate::{BOTH, Laptop};

/// A server on port 7000 of both families that answers with whom it was called by.
const SERVER: &str = "
import http.server, socket, sys
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        text = self.client_address[0].encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
server = Server(('::', 7000), Answer)
print('serving', flush=True)
server.serve_forever()
";

impl Laptop {
    /// The pod `web-1` as an endpoint of the service `mine` (10.96.0.7 and fd00:96::7), port 80 to 7000.
    fn mine(&self) -> Result<()> {
        self.mesh.manifests.write(
            "mine.yaml",
            "apiVersion: v1\nkind: Service\nmetadata: {name: mine, namespace: mesh}\nspec:\n  clusterIP: 10.96.0.7\n  \
             clusterIPs: [10.96.0.7, 'fd00:96::7']\n  ports: [{name: http, port: 80, targetPort: 7000}, {name: tcp, port: 81, targetPort: 7000}]\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
             metadata: {name: mine-4, namespace: mesh, labels: {kubernetes.io/service-name: mine}}\n\
             ports: [{name: http, port: 7000, protocol: TCP}, {name: tcp, port: 7000, protocol: TCP}]\nendpoints: [{addresses: [10.77.0.2]}]\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv6\n\
             metadata: {name: mine-6, namespace: mesh, labels: {kubernetes.io/service-name: mine}}\n\
             ports: [{name: http, port: 7000, protocol: TCP}, {name: tcp, port: 7000, protocol: TCP}]\nendpoints: [{addresses: ['fd00:77::2']}]\n",
        )
    }
}

#[test]
fn its_own_calls_to_itself_end_as_in_a_sidecar() -> Result<()> {
    let laptop = Laptop::create()?;
    laptop.mine()?;
    let script = "python3 -uc \"$0\" > $1 & while ! grep -q serving $1; do sleep 0.02; done; shift; \
                  for host; do curl -gsS -m 30 http://$host/ && echo; done";
    let calls = [
        // Its own addresses: direct, as its neighbours in a pod would come.
        ("127.0.0.1:7000", "::ffff:127.0.0.1"),
        ("[::1]:7000", "::1"),
        ("10.77.0.2:7000", "::ffff:10.77.0.2"),
        ("[fd00:77::2]:7000", "fd00:77::2"),
        // Its own service, by request and byte for byte: out by its proxy and in by it.
        ("10.96.0.7", "::ffff:127.0.0.6"),
        ("[fd00:96::7]", "::6"),
        ("10.96.0.7:81", "::ffff:127.0.0.6"),
        ("[fd00:96::7]:81", "::6"),
        ("mine", "::ffff:127.0.0.6"),
    ];
    for who in BOTH {
        let log = laptop.shared.path().join(format!("served-{who:?}"));
        let mut command = vec!["sh", "-c", script, SERVER, log.to_str().unwrap()];
        command.extend(calls.iter().map(|(host, _)| *host));
        let finished = laptop.run_with(who, &["--as", "mesh/web-1", "--journey"], &command)?;
        let met: Vec<_> = calls
            .iter()
            .map(|(host, _)| *host)
            .zip(finished.text().lines().map(str::to_owned))
            .collect();
        let expected: Vec<_> = calls.map(|(host, from)| (host, from.to_owned())).into();
        // The name has two addresses, and curl takes either.
        assert_eq!(met[..8], expected[..8], "{who:?}: {finished:?}");
        assert!(
            ["::6", "::ffff:127.0.0.6"].contains(&met[8].1.as_str()),
            "{met:?}"
        );
        let told = finished.errors();
        for hop in [
            "(proxy calls its own workload: inbound): to port 15006",
            "listener  inbound, port 15006",
            "cluster   inbound|7000||",
            "endpoint  [fd00:77::2]:7000",
        ] {
            assert!(told.contains(hop), "{hop} is not in\n{told}");
        }
    }
    Ok(())
}

#[test]
fn a_published_port_is_inbound_to_it() -> Result<()> {
    let laptop = Laptop::create()?;
    laptop.mine()?;
    let weir = laptop.weir.to_str().unwrap();
    for who in BOTH {
        for (options, published) in [(&["--as", "mesh/web-1"][..], "10.77.0.2"), (&[], "192.0.0.2")] {
            let options = [
                options,
                &["--journey", "-p", "7000", "--publish", "[::1]:7001:7000"],
            ]
            .concat();
            let mut program = laptop.start_with(who, &options, &["python3", "-uc", SERVER])?;
            eventually("the server", || program.said().contains("serving").then_some(()))?;
            for url in ["http://127.0.0.1:7000/", "http://[::1]:7001/"] {
                let answer = laptop
                    .pod
                    .run_as(RunAs::Application, "curl", ["-gsS", "-m", "30", url])?;
                assert_eq!(answer.text(), "::ffff:127.0.0.6", "{who:?}: {url}");
            }
            // Not where nobody asked for it.
            let other = laptop
                .pod
                .try_run(RunAs::Application, "curl", ["-s", "http://127.0.0.1:7001/"])?;
            assert_eq!(other.status.code(), Some(7), "{other:?}");
            let pc = laptop.pod.run_as(
                who,
                weir,
                ["pc", "listeners", "--proxy", &program.id().to_string()],
            )?;
            let row = format!("Inbound: {published}:7000");
            assert!(
                pc.text()
                    .lines()
                    .any(|line| line.contains("127.0.0.1") && line.contains(&row)),
                "{pc:?}"
            );
            if who == RunAs::Root {
                let name = format!("{}.sock", program.id());
                let runtime = std::env::var("XDG_RUNTIME_DIR").map(|dir| format!("{dir}/weir/{name}"));
                let socket = runtime
                    .ok()
                    .filter(|path| std::path::Path::new(path).exists())
                    .unwrap_or_else(|| format!("/tmp/weir-0/{name}"));
                let metrics = laptop.pod.run(
                    "curl",
                    ["-sS", "--unix-socket", &socket, "http://localhost/metrics"],
                )?;
                let counted = metrics.text().lines().any(|line| {
                    line.contains("direction=\"inbound\"")
                        && line.contains("connections")
                        && line.ends_with(" 2")
                });
                assert!(counted, "{}", metrics.text());
            }
            program.signal(rustix::process::Signal::TERM)?;
            program.wait()?;
            let told = program.said();
            for hop in [
                &format!("← {published}:7000  from 127.0.0.1:"),
                "rule      none: it came to a published port",
                "listener  inbound, published at 127.0.0.1:7000",
                "listener  inbound, published at [::1]:7001",
            ] {
                assert!(told.contains(hop), "{hop} is not in\n{told}");
            }
            let by_request = told.contains("request   1: GET 127.0.0.1:7000/");
            assert_eq!(
                by_request,
                options[0] == "--as",
                "known by the pod's service\n{told}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_port_that_cannot_be_published_is_told_before_the_command_starts() -> Result<()> {
    let laptop = Laptop::create()?;
    let taken = laptop
        .pod
        .within(|| std::net::TcpListener::bind("127.0.0.1:7000"))??;
    for (publish, problem) in [
        (
            "7000",
            "cannot publish 127.0.0.1:7000; give an address of this machine and a port that is free",
        ),
        ("192.0.2.1:7001", "cannot publish 192.0.2.1:7001"),
        ("7000:http", "`http` is no port from 1 to 65535; write PORT"),
    ] {
        let refused = laptop.run_with(RunAs::Application, &["--publish", publish], &["echo", "started"])?;
        assert_eq!(refused.text(), "", "{publish}");
        assert!(refused.errors().contains(problem), "{publish}: {refused:?}");
    }
    drop(taken);
    Ok(())
}

#[test]
fn nobody_behind_a_published_port_is_a_reset() -> Result<()> {
    let laptop = Laptop::create()?;
    let mut program = laptop.start_with(
        RunAs::Application,
        &["--journey", "-p", "7000"],
        &["sh", "-c", "echo ready; exec sleep 1000"],
    )?;
    eventually("the command", || program.said().contains("ready").then_some(()))?;
    let refused = laptop
        .pod
        .try_run(RunAs::Application, "curl", ["-s", "http://127.0.0.1:7000/"])?;
    assert!(matches!(refused.status.code(), Some(7 | 52 | 56)), "{refused:?}");
    let told = eventually("the journey", || {
        Some(program.said()).filter(|said| said.contains("closed"))
    })
    .context("the end of the connection")?;
    assert!(told.contains("192.0.0.2:7000: Connection refused"), "{told}");
    program.signal(rustix::process::Signal::TERM)?;
    program.wait()?;
    Ok(())
}
