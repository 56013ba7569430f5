//! The sets of services that rules of iptables name, in the calling thread's namespace: read, replaced without an
//! instant in which one is empty, and taken away, by the program `ipset`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rules::{Family, Installed, Ruleset, ipset};

use super::{Backend, Error, Own, program};

/// What each family's set is to hold, or holds.
pub(super) type Sets = Vec<(Family, Vec<SocketAddr>)>;

/// Those that these rules name.
pub(super) fn named_by(own: &Own) -> Sets {
    let by_iptables = own.rules.iter().filter(|(backend, _)| *backend != Backend::Nft);
    let sets = by_iptables.filter_map(|(_, rules)| Some((rules.family, ipset::wanted(rules)?.to_vec())));
    sets.collect()
}

/// Puts what the set holds into a dump that names it. Where it cannot be read the name stays, which is not known
/// to be anything.
pub(super) fn resolve(ruleset: &mut Ruleset) -> Result<(), Error> {
    if !ipset::is_named(ruleset) || !is_installed() {
        return Ok(());
    }
    if let Some(services) = held(ruleset.family)? {
        ipset::resolve(ruleset, &services);
    }
    Ok(())
}

/// Whether the program is there.
pub(super) fn is_installed() -> bool {
    program::on_path(PROGRAM).is_some()
}

/// Puts what sets of others hold into the rules that name them. Where the program is missing the names stay.
pub(super) fn fill_in(installed: &mut Installed) -> Result<(), Error> {
    if !ipset::names_unknown(installed.rules_mut().map(|rule| &*rule)) || program::on_path(PROGRAM).is_none()
    {
        return Ok(());
    }
    let sets = ipset::Sets::read(&run(&["save"], "")?);
    sets.put_into(installed.rules_mut());
    Ok(())
}

/// Says why there can be no sets, where there cannot.
pub(super) fn probe() -> Result<(), Error> {
    names().map(drop)
}

/// Makes the sets hold exactly these; answers whether they did not.
pub(super) fn put(sets: &Sets) -> Result<bool, Error> {
    if sets.is_empty() {
        return Ok(false);
    }
    let names = names()?;
    let is_there = |name: &str| names.iter().any(|known| known == name);
    let mut text = String::new();
    for (family, services) in sets {
        let there = is_there(ipset::name(*family));
        if there && held(*family)?.as_ref() == Some(services) {
            continue;
        }
        let left = is_there(ipset::next_name(*family));
        text.push_str(&ipset::restore(*family, services, there, left));
    }
    if !text.is_empty() {
        run(&["restore"], &text)?;
    }
    Ok(!text.is_empty())
}

/// Takes away those of ours that are not among these; answers whether there were any.
pub(super) fn remove_others(sets: &Sets) -> Result<bool, Error> {
    if !is_installed() || !Path::new(MODULE).exists() {
        return Ok(false);
    }
    let stale: Vec<_> = names()?
        .into_iter()
        .filter(|name| {
            let is_next = Family::ALL
                .into_iter()
                .any(|family| ipset::next_name(family) == name);
            let family = Family::ALL
                .into_iter()
                .find(|family| ipset::name(*family) == name);
            is_next || family.is_some_and(|family| !sets.iter().any(|(wanted, _)| *wanted == family))
        })
        .collect();
    for name in &stale {
        run(&["destroy", name], "")?;
    }
    Ok(!stale.is_empty())
}

const PROGRAM: &str = "ipset";
/// There where the kernel has sets at all; to ask `ipset` would load the module for the whole machine.
const MODULE: &str = "/sys/module/ip_set";

/// None where it is of another kind than ours.
fn held(family: Family) -> Result<Option<Vec<SocketAddr>>, Error> {
    Ok(ipset::members(family, &run(&["save", ipset::name(family)], "")?))
}

fn names() -> Result<Vec<String>, Error> {
    let listed = run(&["list", "-name"], "")?;
    Ok(listed.lines().map(str::to_owned).collect())
}

fn run(arguments: &[&str], input: &str) -> Result<String, Error> {
    let program: PathBuf = program::on_path(PROGRAM).ok_or_else(|| {
        Error::Unusable(
            "exactly the services takes sets, which iptables has by the program ipset alone, and that is not \
             installed: install the package ipset, or use --backend nft"
                .to_owned(),
        )
    })?;
    program::start(&program, arguments, input, None)?.finish()
}
