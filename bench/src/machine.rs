//! The facts a reader needs to judge the figures: machine, kernel, programs, date.

use std::fs;
use std::process::{self, Command};

use anyhow::{Result, ensure};
use e2e::weir;

/// Lines of `name: value`, in the order of the report.
pub(crate) fn facts() -> Vec<(&'static str, String)> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": "))
            .map_or("unknown", |(_, value)| value)
            .to_owned()
    };
    let cores = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or(0);
    let weir = weir::binary().map_or_else(
        |error| format!("{error:#}"),
        |path| first_line(&path.to_string_lossy(), &["--version"]),
    );
    vec![
        ("date", first_line("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        (
            "machine",
            format!("{cores} x {}, {} GiB", field("model name"), kib >> 20),
        ),
        ("kernel", first_line("uname", &["-sr"])),
        (
            "congestion control of the machine",
            first_line("cat", &["/proc/sys/net/ipv4/tcp_congestion_control"]),
        ),
        ("weir", weir),
        ("haproxy", first_line("haproxy", &["-v"])),
        ("nginx", first_line("nginx", &["-v"])),
        ("iperf3", first_line("iperf3", &["--version"])),
        ("h2load", first_line("h2load", &["--version"])),
        ("unbound", first_line("unbound", &["-V"])),
        ("coredns", first_line("coredns", &["-version"])),
    ]
}

/// The first line a command says on either stream.
fn first_line(program: &str, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else {
        return "not installed".to_owned();
    };
    let both = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&both)
        .lines()
        .next()
        .unwrap_or("silent")
        .to_owned()
}

/// Puts this process and all that it will start into the real-time class, so that a compiler on the same
/// cores waits for a wake-up instead of the other way round.
pub(crate) fn take_precedence() -> Result<()> {
    let own = process::id().to_string();
    let done = Command::new("chrt").args(["--rr", "-p", "1", &own]).status()?;
    ensure!(done.success(), "chrt failed: are you root?");
    Ok(())
}
