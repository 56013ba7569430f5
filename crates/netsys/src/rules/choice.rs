//! Which back-end rules go to, and why: told from what is installed and from what the kernel holds, nothing is
//! written to find out.

use std::io;

use rules::ruleset::{OWN_CHAIN_PREFIX, TableName};
use rules::{Family, Ruleset};

use super::Error;
use super::native::Native;
use super::nf_tables::{CHAIN_NAME, Object, Socket, name_of, protocol, value, zero_ended};
use super::program::{Backend, Programs, legacy_holds_nothing};

/// One family: each iptables back-end that can be read, with what it holds, and why others cannot.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) family: Family,
    pub(super) backends: Vec<(Programs, Ruleset)>,
    unusable: Vec<String>,
    /// Rules of ours that none of them shows.
    pub(super) hidden: Hidden,
    /// Whether there are tables of iptables-nft, and none of them shows those.
    pub(super) has_unread: bool,
}

/// What the kernel has of a family where the program that would show it cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Hidden {
    /// Nothing.
    #[default]
    Nothing,
    /// Tables of legacy iptables, of which nobody can tell whose they are.
    Legacy,
    /// Chains of ours, by iptables-nft.
    OurChains,
}

/// The back-end that a family's rules go to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// Which family.
    pub family: Family,
    /// Which back-end.
    pub backend: Backend,
    /// One clause for people.
    pub why: String,
}

/// One choice for each of these families.
///
/// The forced back-end; else the one that holds our rules already; else the iptables that others have rules
/// by, so that an operator finds everything in one place (legacy before nft, as istio-iptables has it); else
/// native nftables; else the iptables that there is.
pub(super) fn choose(
    families: &[&Held],
    native: &Native,
    forced: Option<Backend>,
) -> Result<Vec<Choice>, Error> {
    let all_native = |why: &str| -> Vec<Choice> {
        let families = families.iter().map(|held| held.family);
        families
            .map(|family| Choice {
                family,
                backend: Backend::Nft,
                why: why.to_owned(),
            })
            .collect()
    };
    let each = || families.iter().map(|held| held.choose(forced)).collect();
    match (forced, native.unusable()) {
        (Some(Backend::Nft), None) => return Ok(all_native("asked for")),
        (Some(Backend::Nft), Some(why)) => {
            return Err(Error::Unusable(format!(
                "nftables cannot be used ({why}); install the package nftables"
            )));
        }
        (Some(_), _) | (None, Some(_)) => return each(),
        (None, None) => {}
    }
    if native.is_there() {
        return Ok(all_native(HOLDS_OURS));
    }
    if families.iter().any(|held| held.in_use().is_some()) {
        return match each() {
            Ok(choices) => Ok(choices),
            Err(error) => Ok(all_native(&format!("iptables cannot: {error}"))),
        };
    }
    Ok(all_native(
        "the kernel has nf_tables, and nothing else is in use here",
    ))
}

const HOLDS_OURS: &str = "it holds Weir's rules already";

impl Held {
    /// `tables` is what the kernel says of those of nf_tables. Fails where a program hangs.
    pub(super) fn read(family: Family, tables: &io::Result<Vec<Object>>) -> Result<Self, Error> {
        let mut held = Self {
            family,
            backends: vec![],
            unusable: vec![],
            hidden: Hidden::Nothing,
            has_unread: false,
        };
        for backend in Backend::IPTABLES {
            // The plain name is one of the others, where there are others.
            if backend == Backend::Iptables && !held.backends.is_empty() {
                continue;
            }
            let Some(programs) = Programs::find(family, backend) else {
                held.unusable.push(format!("{backend} is not installed"));
                continue;
            };
            let dumped = match tables {
                // Most of the time goes into starting programs.
                Ok(tables) if backend == Backend::IptablesNft && !has_tables(tables, family) => {
                    Ok(Ruleset::empty(family))
                }
                _ => super::dump(&programs),
            };
            match dumped {
                Ok(ruleset) => held.backends.push((programs, ruleset)),
                // Another one would hang as well, and nothing be known of these rules.
                Err(hung @ Error::Hung { .. }) => return Err(hung),
                Err(error) => held.unusable.push(error.to_string()),
            }
        }
        let has_tables = tables.as_ref().is_ok_and(|tables| has_tables(tables, family));
        held.has_unread = has_tables && !held.reads(Backend::IptablesNft);
        held.hidden = held.find_hidden();
        Ok(held)
    }

