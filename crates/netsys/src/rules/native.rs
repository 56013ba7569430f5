//! Native nftables: tables of Weir's own, read and replaced by the program `nft`. [`Native::write`] is the one
//! place where rules are handed to it.

use std::io;
use std::path::PathBuf;

use rules::nft::{self, Sign, TableFamily};
use rules::ruleset::TableName;
use rules::{Family, Ruleset};

use super::nf_tables::{Object, Socket, name_of, zero_ended};
use super::{Error, program};
use crate::cgroups;

/// What there is of it in the calling thread's namespace.
#[derive(Debug)]
pub(super) struct Native {
    /// Or why it cannot be used.
    program: Result<PathBuf, String>,
    /// The tables of ours.
    there: Vec<TableFamily>,
    /// What they hold, where they hold anything.
    held: Vec<Ruleset>,
    /// Whether others have tables of which the programs of iptables show nothing.
    others: bool,
    /// What they remember of the DNS proxy.
    signs: Vec<Sign>,
}

impl Native {
    /// `tables` is what the kernel says of all of them; the program is started only where one is ours.
    pub(super) fn read(tables: &io::Result<Vec<Object>>) -> Result<Self, Error> {
        let program = match tables {
            Ok(_) => program::on_path("nft").ok_or_else(|| "nft is not installed".to_owned()),
            Err(error) => Err(format!("the kernel does not answer for nf_tables: {error}")),
        };
        let mut native = Self {
            program,
            there: tables.as_ref().map_or_else(|_| vec![], |tables| ours(tables)),
            held: vec![],
            others: tables.as_ref().is_ok_and(|tables| has_others(tables)),
            signs: vec![],
        };
        let text = native.list()?;
        native.signs = nft::signs(&text);
        native.held = nft::parse(&text);
        native.held.retain(|ruleset| !ruleset.tables.is_empty());
        Ok(native)
    }

    /// Why it cannot be used, where it cannot.
    pub(super) fn unusable(&self) -> Option<&str> {
        self.program.as_ref().err().map(String::as_str)
    }

    /// Whether a table of ours is there.
    pub(super) fn is_there(&self) -> bool {
        !self.there.is_empty()
    }

    /// Whether there is a table that is neither ours nor one of iptables.
    pub(super) fn has_others(&self) -> bool {
        self.others
    }

    /// What our tables hold, one rule set a family.
    pub(super) fn held(&self) -> &[Ruleset] {
        &self.held
    }

    /// Whether `wanted` is exactly what is there.
    pub(super) fn holds(&self, wanted: &[Ruleset]) -> bool {
        let families: Vec<_> = self.there.iter().flat_map(|table| table.sees()).collect();
        self.held == wanted && families.len() == wanted.len()
    }

    /// Replaces what is there by `wanted`, in one transaction, and looks whether it is so.
    pub(super) fn apply(&self, wanted: &[Ruleset]) -> Result<(), Error> {
        if wanted.is_empty() {
            return self.remove();
        }
        self.write(wanted)?;
        let now = Self::read(&Socket::open().and_then(|socket| socket.tables(ANY)))?;
        if now.holds(wanted) {
            return Ok(());
        }
        Err(Error::NotHeld {
            program: "nft".to_owned(),
            missing: nft::transaction(&now.there, wanted, true),
        })
    }

    pub(super) fn write(&self, wanted: &[Ruleset]) -> Result<(), Error> {
        let run = |inet| {
            let text = nft::replacement(&self.there, &self.signs, wanted, inet);
            match has_cgroups(&text) {
                true => self.run_with_cgroups(&["-f", "-"], &text),
                false => self.run(&["-f", "-"], &text),
            }
        };
        match run(true) {
            // Older kernels have no NAT in `inet`; nothing was changed, and each family gets its table.
            Err(Error::Failed { .. }) if wanted.len() > 1 => run(false).map(drop),
            result => result.map(drop),
        }
    }

    /// Has the kernel look at that text, and writes nothing.
    pub(super) fn check(&self, text: &str) -> Result<(), Error> {
        self.run(&["-c", "-f", "-"], text).map(drop)
    }

    fn list(&self) -> Result<String, Error> {
        // One command a run: several of them get in each other's way in some versions.
        let texts = self.there.iter().map(|family| {
            let command = format!("list table {family} {}", nft::TABLE);
            let text = self.run(&[&command], "")?;
            match has_cgroups(&text) {
                // nft has looked for their paths in the usual place, whatever is there.
                true => self.run_with_cgroups(&[&command], ""),
                false => Ok(text),
            }
        });
        texts.collect()
    }

    fn run(&self, arguments: &[&str], input: &str) -> Result<String, Error> {
        match &self.program {
            Ok(program) => program::start(program, arguments, input, None)?.finish(),
            Err(why) => Err(Error::Unusable(format!(
                "nftables cannot be used ({why}); install the package nftables"
            ))),
        }
    }

    fn run_with_cgroups(&self, arguments: &[&str], input: &str) -> Result<String, Error> {
        cgroups::with_v2_in_place(|| self.run(arguments, input)).map_err(Error::Cgroups)?
    }

    fn remove(&self) -> Result<(), Error> {
        let mut left = self.there.clone();
        while !left.is_empty() {
            let socket = Socket::open().map_err(Error::Table)?;
            for family in left {
                let generation = socket.generation().map_err(Error::Table)?;
                match socket.remove_tables(protocol(family), &[nft::TABLE], generation) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::Table(error)),
                    _ => {}
                }
            }
            // Whoever changes other rules meanwhile makes the kernel refuse.
            left = ours(&socket.tables(ANY).map_err(Error::Table)?);
        }
        Ok(())
    }
}

/// Whether a match on cgroups of version 2 is in the text.
pub(super) fn has_cgroups(text: &str) -> bool {
    text.contains("socket cgroupv2 ")
}

/// Every kernel that has nf_tables has this family of them.
pub(super) const PROBE_FAMILY: TableFamily = TableFamily::Inet;
/// Tables of every family.
const ANY: u8 = 0;

/// What the kernel says of all tables there are.
pub(super) fn tables() -> io::Result<Vec<Object>> {
    Socket::open()?.tables(ANY)
}

fn has_others(tables: &[Object]) -> bool {
    let shown_by_iptables = |table: &Object| {
        let of_ip = Family::ALL
            .into_iter()
            .any(|family| super::nf_tables::protocol(family) == table.protocol);
        let mut names = TableName::ALL.iter().map(|(name, _)| zero_ended(name));
        of_ip && names.any(|name| name_of(table) == Some(name.as_slice()))
    };
    let of_iptables = tables.iter().filter(|table| shown_by_iptables(table)).count();
    of_iptables + ours(tables).len() < tables.len()
}

fn ours(tables: &[Object]) -> Vec<TableFamily> {
    let name = zero_ended(nft::TABLE);
    let is_there = |family: &TableFamily| {
        tables
            .iter()
            .any(|table| table.protocol == protocol(*family) && name_of(table) == Some(name.as_slice()))
    };
    TableFamily::ALL.into_iter().filter(is_there).collect()
}

fn protocol(family: TableFamily) -> u8 {
    match family {
        TableFamily::Ip => super::nf_tables::protocol(Family::V4),
        TableFamily::Ip6 => super::nf_tables::protocol(Family::V6),
        TableFamily::Inet => libc::NFPROTO_INET as u8,
    }
}
