//! All that the kernel holds in the calling thread's namespace, as the programs of each back-end show it, with
//! counters. Nothing is written, no lock is taken. Caller: `weir explain`.

use rules::installed::Writer;
use rules::ruleset::TableName;
use rules::{Family, Installed, dumps, nft};

use super::choice::has_tables;
use super::nf_tables::Object;
use super::program::{self, Backend, Programs};
use super::{Error, ipset, native};
use crate::cgroups;

/// What was seen.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Seen {
    /// The tables.
    pub installed: Installed,
    /// What is there and cannot be shown, each with the reason and what to do.
    pub hidden: Vec<String>,
}

/// Looks at every back-end.
///
/// # Errors
/// Where a program refuses, or prints what is no dump.
pub fn look() -> Result<Seen, Error> {
    let mut seen = Seen::default();
    let tables = native::tables();
    for family in Family::ALL {
        legacy(family, &mut seen)?;
        let of_iptables = match &tables {
            Ok(tables) => has_tables(tables, family),
            // A kernel without nf_tables has none.
            Err(_) => false,
        };
        if of_iptables {
            iptables_nft(family, &mut seen)?;
        }
    }
    if let Ok(tables) = tables
        && !tables.is_empty()
    {
        by_nft(&tables, &mut seen)?;
    }
    ipset::fill_in(&mut seen.installed)?;
    Ok(seen)
}

fn legacy(family: Family, seen: &mut Seen) -> Result<(), Error> {
    let programs = Programs::find(family, Backend::IptablesLegacy);
    match programs {
        Some(programs) if programs.holds_nothing() => {}
        Some(programs) => {
            seen.installed.tables.extend(held(Writer::IptablesLegacy, &programs)?.tables);
        }
        None if program::legacy_holds_nothing(family) => {}
        None => seen.hidden.push(format!(
            "the kernel holds {family} tables of legacy iptables, and {} is not installed: install the package iptables",
            Writer::IptablesLegacy.program(family)
        )),
    }
    Ok(())
}

/// Where it is not installed, `nft` shows the same tables in its own words.
fn iptables_nft(family: Family, seen: &mut Seen) -> Result<(), Error> {
    if let Some(programs) = Programs::find(family, Backend::IptablesNft) {
        seen.installed
            .tables
            .extend(held(Writer::IptablesNft, &programs)?.tables);
    }
    Ok(())
}

fn held(by: Writer, programs: &Programs) -> Result<Installed, Error> {
    let text = programs.save_with_counters()?;
    let mut ruleset = rules::parse(programs.family, &text)?;
    ipset::resolve(&mut ruleset)?;
    Ok(dumps::with_notes(by, ruleset, &text))
}

/// Every table that the programs of iptables have not shown.
fn by_nft(tables: &[Object], seen: &mut Seen) -> Result<(), Error> {
    let shown: Vec<String> = seen
        .installed
        .tables
        .iter()
        .filter(|table| table.by == Writer::IptablesNft)
        .map(|table| format!("{} {}", nft::TableFamily::from(table.family), table.name))
        .collect();
    let is_shown = |table: &Object| {
        let of_family = Family::ALL
            .into_iter()
            .find(|family| super::nf_tables::protocol(*family) == table.protocol);
        of_family.is_some_and(|family| {
            TableName::ALL.iter().any(|(name, _)| {
                super::nf_tables::name_of(table) == Some(super::nf_tables::zero_ended(name).as_slice())
                    && shown.contains(&format!("{} {name}", nft::TableFamily::from(family)))
            })
        })
    };
    if tables.iter().all(is_shown) {
        return Ok(());
    }
    let Some(program) = program::on_path("nft") else {
        seen.hidden.push(String::from(
            "the kernel holds tables of nftables, and nft is not installed: install the package nftables",
        ));
        return Ok(());
    };
    let list = || program::start(&program, &["list ruleset"], "", None)?.finish();
    let mut text = list()?;
    if native::has_cgroups(&text) {
        // nft has looked for their paths in the usual place, whatever is there.
        text = cgroups::with_v2_in_place(list).map_err(Error::Cgroups)??;
    }
    let others = nft::listing(&text).tables.into_iter();
    seen.installed
        .tables
        .extend(others.filter(|table| !shown.contains(&table.name)));
    Ok(())
}
