//! One client pod with its proxy, two servers, and services of every kind of health; rules are put in anew for each
//! set-up.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::manifests::{Port, Service};
use e2e::weir::{Sidecar, binary};
use e2e::{Mesh, Pod, Program, RunAs, servers, until};

/// Virtual addresses of services: `10.96.0.N`.
pub(crate) const WEB: u8 = 1;
const UNREADY: u8 = 2;
const EMPTY: u8 = 3;
const DEAD: u8 = 4;
const ODD: u8 = 5;
const MISNAMED: u8 = 6;

pub(crate) struct World {
    pub(crate) mesh: Mesh,
    pub(crate) client: Pod,
    pub(crate) sidecar: Option<Sidecar>,
    /// What a set-up has started, until the next one.
    pub(crate) helpers: Vec<Program>,
    _servers: Vec<(Pod, Program)>,
}

/// What `weir explain` said.
pub(crate) struct Said {
    pub(crate) status: i32,
    pub(crate) text: String,
}

impl Said {
    /// The side that it blames; empty where none is. Only of JSON.
    pub(crate) fn side(&self) -> String {
        // What standard error says comes behind.
        let mut told = serde_json::Deserializer::from_str(&self.text).into_iter::<serde_json::Value>();
        let told = told.next().and_then(Result::ok).unwrap_or_default();
        let of = |value: &serde_json::Value| value["finding"]["side"].as_str().map(str::to_owned);
        of(&told)
            .or_else(|| of(&told["connections"][0]))
            .unwrap_or_default()
    }
}

impl Said {
    /// The same of what is printed for people.
    pub(crate) fn side_of_text(&self) -> &str {
        let mut lines = self.text.lines();
        let line = lines.find_map(|line| line.trim_start().strip_prefix("side "));
        line.map_or("", str::trim)
    }
}

impl World {
    pub(crate) fn create() -> Result<Self> {
        Self::with_client("client")
    }

    pub(crate) fn with_client(name: &str) -> Result<Self> {
        let mesh = Mesh::create()?;
        let mut servers = vec![];
        for name in ["web-1", "web-2"] {
            let pod = mesh.pod(name, "web")?;
            let nginx = servers::nginx(&pod, mesh.dir(), 8080, "location / { return 200 hello; }")?;
            servers.push((pod, nginx));
        }
        let pods: Vec<&Pod> = servers.iter().map(|(pod, _)| pod).collect();
        mesh.service("web", WEB, &[Port::new("http", 80, 8080)], &pods)?;
        mesh.service("odd", ODD, &[Port::new("htpp", 80, 8080)], &pods)?;
        mesh.service("empty", EMPTY, &[Port::new("http", 80, 8080)], &[])?;
        // Nobody listens there.
        mesh.service("dead", DEAD, &[Port::new("http", 80, 9)], &pods[..1])?;
        mesh.manifests.write("unready.yaml", &unready(pods[0]))?;
        mesh.manifests.write("misnamed.yaml", &misnamed(pods[0]))?;
        let without = Service::new("nowhere", &[], &[Port::new("http", 80, 8080)]);
        mesh.manifests.service(&without, &pods)?;
        let client = mesh.pod(name, name)?;
        let mut world = Self {
            mesh,
            client,
            sidecar: None,
            helpers: vec![],
            _servers: servers,
        };
        world.start_proxy()?;
        Ok(world)
    }

    pub(crate) fn start_proxy(&mut self) -> Result<()> {
        if self.sidecar.is_none() {
            self.sidecar = Some(Sidecar::proxy_alone(
                &self.client,
                &self.mesh.manifests,
                &["--dns"],
            )?);
        }
        Ok(())
    }

    pub(crate) fn kill_proxy(&mut self) {
        self.sidecar = None;
    }

    /// Takes out everybody's rules, and puts in those of `weir init` with these words; none with none.
    pub(crate) fn reset(&self, init: &str) -> Result<()> {
        self.client.run("nft", ["flush ruleset"])?;
        self.client.run("ipset", ["destroy"])?;
        for program in ["iptables-legacy", "ip6tables-legacy"] {
            let used = match program {
                "iptables-legacy" => "/proc/thread-self/net/ip_tables_names",
                _ => "/proc/thread-self/net/ip6_tables_names",
            };
            let tables = self
                .client
                .within(|| fs::read_to_string(used))?
                .unwrap_or_default();
            for table in tables.split_whitespace() {
                for action in ["-F", "-X"] {
                    self.client.run(program, ["-t", table, action])?;
                }
            }
        }
        self.init(init)
    }

