//! `weir demo`: a small mesh in namespaces of its own. It sends real requests, shows one of them hop by
//! hop, kills an endpoint under load, and says what was measured. Exit code 0 only where all was proven.

mod app;
mod client;
mod load;
mod mesh;
mod names;
mod request;
mod resolver;
mod show;

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use diagnose::journey::Style;
use model::ErrorName;
use model::event::Step;
use netsys::{contain, terminal};
use rules::Family;
use runtime::telemetry;

use crate::errors::named;
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
    /// Play the cluster's resolver (likewise)
    #[arg(long, hide = true)]
    resolve: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if let Some(name) = &args.serve {
        return app::serve(name);
    }
    if args.resolve {
        return resolver::serve();
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
    let level = telemetry::start(telemetry::Format::Text, &filter, crate::LOGGING)?;

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
    let mut proofs = request::by_name(&style, &mut mesh)?;
    proofs.extend(under_load(&style, &mut mesh)?);
    mesh.stop()?;
    say(&verdict(&style, &proofs, begun.elapsed()))?;
    Ok(ExitCode::from(u8::from(!proofs.iter().all(|proof| proof.holds))))
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
    let mut families = [services.first(), services.last()]
        .into_iter()
        .flatten()
        .map(|to| Family::of(to.ip()));
    let callers = mesh
        .clients()?
        .map(|pod| (pod.netns.try_clone(), families.next().unwrap_or(Family::V4)));
    let (kill, accounts) = thread::scope(|scope| -> Result<_> {
        let start = Instant::now();
        let callers = callers
            .map(|(netns, family)| scope.spawn(move || load::steady(&netns?, family, RATE, start, LOAD)));
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
