//! `weir demo`: a small mesh in namespaces of its own. It sends real requests, shows one of them hop by
//! hop, kills an endpoint under load, and says what was measured. Exit code 0 only where all was proven.

mod app;
mod client;
mod load;
mod mesh;

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use diagnose::journey::{Hop, Style, chain, elapsed};
use model::Direction;
use model::event::{Event, Step};
use netsys::{contain, terminal};
use runtime::telemetry;

use load::Account;
use mesh::{Mesh, Pod};

/// How long the clients call.
const LOAD: Duration = Duration::from_secs(3);
/// When the endpoint is killed.
const KILL_AFTER: Duration = Duration::from_secs(1);
/// Requests a second of each client.
const RATE: u32 = 100;
/// The server pod that is killed.
const VICTIM: &str = "web-2";

/// Show what Weir does, in a few seconds, on a small mesh of its own
///
/// Two client pods and a service of three server pods, each a network namespace with a sidecar. Needs
/// no root where user namespaces are allowed, touches nothing outside its own namespaces, and leaves nothing
/// behind: all of it goes with the process.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Play the application of a server pod (the demo starts itself so)
    #[arg(long, hide = true, value_name = "POD")]
    serve: Option<String>,
}

/// Something that was shown, or was not.
struct Proof {
    holds: bool,
    text: String,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if let Some(name) = &args.serve {
        return app::serve(name);
    }
    let out = std::io::stdout();
    let columns = terminal::columns(&out);
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let style = Style::new(
        Some(columns.unwrap_or(100).min(100)),
        columns.is_some() && !no_colour,
    );
    contain::enter_alone()?;
    let filter = std::env::var("WEIR_LOG").unwrap_or_else(|_| String::from("error"));
    let level = telemetry::start(telemetry::Format::Text, &filter)?;

    say(&format!(
        "{}\n{}\n",
        style.title("Weir demo"),
        indent(
            &style,
            "A mesh in namespaces of its own. Nothing outside is touched; everything shown is measured.",
            0
        )
    ))?;
    let begun = Instant::now();
    let mut mesh = Mesh::start(&level)?;
    say(&the_mesh(&style, &mesh, begun.elapsed()))?;
    let mut proofs = one_request(&style, &mut mesh)?;
    proofs.extend(under_load(&style, &mut mesh)?);
    mesh.stop()?;
    say(&verdict(&style, &proofs, begun.elapsed()))?;
    Ok(ExitCode::from(u8::from(!proofs.iter().all(|proof| proof.holds))))
}

fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("cannot write to standard output")
}

fn chapter(style: &Style, title: &str) -> String {
    let rule = "─".repeat(style.columns().saturating_sub(title.chars().count() + 1));
    format!("\n{} {}\n", style.title(title), style.quiet(&rule))
}

/// A text wrapped below an indentation.
fn indent(style: &Style, text: &str, by: usize) -> String {
    let lines = style.wrap(text, by);
    lines.join(&format!("\n{:by$}", ""))
}