    pub(crate) fn init(&self, words: &str) -> Result<()> {
        if words.is_empty() {
            return Ok(());
        }
        let arguments: Vec<_> = ["init"].into_iter().chain(words.split(' ')).collect();
        e2e::weir::run(&self.client, &arguments).map(drop)
    }

    /// Runs a command in the pod, as root; words are apart by one space.
    pub(crate) fn run(&self, command: &str) -> Result<()> {
        let mut words = command.split(' ');
        let program = words.next().context("a program")?;
        self.client.run(program, words).map(drop)
    }

    /// Puts tables of nftables in.
    pub(crate) fn nft(&self, text: &str) -> Result<()> {
        self.client.run("nft", [text]).map(drop)
    }

    /// How curl ends in the pod: `200`, `503`, or `curl 28` for a time-out. The first word may say as whom.
    pub(crate) fn curl(&self, words: &str) -> Result<String> {
        let (who, words) = match words.split_once(' ') {
            Some(("proxy", rest)) => (RunAs::Proxy, rest),
            Some((id, rest)) if id.parse::<u32>().is_ok() => (RunAs::Id(id.parse()?), rest),
            _ => (RunAs::Application, words),
        };
        let limits = [
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--connect-timeout",
            "1",
            "--max-time",
            "20",
        ];
        let arguments = limits.into_iter().chain(words.split(' '));
        let finished = self.client.try_run(who, "curl", arguments)?;
        Ok(match finished.status.code() {
            Some(0) => finished.text(),
            code => format!("curl {}", code.unwrap_or(-1)),
        })
    }

    /// With the pod's namespace, as JSON. The registry may take a moment to have changed.
    pub(crate) fn until_said(&self, words: &str, is_it: impl Fn(&Said) -> bool) -> Result<Said> {
        let words = format!("{words} -o json");
        let mut last = None;
        let _ = until(std::time::Duration::from_secs(8), "it", || {
            let said = self.explain_as(&words).ok()?;
            let done = is_it(&said);
            last = Some(said);
            done.then_some(())
        });
        last.context("weir explain did not run")
    }

    /// With the pod's namespace, as it is printed.
    pub(crate) fn explain_as(&self, words: &str) -> Result<Said> {
        self.explain_raw(&format!("--from netns:{} {words}", self.client.path()))
    }

    pub(crate) fn explain_raw(&self, words: &str) -> Result<Said> {
        explain(words)
    }
}

/// Where the test runs, as it is printed.
pub(crate) fn explain(words: &str) -> Result<Said> {
    let output = std::process::Command::new(binary()?)
        .arg("explain")
        .args(words.split(' ').filter(|word| !word.is_empty()))
        .env_remove("XDG_RUNTIME_DIR")
        .output()?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    // Writing to a string cannot fail.
    let _ = write!(text, "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(!text.is_empty(), "it said nothing");
    Ok(Said {
        status: output.status.code().unwrap_or(-1),
        text,
    })
}

fn unready(pod: &Pod) -> String {
    let service = Service::new(
        "unready",
        &e2e::mesh::addresses(UNREADY),
        &[Port::new("http", 80, 8080)],
    );
    let ready = "ready: true, serving: true, terminating: false";
    let unready = "ready: false, serving: false, terminating: false";
    let slices = service.slices(&[pod]).concat().replace(ready, unready);
    service.yaml() + &slices
}

/// Its slices have the port by another name.
fn misnamed(pod: &Pod) -> String {
    let ports = [Port::new("http", 80, 8080), Port::new("metrics", 9090, 8080)];
    let service = Service::new("misnamed", &e2e::mesh::addresses(MISNAMED), &ports);
    let slices = service
        .slices(&[pod])
        .concat()
        .replace("name: 'http'", "name: 'web'");
    service.yaml() + &slices
}
