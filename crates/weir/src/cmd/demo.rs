//! `weir demo`: a small mesh in namespaces of its own. It sends real requests, shows one of them hop by
//! hop, kills an endpoint under load, and says what was measured. Exit code 0 only where all was proven.

mod app;
mod client;
mod load;
mod mesh;
mod show;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use diagnose::journey::{Hop, Style, chain};
use model::event::{Event, Step};
use model::{Direction, ErrorName};
use netsys::{contain, terminal};
use runtime::telemetry;

use crate::errors::{OrNamed, named};
use load::Account;
use mesh::{Mesh, Pod};
use show::{Proof, chapter, indent, join, say, table, the_mesh, verdict};

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

/// One request in each family: of the first, every hop is shown.
fn one_request(style: &Style, mesh: &mut Mesh) -> Result<Vec<Proof>> {
    say(&chapter(style, "2  One request, hop by hop"))?;
    let (text, mut proofs) = request(style, mesh, mesh::SERVICE)?;
    say(&text)?;
    if let [_, v6] = *mesh.services() {
        let (_, also) = request(style, mesh, v6)?;
        let failed: Vec<String> = also
            .iter()
            .filter(|proof| !proof.holds)
            .map(|proof| proof.text.clone())
            .collect();
        proofs.push(Proof {
            holds: failed.is_empty(),
            text: match &failed[..] {
                [] => format!(
                    "all three hold for IPv6 too: {v6}, the server's pod, {}",
                    model::ports::PASSTHROUGH_V6
                ),
                failed => format!("by IPv6: {}", failed.join("; ")),
            },
        });
    }
    Ok(proofs)
}

/// Sends one request from the first client to an address of the service: what happened, hop by hop, and
/// what that proves.
fn request(style: &Style, mesh: &mut Mesh, to: SocketAddr) -> Result<(String, Vec<Proof>)> {
    let from = mesh
        .pods()
        .first()
        .or_named(ErrorName::Defect, "the mesh has no pod")?;
    let call = client::call(&from.netns, to, "/hello")?;
    let (seen_at, app_saw, served_by) = (call.answer.served_at(), call.answer.peer(), call.answer.pod());
    let name = from.name;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "   {}\n",
        indent(style, &format!("{name}$ {}", call.what), 3)
    );
    let mut hops = vec![Hop::new(call.begun, name, "app", format!("starts, to call {to}"))];
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

    let outbound = captured(&all, name, Direction::Outbound);
    let inbound = captured(&all, &served_by, Direction::Inbound);
    let endpoint = mesh
        .pods()
        .iter()
        .find(|pod| pod.name == served_by)
        .and_then(|pod| pod.endpoint(to));
    let proxy: IpAddr = match to {
        SocketAddr::V4(_) => model::ports::PASSTHROUGH_V4.into(),
        SocketAddr::V6(_) => model::ports::PASSTHROUGH_V6.into(),
    };
    let proofs = vec![
        Proof {
            holds: outbound == Some(to),
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
            holds: app_saw == proxy.to_string() && call.answer.status == 200,
            text: format!(
                "the application answered {} and saw its own proxy ({app_saw})",
                call.answer.status
            ),
        },
    ];
    Ok((text, proofs))
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
    // Each client has a family of its own, where there are two.
    let services = mesh.services();
    let to = [services.first(), services.last()].map(|to| to.copied().unwrap_or(mesh::SERVICE));
    let mut targets = to.into_iter();
    let callers = mesh
        .clients()?
        .map(|pod| (pod.netns.try_clone(), targets.next().unwrap_or(mesh::SERVICE)));
    let (kill, accounts) = thread::scope(|scope| -> Result<_> {
        let start = Instant::now();
        let callers =
            callers.map(|(netns, to)| scope.spawn(move || load::steady(&netns?, to, RATE, start, LOAD)));
        thread::sleep(KILL_AFTER);
        let kill = start.elapsed();
        mesh.kill(VICTIM)?;
        let mut accounts = vec![];
        for caller in callers {
            let account = caller
                .join()
                .map_err(|_| named(ErrorName::Defect, "a client panicked; please report this"))?;
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
            text: format!(
                "requests were balanced over three endpoints: {}",
                join(&before, ", ")
            ),
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
