//! What the demo prints: chapters, tables and the verdict.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use diagnose::journey::{Style, elapsed};
use model::ErrorName;

use super::VICTIM;
use super::load::Account;
use super::mesh::{self, Mesh};
use super::names;
use crate::errors::OrNamed;

/// Something that was shown, or was not.
pub(super) struct Proof {
    pub(super) holds: bool,
    pub(super) text: String,
}

pub(super) fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .or_named(ErrorName::Output, "cannot write to standard output")
}

pub(super) fn chapter(style: &Style, title: &str) -> String {
    let rule = "─".repeat(style.columns().saturating_sub(title.chars().count() + 1));
    format!("\n{} {}\n", style.title(title), style.quiet(&rule))
}

/// A text wrapped below an indentation.
pub(super) fn indent(style: &Style, text: &str, by: usize) -> String {
    let lines = style.wrap(text, by);
    lines.join(&format!("\n{:by$}", ""))
}

pub(super) fn the_mesh(style: &Style, mesh: &Mesh, took: Duration) -> String {
    let pods = |role: &str| {
        let of = mesh.pods().iter().filter(|pod| pod.name.starts_with(role));
        of.map(|pod| format!("{} {}", pod.name, join(&pod.addresses, " ")))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let rules = mesh.pods().first().map_or(0, |pod| pod.rules_count);
    let rows = [
        ("clients", pods("client")),
        ("servers", pods("web")),
        (
            "service",
            format!(
                "{}.{} at {}, port name http, to port {} of the servers",
                mesh::HOST,
                mesh::NAMESPACE,
                join(mesh.services(), " and "),
                mesh::APP_PORT
            ),
        ),
        (
            "capture",
            format!(
                "{rules} rules in each pod ({}), as weir init {} writes them",
                match mesh.services() {
                    [_, _] => "IPv4 and IPv6",
                    _ => "IPv4: this machine has no IPv6",
                },
                mesh::FLAGS
            ),
        ),
        (
            "sidecars",
            format!(
                "one in each pod: outbound {}, inbound {}, DNS {}",
                model::ports::OUTBOUND,
                model::ports::INBOUND,
                model::ports::DNS
            ),
        ),
        (
            "resolver",
            format!(
                "{}, in each pod's resolv.conf; it has never heard of {}",
                names::RESOLVER,
                mesh::HOST
            ),
        ),
        (
            "registry",
            String::from("a folder of Kubernetes manifests: Service, EndpointSlice, Pods"),
        ),
    ];
    let mut text = chapter(style, &format!("1  The mesh, up in {}", elapsed(took)));
    for (label, what) in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "   {:<9} {}", label, indent(style, &what, 13));
    }
    text
}

pub(super) fn join<T: ToString>(all: &[T], between: &str) -> String {
    all.iter().map(T::to_string).collect::<Vec<_>>().join(between)
}

pub(super) fn table(style: &Style, mesh: &Mesh, account: &Account, kill: Duration) -> String {
    let mut text = format!("   {:<22}{:>12}{:>12}\n", "", "before", "after");
    let (before, after) = (Duration::ZERO..kill, kill..Duration::MAX);
    for pod in mesh.servers() {
        let note = if pod.name == VICTIM {
            format!("   killed at {}", elapsed(kill))
        } else {
            String::new()
        };
        let [first, second] = [&before, &after].map(|time| account.served(pod.name, time.clone()));
        let _ = writeln!(
            text,
            "   {:<22}{first:>12}{second:>12}{}",
            format!("answered by {}", pod.name),
            style.quiet(&note)
        );
    }
    let [first, second] = [&before, &after].map(|time| account.lost_in(time.clone()));
    let _ = writeln!(text, "   {:<22}{first:>12}{second:>12}", "lost");
    for (label, share) in [
        ("latency, median", 0.5),
        ("latency, 99th of 100", 0.99),
        ("latency, longest", 1.0),
    ] {
        let [first, second] = [&before, &after].map(|time| {
            account
                .latency(share, time.clone())
                .map_or_else(String::new, elapsed)
        });
        let _ = writeln!(text, "   {label:<22}{first:>12}{second:>12}");
    }
    text
}

pub(super) fn verdict(style: &Style, proofs: &[Proof], took: Duration) -> String {
    let mut text = chapter(style, "4  Shown");
    for proof in proofs {
        let mark = if proof.holds {
            style.good("✓")
        } else {
            style.bad("✗")
        };
        let _ = writeln!(text, "   {mark} {}", indent(style, &proof.text, 5));
    }
    let failed = proofs.iter().filter(|proof| !proof.holds).count();
    let end = match failed {
        0 => format!(
            "All of it, in {}. The namespaces go with this process.",
            elapsed(took)
        ),
        failed => format!("{failed} of {} could not be shown.", proofs.len()),
    };
    let _ = writeln!(text, "\n{}", indent(style, &end, 0));
    if failed == 0 {
        let next = "Next: weir run --manifests examples/laptop --journey -- curl -sI http://hello/ (README.md has servers for it)";
        let _ = writeln!(text, "{}", style.quiet(&indent(style, next, 0)));
    }
    text
}
