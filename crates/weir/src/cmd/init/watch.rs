//! `--services --watch`: the explicit mode. Exactly the addresses and ports of services are captured, and this
//! process keeps the rules up to date. Ctrl-C takes them out. SIGTERM, by which a container or a unit is stopped
//! and started anew, leaves them: what was captured does not go past the proxy meanwhile, and the next run takes over.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use model::problem::Problem;
use model::{ErrorName, ServiceKind};
use netsys::rules::{Done, Session};
use registry::Snapshot;
use rules::{Intent, Plan};
use tokio::signal::unix::{SignalKind, signal};

use super::{Args, foreign, may_write, notes, planned, report, say};
use crate::errors::{self, OrNamed, fail};

/// How often it looks whether all is still there, besides at each change of the folder and at SIGHUP.
const LOOK: Duration = Duration::from_secs(30);
/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Said at SIGTERM.
const LEFT: &str = "\
The rules stay, so that nothing escapes until the next run; new services are missed meanwhile.
To take them out: weir init --cleanup
";

pub(super) fn run(args: &Args, mut intent: Intent, folder: &Path) -> Result<()> {
    if !args.what.watch {
        fail!(
            CaptureMode,
            "--services: services change, and rules that nobody keeps up to date would miss the new ones without a \
             word; give --watch too, and let this process run, or name networks with -i"
        );
    }
    may_write()?;
    let (mut snapshots, manifests) = discovery::start_manifests(folder.to_owned(), None)?;
    let mut problems = manifests.watch_problems();
    let mut told = tell_new(&[], &problems.borrow_and_update());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).or_named(ErrorName::System, "cannot catch signals")?;
        let mut hang_up = signal(SignalKind::hangup()).or_named(ErrorName::System, "cannot catch signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).or_named(ErrorName::System, "cannot catch signals")?;
        let (mut held, mut in_the_way) = (false, vec![]);
        let takes_out = loop {
            let snapshot = snapshots.borrow_and_update().clone();
            intent.outbound.services = Some(services(&snapshot));
            match install(args, &intent) {
                Ok((plan, session, done)) => {
                    let choices = session.choices(&plan.families)?;
                    if !held {
                        notes(&plan);
                        say(&report::installed(&intent, &plan, &choices, &done))?;
                    } else if done.changed {
                        say(&format!("Now {}.\n", report::outbound(&intent)))?;
                    }
                    held = true;
                    let now = foreign::in_the_way(&session, &intent, &plan, &choices);
                    foreign::warn(&now, &in_the_way);
                    in_the_way = now;
                }
                Err(error) if !held => return Err(error),
                Err(error) => {
                    errors::print("weir: the rules are not up to date, trying again", &error);
                    snapshots.mark_changed();
                    tokio::time::sleep(AGAIN).await;
                }
            }
            tokio::select! {
                changed = snapshots.changed() => changed.or_named(ErrorName::ManifestFolder, "the manifests are no longer watched")?,
                changed = problems.changed() => {
                    changed.or_named(ErrorName::ManifestFolder, "the manifests are no longer watched")?;
                    told = tell_new(&told, &problems.borrow_and_update());
                }
                // Others may have changed the rules.
                () = tokio::time::sleep(LOOK) => {}
                _ = hang_up.recv() => {}
                _ = terminate.recv() => break false,
                _ = interrupt.recv() => break true,
            }
        };
        if !takes_out {
            return say(LEFT);
        }
        Session::open(None)?.remove()?;
        say("Taken out: nobody keeps the rules up to date any more.\n")
    })
}

/// Those of a folder, read once.
pub(super) fn services_of(folder: &Path) -> Result<Vec<SocketAddr>> {
    let (snapshots, _manifests) = discovery::start_manifests_briefly(folder.to_owned(), None)?;
    let all = services(&snapshots.borrow());
    Ok(all)
}

/// Prints what was not told before. Answers with what is told now: what is mended and comes again is told again.
fn tell_new(told: &[Problem], now: &[Problem]) -> Vec<Problem> {
    for problem in now.iter().filter(|problem| !told.contains(problem)) {
        eprintln!("weir: note: {problem}");
    }
    now.to_vec()
}

fn install(args: &Args, intent: &Intent) -> Result<(Plan, Session, Done)> {
    let session = Session::open(args.action.backend()?)?;
    let plan = planned(intent, &session)?;
    let done = session.install(&plan)?;
    Ok((plan, session, done))
}

/// Where clients connect to: virtual addresses, and endpoints where a service has none.
fn services(snapshot: &Snapshot) -> Vec<SocketAddr> {
    let headless = snapshot.by_endpoint.iter().filter(|(_, (cluster, _))| {
        let service = snapshot.services.get(&cluster.service);
        service.is_some_and(|service| service.kind == ServiceKind::Headless)
    });
    let all: BTreeSet<SocketAddr> = snapshot
        .by_vip
        .iter()
        .map(|(address, _)| *address)
        .chain(headless.map(|(address, _)| *address))
        .collect();
    all.into_iter().collect()
}
