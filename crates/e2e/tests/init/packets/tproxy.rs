//! Inbound TPROXY with a stand-in for the proxy, in both kinds: what a connection meets on its whole way, through
//! the proxy to the application and back; and each rule, taken out of the kernel, changes it.

mod stage;

use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use netsys::rules::Backend;
use rules::Family;
use rules::ruleset::Ruleset;
use socket2::Socket;

use self::stage::{Probe, Stage};
use super::settings::setting;
use super::{BACKENDS, install, put, without_each};

/// Every clause of TPROXY has something to say.
const FLAGS: &str =
    "--sidecar -m TPROXY -u 1337 -g 1337 -o 22 -c eth1 -k eth2 --sources 10.77.200.1,fd00:77::200:1";
const KINDS: [&str; 2] = ["on", "off"];
/// After this long a connection has failed, unless it succeeds when it is tried again with more.
const PATIENCE: Duration = Duration::from_secs(1);
const TRIES: u32 = 5;
/// The rule without which TPROXY finds the same socket again, and the packet is routed once more.
const SPARES: &str = "goes on to the proxy";
/// What rules are for that leave alone what opens no connection.
const ABOUT_OPEN_ONES: [&str; 3] = [
    "opens no connection",
    "goes on with a connection",
    "has a socket here",
];
/// Of open connections: one for all rules, and one for each rule that is about them.
const SETS: usize = 5;

/// Those that fare otherwise than with all rules, also with more patience.
fn surprised<'a>(stage: &Stage, probes: &[&'a Probe], tries: u32) -> Result<Vec<(&'a Probe, String)>> {
    let mut left: Vec<_> = probes.iter().map(|probe| (*probe, String::new())).collect();
    for patience in (0..tries).map(|so_far| PATIENCE * 2_u32.pow(so_far)) {
        let asked: Vec<_> = left.iter().map(|(probe, _)| *probe).collect();
        let outcomes = stage.send(&asked, patience)?;
        left = asked.into_iter().zip(outcomes).collect();
        left.retain(|(probe, outcome)| probe.expected != *outcome);
        if left.is_empty() {
            break;
        }
    }
    Ok(left)
}

fn all_as_expected(stage: &Stage, probes: &[Probe], what: &str) -> Result<()> {
    let surprised = surprised(stage, &probes.iter().collect::<Vec<_>>(), TRIES)?;
    let surprised = surprised
        .iter()
        .map(|(probe, outcome)| format!("{probe}: {outcome}"));
    let surprised: Vec<_> = surprised.collect();
    ensure!(surprised.is_empty(), "{what}:\n{}", surprised.join("\n"));
    Ok(())
}

/// The rule sets without one rule each, the same in both families, and which it is.
fn without_each_of_both(held: &[Ruleset]) -> Result<Vec<(String, Vec<Ruleset>)>> {
    let all = without_each(held);
    let (v4, v6) = all.split_at(all.len() / 2);
    let both = v4
        .iter()
        .zip(v6)
        .map(|((rule, without_v4), (of_v6, without_v6))| {
            let purpose = |rule: &str| rule.split_once("weir: ").map(|(_, purpose)| purpose.to_owned());
            let are_alike = held.len() == 2 && rule.starts_with("IPv4") && purpose(rule) == purpose(of_v6);
            ensure!(are_alike, "{rule} has no {of_v6}");
            let both = vec![without_v4[0].clone(), without_v6[1].clone()];
            Ok((rule.clone(), both))
        });
    both.collect()
}

/// One kind on one back-end, with all of its rules in the kernel.
struct Installed {
    stage: Stage,
    backend: Backend,
    what: String,
    held: Vec<Ruleset>,
    probes: Vec<Probe>,
    /// How open connections fare.
    open: Vec<String>,
}

impl Installed {
    fn set(backend: Backend, kind: &str) -> Result<Self> {
        let mut stage = Stage::set()?;
        stage.open_some(SETS)?;
        let setting = setting(format!("{FLAGS} --conntrack {kind}"), 1);
        let held = install(&stage.pod, &setting, backend)?;
        let open = stage.open_ones_fare(PATIENCE * 20)?;
        let what = format!("{backend}, conntrack {kind}");
        ensure!(
            open.iter()
                .all(|how| how.contains("goes on: true, tracked: true")),
            "{what}: {open:?}"
        );
        let probes = stage.probes(kind == "on")?;
        all_as_expected(&stage, &probes, &what)?;
        Ok(Self {
            stage,
            backend,
            what,
            held,
            probes,
            open,
        })
    }

