//! Who is measured: each with a client namespace of its own, wired to the server, redirected to itself.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::manifests::{Manifests, NAMESPACE, Port, Service};
use e2e::{Pod, Program, RunAs, connect, eventually, weir};

use crate::usage;

/// Where the server serves HTTP.
pub(crate) const HTTP_PORT: u16 = 8080;
/// Where iperf3 listens.
pub(crate) const IPERF_PORT: u16 = 5201;

/// Where a peer listens for redirected HTTP, and for anything when it knows original destinations.
const CAPTURE_PORT: u16 = 15001;
/// nginx knows no original destination: a second listener, for iperf3.
const CAPTURE_IPERF_PORT: u16 = 15002;

/// How much of a connection a contender understands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Layer {
    /// No proxy at all: what the others are compared with.
    Direct,
    /// Bytes.
    L4,
    /// HTTP/1.1 requests.
    L7,
}

/// A contender, not yet running.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) layer: Layer,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Direct,
    Haproxy,
    Nginx,
    /// `[VARIABLE=VALUE ...] PATH [ARGUMENT ...]`; no words mean the Weir of this workspace.
    Weir(Vec<String>),
    Command(Vec<String>),
}

impl Spec {
    /// Whether it is one of ours.
    pub(crate) fn is_weir(&self) -> bool {
        matches!(self.kind, Kind::Weir(_))
    }
}