    fn reads(&self, wanted: Backend) -> bool {
        let mut backends = self.backends.iter();
        backends.any(|(programs, _)| [wanted, Backend::Iptables].contains(&programs.backend))
    }

    fn find_hidden(&self) -> Hidden {
        if self.has_unread && has_our_chains(self.family) {
            return Hidden::OurChains;
        }
        match self.reads(Backend::IptablesLegacy) || legacy_holds_nothing(self.family) {
            true => Hidden::Nothing,
            false => Hidden::Legacy,
        }
    }

    /// The back-end that holds our rules, or that others keep rules by.
    fn in_use(&self) -> Option<(Backend, &'static str)> {
        let find = |test: &dyn Fn(&Programs, &Ruleset) -> bool| {
            let mut backends = self.backends.iter();
            let found = backends.find(|(programs, ruleset)| test(programs, ruleset));
            found.map(|(programs, _)| programs.backend)
        };
        let by_others = |backend: Backend| {
            find(&|programs, held| programs.backend == backend && has_rules(held))
                .map(|backend| (backend, "it has rules in this namespace already"))
        };
        find(&|_, held| !held.own().tables.is_empty())
            .map(|backend| (backend, HOLDS_OURS))
            .or_else(|| by_others(Backend::IptablesLegacy))
            .or_else(|| by_others(Backend::IptablesNft))
            .or_else(|| by_others(Backend::Iptables))
    }

    fn choose(&self, forced: Option<Backend>) -> Result<Choice, Error> {
        let there = |wanted: Backend| self.backends.iter().any(|(found, _)| found.backend == wanted);
        let chosen = match forced {
            // The plain name stands for whichever there is.
            Some(Backend::Iptables) => self.preferred().map(|(backend, _)| (backend, "asked for")),
            Some(backend) => there(backend).then_some((backend, "asked for")),
            None => self.preferred(),
        };
        let (backend, why) = chosen.ok_or_else(|| self.none(forced))?;
        Ok(Choice {
            family: self.family,
            backend,
            why: why.to_owned(),
        })
    }

    fn preferred(&self) -> Option<(Backend, &'static str)> {
        let newer = self
            .backends
            .iter()
            .find(|(programs, _)| programs.backend == Backend::IptablesNft);
        self.in_use()
            .or_else(|| newer.map(|_| (Backend::IptablesNft, "the kernel has nf_tables")))
            .or_else(|| {
                let (programs, _) = self.backends.first()?;
                Some((programs.backend, "it is the one that works here"))
            })
    }

    fn none(&self, forced: Option<Backend>) -> Error {
        let wanted = forced.map_or("iptables", Backend::as_str);
        let why = self.unusable.join("; ");
        let advice = match why.contains("is not installed") {
            true => "; install the package iptables or nftables",
            false => "",
        };
        Error::Unusable(format!("no {wanted} can be used ({why}){advice}"))
    }
}

/// Whether the kernel has any table that iptables-nft would show.
pub(super) fn has_tables(tables: &[Object], family: Family) -> bool {
    tables.iter().any(|table| {
        let named = |name: &str| name_of(table) == Some(zero_ended(name).as_slice());
        table.protocol == protocol(family) && TableName::ALL.iter().any(|(name, _)| named(name))
    })
}

/// Whether the kernel has a chain of the name of ours in a table that is not of native nftables.
fn has_our_chains(family: Family) -> bool {
    let chains = Socket::open().and_then(|socket| socket.chains(protocol(family)));
    chains.is_ok_and(|chains| {
        let mut names = chains.iter().filter_map(|chain| value(chain, CHAIN_NAME));
        names.any(|name| name.starts_with(OWN_CHAIN_PREFIX.as_bytes()))
    })
}

fn has_rules(ruleset: &Ruleset) -> bool {
    let in_table = |name| ruleset.table(name).into_iter();
    [
        TableName::Filter,
        TableName::Mangle,
        TableName::Nat,
        TableName::Raw,
    ]
    .into_iter()
    .flat_map(in_table)
    .any(|table| table.chains.iter().any(|chain| !chain.rules.is_empty()))
}