    fn put(&self, rulesets: &[Ruleset]) -> Result<()> {
        put(&self.stage.pod, self.backend, rulesets)
    }

    /// In which families something changes without that rule.
    fn changed(&mut self, rule: &str, without: &[Ruleset]) -> Result<[bool; 2]> {
        self.put(without)?;
        if rule.contains(SPARES) {
            return Ok([true; 2]);
        }
        if ABOUT_OPEN_ONES.iter().any(|purpose| rule.contains(purpose)) {
            let now = self.stage.open_ones_fare(PATIENCE)?;
            let differs = |one: usize| now[one] != self.open[one];
            return Ok([0, 1].map(|family| (family..now.len()).step_by(2).any(differs)));
        }
        let all: Vec<_> = self.probes.iter().collect();
        let mut changed = surprised(&self.stage, &all, 2)?;
        if changed.is_empty() {
            // A first packet that is kept from conntrack, while a later one is not.
            self.stage.take_up(true)?;
            changed = surprised(&self.stage, &all, 2)?;
            self.stage.take_up(false)?;
        }
        Ok(Family::ALL.map(|family| changed.iter().any(|(probe, _)| probe.family() == family)))
    }

    /// In which families something gets to the application, now that there is no proxy.
    fn past(&self) -> Result<[bool; 2]> {
        let captured = self.probes.iter();
        let captured: Vec<_> = captured
            .filter(|probe| probe.expected.starts_with("proxied"))
            .collect();
        let outcomes = self.stage.send(&captured, PATIENCE)?;
        let past = captured
            .iter()
            .zip(outcomes)
            .filter(|(_, outcome)| outcome != "fails");
        let past: Vec<_> = past.map(|(probe, _)| probe.family()).collect();
        Ok(Family::ALL.map(|family| past.contains(&family)))
    }

    /// In which families a handshake that the proxy has begun ends at the application.
    fn completed(&self, half_open: &[Socket]) -> Result<[bool; 2]> {
        let completed = self.stage.let_through(half_open, PATIENCE * 10)?;
        let (v4, v6) = completed.split_at(half_open.len() / 2);
        Ok([v4, v6].map(|completed| completed.contains(&true)))
    }
}

/// Takes out one rule after the other, and answers how many there were.
fn each_rule_counts(backend: Backend, kind: &str) -> Result<usize> {
    let mut installed = Installed::set(backend, kind)?;
    let rules = without_each_of_both(&installed.held)?;
    let (without_proxy, others): (Vec<_>, Vec<_>) =
        rules.iter().partition(|(rule, _)| rule.contains("; no proxy"));
    let mut changed = vec![];
    for (rule, without) in others {
        changed.push((rule, installed.changed(rule, without)?));
    }
    installed.put(&installed.held)?;
    all_as_expected(&installed.stage, &installed.probes, &installed.what)?;
    let half_open = installed.stage.half_open()?;
    installed.stage.stop_proxy()?;
    ensure!(
        installed.past()? == [false; 2],
        "{}: it gets past no proxy",
        installed.what
    );
    for (rule, without) in without_proxy {
        installed.put(without)?;
        let is_about_first = !rule.contains("of a captured connection");
        changed.push((
            rule,
            match is_about_first {
                true => installed.past()?,
                false => installed.completed(&half_open)?,
            },
        ));
    }
    changed.retain(|(_, changed)| *changed != [true; 2]);
    ensure!(
        changed.is_empty(),
        "{}: nothing changes without {changed:#?}",
        installed.what
    );
    Ok(rules.len())
}

#[test]
fn each_rule_of_tproxy_taken_out_of_the_kernel_changes_what_a_connection_meets() -> Result<()> {
    let each = BACKENDS
        .into_iter()
        .flat_map(|backend| KINDS.map(|kind| (backend, kind)));
    // Side by side, as most of the time goes into waiting for what does not come.
    let started: Vec<_> = each
        .map(|(backend, kind)| thread::spawn(move || each_rule_counts(backend, kind)))
        .collect();
    let mut rules = 0;
    for one in started {
        rules += one
            .join()
            .map_err(|_| anyhow!("a kind on a back-end panicked"))??;
    }
    println!(
        "{rules} rules of TPROXY, each of which changes in both families what a connection meets in the kernel"
    );
    Ok(())
}
