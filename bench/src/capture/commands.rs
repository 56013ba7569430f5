//! How long `weir init` takes from its start to its end.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use e2e::{Pod, weir};

use super::{Table, cell};

const BACKENDS: [&str; 3] = ["nft", "iptables-nft", "iptables-legacy"];
const NETWORKS: u32 = 10_000;

/// What is run in turn: its name, and its arguments without the back-end.
type Step = (&'static str, Vec<String>);

/// A pod as a container runtime makes it.
fn pod() -> Result<Pod> {
    let pod = Pod::bare("pod", "10.77.0.1".parse()?, "fd00:77::1".parse()?)?;
    pod.ip("link set lo up")?;
    pod.ip("link add eth0 type veth peer name other")?;
    pod.ip("link set eth0 up")?;
    pod.ip("link set other up")?;
    pod.ip("addr add 10.77.0.1/16 dev eth0")?;
    pod.ip("addr add fd00:77::1/64 dev eth0 nodad")?;
    Ok(pod)
}

/// Milliseconds until it has ended.
fn time(pod: &Pod, mut command: Command, input: &Path) -> Result<f64> {
    command
        .stdin(File::open(input)?)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    pod.netns().start_in(&mut command);
    let start = Instant::now();
    let output = command.spawn()?.wait_with_output()?;
    let took = start.elapsed();
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(took.as_secs_f64() * 1e3)
}

/// Both tables.
pub(super) fn measure(rounds: usize) -> Result<[Table; 2]> {
    let dir = tempfile::tempdir()?;
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let sidecar = [
        ("fresh", words("--sidecar")),
        ("unchanged", words("--sidecar")),
        ("replaced", words("--sidecar -o 22")),
        ("cleanup", words("--cleanup")),
    ];
    let config = |count| -> Result<Vec<String>> {
        let path = networks(dir.path(), count)?;
        Ok(vec!["--config".to_owned(), path.display().to_string()])
    };
    let lists = [
        ("fresh", config(NETWORKS)?),
        ("unchanged", config(NETWORKS)?),
        ("replaced", config(NETWORKS - 1)?),
        ("cleanup", words("--cleanup")),
    ];
    Ok([
        Table {
            title: "`weir init --sidecar`, milliseconds",
            about: "From its start to its end, in a namespace with IPv4 and IPv6. *Replaced* is by one more excluded port. The \
                    last column is the floor of *fresh*: the program (`nft -f -`, or `iptables-restore` for each family) \
                    alone with the same rules. Where nf_tables has deleted anything, a rule as well as a table, closing a \
                    netlink socket of the packet filter waits until the kernel may free it, one grace period of RCU (5 to 20 \
                    ms on this kernel), so one is the floor of *replaced* and *cleanup*; to flush a chain and refill it \
                    waits as long (tried), and only adding does not.",
            columns: columns(),
            rows: rows(rounds, &sidecar, dir.path())?,
        },
        Table {
            title: "The same with 10,000 excluded networks, milliseconds",
            about: "*Replaced* is by one network less.",
            columns: columns(),
            rows: rows(rounds, &lists, dir.path())?,
        },
    ])
}

fn columns() -> Vec<&'static str> {
    vec!["fresh", "unchanged", "replaced", "cleanup", "rules alone"]
}

/// A sidecar with that many excluded networks, no two of which touch.
fn networks(dir: &Path, count: u32) -> Result<PathBuf> {
    let path = dir.join(format!("{count}.yaml"));
    let mut file = File::create(&path)?;
    writeln!(file, "sidecar: true\noutbound:\n  excludeCidrs:")?;
    for number in 0..count {
        let address = std::net::Ipv4Addr::from_bits(0x0b00_0000 + number * 2);
        writeln!(file, "  - {address}/32")?;
    }
    Ok(path)
}

fn rows(rounds: usize, steps: &[Step], dir: &Path) -> Result<Vec<(String, Vec<String>)>> {
    let mut rows = vec![];
    for backend in BACKENDS {
        eprintln!("weir init {} --backend {backend}", steps[0].1.join(" "));
        let mut samples = vec![vec![]; steps.len() + 1];
        for _ in 0..rounds {
            let pod = pod()?;
            for (number, (name, arguments)) in steps.iter().enumerate() {
                let took = init(&pod, arguments, backend).with_context(|| format!("{backend}, {name}"))?;
                samples[number].push(took);
            }
            samples[steps.len()].push(floor(&steps[0].1, backend, dir)?);
        }
        rows.push((
            backend.to_owned(),
            samples.iter().map(|samples| cell(samples)).collect(),
        ));
    }
    Ok(rows)
}

fn init(pod: &Pod, arguments: &[String], backend: &str) -> Result<f64> {
    let mut command = Command::new(weir::binary()?);
    command.arg("init").args(arguments);
    if !arguments.iter().any(|argument| argument == "--cleanup") {
        command.args(["--backend", backend]);
    }
    time(pod, command, Path::new("/dev/null"))
}

/// The program of the back-end alone, with the rules that `weir init` would write into a new namespace.
fn floor(arguments: &[String], backend: &str, dir: &Path) -> Result<f64> {
    let pod = pod()?;
    let mut all = vec!["init", "--dry-run", "--backend", backend];
    all.extend(arguments.iter().map(String::as_str));
    let text = weir::run(&pod, &all)?.text();
    let input = dir.join("rules");
    if backend == "nft" {
        std::fs::write(&input, text)?;
        let mut command = Command::new("nft");
        command.args(["-f", "-"]);
        return time(&pod, command, &input);
    }
    let variant = backend.trim_start_matches("iptables-");
    let (v4, v6) = text.split_once("# IPv6\n").context("rules of both families")?;
    let mut took = 0.0;
    for (program, rules) in [("iptables", v4), ("ip6tables", v6)] {
        std::fs::write(&input, rules)?;
        let mut command = Command::new(format!("{program}-{variant}-restore"));
        command.arg("--noflush");
        took += time(&pod, command, &input)?;
    }
    Ok(took)
}