/// The contenders named in `wanted`, all for an empty list, and every one given on the command line.
pub(crate) fn select(wanted: &[String], weirs: &[String], peers: &[String]) -> Result<Vec<Spec>> {
    let of = |name: &str, layer, kind| Spec {
        name: name.to_owned(),
        layer,
        kind,
    };
    let mut all = vec![
        of("direct", Layer::Direct, Kind::Direct),
        of("haproxy-l4", Layer::L4, Kind::Haproxy),
        of("nginx-l4", Layer::L4, Kind::Nginx),
        of("weir-l4", Layer::L4, Kind::Weir(Vec::new())),
        of("haproxy-l7", Layer::L7, Kind::Haproxy),
        of("nginx-l7", Layer::L7, Kind::Nginx),
        of("weir-l7", Layer::L7, Kind::Weir(Vec::new())),
    ];
    for weir in weirs {
        let (name, words) = named_command(weir)?;
        all.push(of(&format!("{name}-l4"), Layer::L4, Kind::Weir(words.clone())));
        all.push(of(&format!("{name}-l7"), Layer::L7, Kind::Weir(words)));
    }
    for peer in peers {
        let (name, words) = named_command(peer)?;
        let layer = if name.ends_with("-l7") {
            Layer::L7
        } else {
            ensure!(
                name.ends_with("-l4"),
                "--peer {name}: end its name with -l4 or -l7"
            );
            Layer::L4
        };
        all.push(of(name, layer, Kind::Command(words)));
    }
    for name in wanted {
        ensure!(
            all.iter().any(|spec| spec.name == *name),
            "no contender is called {name}; there are {}",
            all.iter()
                .map(|spec| spec.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    all.retain(|spec| wanted.is_empty() || wanted.contains(&spec.name));
    Ok(all)
}

fn named_command(text: &str) -> Result<(&str, Vec<String>)> {
    let (name, command) = text
        .split_once('=')
        .with_context(|| format!("`{text}`: write NAME=COMMAND"))?;
    let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    ensure!(!words.is_empty(), "`{text}`: the command is missing");
    Ok((name, words))
}

/// A contender that is up: its client namespace, and its program if it has one.
#[derive(Debug)]
pub(crate) struct Contender {
    pub(crate) name: String,
    pub(crate) layer: Layer,
    /// Where the load generator runs, as an application; its connections are captured.
    pub(crate) client: Pod,
    /// The server's address as seen from this client.
    pub(crate) server: Ipv4Addr,
    /// The program's processes; none for direct.
    pub(crate) processes: Vec<u32>,
    program: Option<Program>,
    /// The folder that a Weir watches.
    _manifests: Manifests,
}

impl Contender {
    /// Makes the client namespace number `number`, wires it to `server`, starts the program in it and
    /// checks that a request comes back through it.
    pub(crate) fn start(
        spec: &Spec,
        number: u8,
        server: &Pod,
        dir: &Path,
        congestion: Option<&str>,
    ) -> Result<Self> {
        let (client, address) = wire(number, server)?;
        prepare(&client, congestion)?;
        let manifests = manifests(spec, address)?;
        let program = program(spec, &client, address, dir, &manifests)?;
        if let Some(program) = &program {
            client
                .wait_listening(CAPTURE_PORT)
                .with_context(|| program.said())?;
            redirect(spec, &client, address)?;
        }
        let mut contender = Self {
            name: spec.name.clone(),
            layer: spec.layer,
            client,
            server: address,
            processes: Vec::new(),
            program,
            _manifests: manifests,
        };
        contender.check()?;
        if let Some(program) = &contender.program {
            contender.processes = usage::group(program.id())?;
        }
        Ok(contender)
    }

    fn check(&self) -> Result<()> {
        let url = format!("http://{}:{HTTP_PORT}/2b", self.server);
        eventually("a request through it", || {
            let said = self.client.run_as(RunAs::Application, "curl", ["-sf", &url]);
            said.ok().filter(|said| said.text() == "ok")
        })
        .map(drop)
        .with_context(|| {
            let said = self.program.as_ref().map(Program::said).unwrap_or_default();
            format!("{} does not answer\n{said}", self.name)
        })
    }
}

/// Settings of a namespace: room for many connections, and the congestion control if one was asked for.
pub(crate) fn prepare(namespace: &Pod, congestion: Option<&str>) -> Result<()> {
    namespace.widen()?;
    match congestion {
        Some(name) => namespace.sysctl("net/ipv4/tcp_congestion_control", name),
        None => Ok(()),
    }
}

/// A client namespace with its own pair of devices to the server: `10.77.N.1` there, `10.77.N.2` here.
pub(crate) fn wire(number: u8, server: &Pod) -> Result<(Pod, Ipv4Addr)> {
    let (near, far) = (Ipv4Addr::new(10, 77, number, 1), Ipv4Addr::new(10, 77, number, 2));
    let client = Pod::bare("client", near, Ipv6Addr::UNSPECIFIED)?;
    let device = format!("c{number}");
    connect((&client, "eth0"), (server, &device))?;
    client.ip(&format!("addr add {near}/24 dev eth0"))?;
    server.ip(&format!("addr add {far}/24 dev {device}"))?;
    Ok((client, far))
}

/// Sends the application's connections to the contender, as istio's rules do: by the owner's uid.
fn redirect(spec: &Spec, client: &Pod, server: Ipv4Addr) -> Result<()> {
    let mut rules = vec![("", CAPTURE_PORT)];
    let iperf = format!("--dport {IPERF_PORT} ");
    if matches!(spec.kind, Kind::Nginx) {
        rules.insert(0, (iperf.as_str(), CAPTURE_IPERF_PORT));
    }
    for (which, port) in rules {
        let rule = format!(
            "-t nat -A OUTPUT -d {server}/24 -p tcp {which}-m owner ! --uid-owner 1337 -j REDIRECT --to-ports {port}"
        );
        client.run("iptables", rule.split_whitespace())?;
    }
    client.sysctl("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "5")
}

fn program(
    spec: &Spec,
    client: &Pod,
    server: Ipv4Addr,
    dir: &Path,
    manifests: &Manifests,
) -> Result<Option<Program>> {
    let file = |text: String, ending: &str| -> Result<String> {
        let path = dir.join(format!("{}.{ending}", spec.name));
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let command: Vec<String> = match &spec.kind {
        Kind::Direct => return Ok(None),
        Kind::Haproxy => words(&["haproxy", "-db", "-q", "-f", &file(haproxy(spec.layer), "cfg")?]),
        Kind::Nginx => {
            let path = file(nginx(spec, server, dir), "conf")?;
            words(&["nginx", "-e", "stderr", "-c", &path])
        }
        Kind::Weir(given) => return start_weir(given, client, manifests).map(Some),
        Kind::Command(given) => given
            .iter()
            .map(|word| word.replace("{ip}", &server.to_string()))
            .collect(),
    };
    client.start(RunAs::Proxy, "env", command).map(Some)
}

fn words(of: &[&str]) -> Vec<String> {
    of.iter().map(|&word| word.to_owned()).collect()
}

/// Starts a Weir by the given words (variables, path, arguments), as this client's sidecar.
fn start_weir(given: &[String], client: &Pod, manifests: &Manifests) -> Result<Program> {
    let variables: Vec<(&str, &str)> = given.iter().map_while(|word| word.split_once('=')).collect();
    let own = weir::binary()?;
    let (path, more) = match given.get(variables.len()..) {
        Some([path, more @ ..]) => (Path::new(path), more),
        _ => (own.as_path(), &[][..]),
    };
    let folder = manifests.path().display().to_string();
    let who = format!("{NAMESPACE}/client");
    let mut arguments = vec!["proxy", "--manifests", &folder, "--as", &who, "--workers", "2"];
    arguments.extend(more.iter().map(String::as_str));
    client.start_file(RunAs::Proxy, path, &variables, arguments)
}

/// The server as a service whose own address is its cluster address, so that every contender is asked
/// for the same one. The name of the port declares to Weir what it may understand.
fn manifests(spec: &Spec, server: Ipv4Addr) -> Result<Manifests> {
    let http = if spec.layer == Layer::L7 {
        "http"
    } else {
        "tcp-http"
    };
    let ports = [
        Port::new(http, HTTP_PORT, HTTP_PORT),
        Port::new("tcp-iperf", IPERF_PORT, IPERF_PORT),
    ];
    let server = IpAddr::from(server);
    let service = Service::new("server", &[server], &ports);
    let manifests = Manifests::create()?;
    let mesh =
        "apiVersion: weir.dev/v1alpha1\nkind: MeshConfig\nmetadata:\n  name: mesh\nspec:\n  accessLog: off\n";
    manifests.write("mesh.yaml", mesh)?;
    let text = service.yaml() + &service.slice("IPv4", &[("server", server)]);
    manifests.write("server.yaml", &text)?;
    Ok(manifests)
}

/// HAProxy: an address of 0.0.0.0 stands for the connection's original destination.
fn haproxy(layer: Layer) -> String {
    let mode = if layer == Layer::L7 {
        "mode http\n  http-reuse always\n  timeout http-keep-alive 1h"
    } else {
        "mode tcp"
    };
    format!(
        "global\n  nbthread 2\n  maxconn 9800\n\
         defaults\n  {mode}\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         frontend in\n  bind 0.0.0.0:{CAPTURE_PORT} backlog 65535\n  default_backend out\n\
         backend out\n  server original 0.0.0.0\n"
    )
}

/// nginx: fixed upstreams, kept alive where it speaks HTTP.
fn nginx(spec: &Spec, server: Ipv4Addr, dir: &Path) -> String {
    let at = dir.display();
    let name = &spec.name;
    let main = format!(
        "daemon off;\nworker_processes 2;\nworker_rlimit_nofile 20000;\npid {at}/{name}.pid;\nerror_log stderr;\n\
         events {{ worker_connections 16384; }}\n"
    );
    let listen = |port| format!("listen 0.0.0.0:{port} reuseport backlog=65535;");
    if spec.layer == Layer::L4 {
        return format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n{main}stream {{\n  proxy_timeout 1h;\n\
             \x20 server {{ {} proxy_pass {server}:{HTTP_PORT}; }}\n\
             \x20 server {{ {} proxy_pass {server}:{IPERF_PORT}; }}\n}}\n",
            listen(CAPTURE_PORT),
            listen(CAPTURE_IPERF_PORT)
        );
    }
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {at}/{name}-{kind};\n"))
        .concat();
    format!(
        "{main}http {{\n  access_log off;\n{temporary}\
         \x20 keepalive_timeout 3600;\n  keepalive_requests 1000000000;\n\
         \x20 upstream server {{\n    server {server}:{HTTP_PORT};\n    keepalive 256;\n\
         \x20   keepalive_requests 1000000000;\n    keepalive_timeout 3600;\n  }}\n\
         \x20 server {{\n    {}\n    location / {{\n      proxy_pass http://server;\n      proxy_http_version 1.1;\n\
         \x20     proxy_set_header Connection \"\";\n      proxy_set_header Host $host;\n\
         \x20     proxy_max_temp_file_size 0;\n    }}\n  }}\n}}\n",
        listen(CAPTURE_PORT)
    )
}