fn the_mesh(style: &Style, mesh: &Mesh, took: Duration) -> String {
    let pods = |role: &str| {
        let of = mesh.pods().iter().filter(|pod| pod.name.starts_with(role));
        of.map(|pod| format!("{} {}", pod.name, pod.address))
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
                "{} at {}, port name http, to port {} of the servers",
                mesh::HOST,
                mesh::SERVICE,
                mesh::APP_PORT
            ),
        ),
        (
            "capture",
            format!(
                "{rules} rules in each pod (IPv4 and IPv6), as weir init --sidecar --proxy-mark {} writes them",
                mesh::MARK_TEXT
            ),
        ),
        (
            "sidecars",
            format!(
                "one in each pod: outbound {}, inbound {}",
                model::ports::OUTBOUND,
                model::ports::INBOUND
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

/// Sends one request from the first client and shows every hop of it.
fn one_request(style: &Style, mesh: &mut Mesh) -> Result<Vec<Proof>> {
    let from = mesh.pods().first().context("the mesh has pods")?;
    let call = client::call(&from.netns, mesh::SERVICE, "/hello")?;
    let (seen_at, app_saw, served_by) = (call.answer.served_at(), call.answer.peer(), call.answer.pod());
    let name = from.name;
    let mut text = chapter(style, "2  One request, hop by hop");
    let _ = writeln!(
        text,
        "   {}\n",
        indent(style, &format!("{name}$ {}", call.what), 3)
    );
    let mut hops = vec![Hop::new(
        call.begun,
        name,
        "app",
        format!("starts, to call {}", mesh::SERVICE),
    )];
    let mut all: Vec<(&'static str, Event)> = vec![];
    for pod in mesh.pods_mut() {
        let name = pod.name;
        let told = pod.told_until_quiet();
        hops.extend(told.iter().flat_map(|event| Hop::told(name, event, &pod.rule_of)));
        all.extend(told.into_iter().map(|event| (name, event)));
    }
    hops.push(Hop::new(
        seen_at,
        &served_by,
        "app",
        format!("answers; it was called from {app_saw}"),
    ));
    hops.push(Hop::new(
        call.ended,
        name,
        "app",
        format!(
            "has status {} and {:?}",
            call.answer.status,
            call.answer.body.trim()
        ),
    ));
    text.push_str(&chain(style, hops));
    say(&text)?;

    let outbound = captured(&all, name, Direction::Outbound);
    let inbound = captured(&all, &served_by, Direction::Inbound);
    let endpoint = mesh
        .pods()
        .iter()
        .find(|pod| pod.name == served_by)
        .map(Pod::endpoint);
    Ok(vec![
        Proof {
            holds: outbound == Some(mesh::SERVICE),
            text: format!(
                "the client's connection was captured: its proxy read the destination {}",
                or_none(outbound)
            ),
        },
        Proof {
            holds: endpoint.is_some() && inbound == endpoint,
            text: format!("the server's was too: its proxy read {}", or_none(inbound)),
        },
        Proof {
            holds: app_saw == model::ports::PASSTHROUGH_V4.to_string() && call.answer.status == 200,
            text: format!(
                "the application answered {} and saw its own proxy ({app_saw})",
                call.answer.status
            ),
        },
    ])
}

/// The destination of the first connection that a proxy captured.
fn captured(all: &[(&'static str, Event)], at: &str, way: Direction) -> Option<SocketAddr> {
    all.iter()
        .filter(|(place, _)| *place == at)
        .find_map(|(_, event)| match &event.step {
            Step::Captured {
                direction,
                original_dst,
                ..
            } if *direction == way => Some(original_dst.socket()),
            _ => None,
        })
}

fn or_none(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| String::from("nothing"), |address| address.to_string())
}

/// Both clients call at a steady rate while the application of one server is killed.
fn under_load(style: &Style, mesh: &mut Mesh) -> Result<Vec<Proof>> {
    let title = format!(
        "3  {} requests a second, and {VICTIM} killed on the way",
        2 * RATE
    );
    say(&chapter(style, &title))?;
    let callers = mesh.clients()?.map(|pod| pod.netns.try_clone());
    let (kill, accounts) = thread::scope(|scope| -> Result<_> {
        let start = Instant::now();
        let callers =
            callers.map(|netns| scope.spawn(move || load::steady(&netns?, mesh::SERVICE, RATE, start, LOAD)));
        thread::sleep(KILL_AFTER);
        let kill = start.elapsed();
        mesh.kill(VICTIM)?;
        let mut accounts = vec![];
        for caller in callers {
            let account = caller
                .join()
                .map_err(|_| anyhow!("a client panicked; please report this"))?;
            accounts.push(account?);
        }
        Ok((kill, accounts))
    })?;
    let account = Account::of(accounts);
    let retries = mesh
        .pods_mut()
        .iter_mut()
        .flat_map(Pod::told_until_quiet)
        .filter(|event| matches!(event.step, Step::TryFailed { retry: true, .. }))
        .count();
    say(&table(style, mesh, &account, kill))?;
    let before: Vec<u64> = mesh
        .servers()
        .map(|pod| account.served(pod.name, Duration::ZERO..kill))
        .collect();
    let after = |name: &str| account.served(name, kill..Duration::MAX);
    let others = mesh
        .servers()
        .filter(|pod| pod.name != VICTIM)
        .all(|pod| after(pod.name) > 0);
    Ok(vec![
        Proof {
            holds: before.iter().all(|&count| count > 0),
            text: format!("requests were balanced over three endpoints: {}", join(&before)),
        },
        Proof {
            holds: account.sent() > 0 && account.lost() == 0,
            text: format!("{} requests sent, {} lost", account.sent(), account.lost()),
        },
        Proof {
            // Without ejection it would be every other request.
            holds: others && retries > 0 && retries < account.sent() / 10,
            text: format!(
                "the clients' proxies met the dead endpoint {retries} times, tried another each time, then left it alone"
            ),
        },
    ])
}

fn join(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

fn table(style: &Style, mesh: &Mesh, account: &Account, kill: Duration) -> String {
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

fn verdict(style: &Style, proofs: &[Proof], took: Duration) -> String {
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
        let next = "Next: weir run --manifests DIR --journey -- curl http://SERVICE.NAMESPACE/";
        let _ = writeln!(text, "{}", style.quiet(&indent(style, next, 0)));
    }
    text
}
