//! Which piece of some rules is refused, where the whole of them is: each is written by itself, into a namespace that
//! was made for it. Caller: `weir check`.

use rules::diff::changes;
use rules::pieces::{Language, Piece, pieces};
use rules::{Family, Ruleset, ipset as sets};

use super::native::{self, Native};
use super::program::{Backend, Programs};
use super::{Error, ipset};

/// A piece that is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lack {
    /// Of which family's rules.
    pub family: Family,
    /// `match owner`.
    pub name: String,
    /// What has it: a module of the kernel, or a program with the package that it comes in.
    pub by: Missing,
    /// What was said of it.
    pub said: String,
}

/// What is not there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Missing {
    /// A module of the kernel: `xt_owner`.
    Module(String),
    /// An extension of the program's own, a file of its package: `libxt_owner.so`.
    Extension(String),
    /// A program.
    Program(&'static str),
}

/// Writes the pieces of these rules one by one, in the calling thread's namespace, which is left full of them: it
/// must be one to be thrown away.
#[must_use]
pub fn lacking(backend: Backend, wanted: &[Ruleset]) -> Vec<Lack> {
    wanted
        .iter()
        .flat_map(|ruleset| of_family(backend, ruleset))
        .collect()
}

fn of_family(backend: Backend, ruleset: &Ruleset) -> Vec<Lack> {
    let family = ruleset.family;
    let writer = match backend {
        Backend::Nft => Native::read(&native::tables()).map(Writer::Native).ok(),
        _ => Programs::find(family, backend).map(Writer::Iptables),
    };
    let Some(writer) = writer else {
        // That is no matter of pieces.
        return vec![];
    };
    let mut lacks = vec![];
    let mut has_sets = true;
    if backend != Backend::Nft && sets::wanted(ruleset).is_some() {
        lacks.extend(lacks_sets(family));
        has_sets = lacks.is_empty();
    }
    let language = match backend {
        Backend::Nft => Language::Nft,
        Backend::IptablesLegacy => Language::IptablesLegacy,
        Backend::IptablesNft | Backend::Iptables => Language::IptablesNft,
    };
    let mut lost = vec![];
    for piece in pieces(ruleset, language) {
        // Nothing can be told of what is in a table that is refused, or of a rule that names a set that there is not.
        let is_lost = lost.contains(&piece.table());
        if is_lost || (!has_sets && sets::wanted(&piece.ruleset).is_some()) {
            continue;
        }
        if let Err(error) = writer.write(&piece) {
            if piece.is_table() {
                lost.push(piece.table());
            }
            lacks.push(lack(family, piece, &error));
        }
    }
    lacks
}

enum Writer {
    Iptables(Programs),
    Native(Native),
}

impl Writer {
    fn write(&self, piece: &Piece) -> Result<(), Error> {
        let ruleset = &piece.ruleset;
        match self {
            Self::Iptables(programs) => {
                programs.restore(&changes(&Ruleset::empty(ruleset.family), ruleset).to_string())
            }
            Self::Native(native) => native.write(std::slice::from_ref(ruleset)),
        }
    }
}

fn lack(family: Family, piece: Piece, error: &Error) -> Lack {
    let said = said(error);
    let extension = || Some(format!("libxt_{}.so", piece.name.split(' ').nth(1)?));
    let by = match said.contains("Couldn't load") {
        true => extension().map_or_else(|| Missing::Module(piece.module.clone()), Missing::Extension),
        false => Missing::Module(piece.module),
    };
    Lack {
        family,
        name: piece.name,
        by,
        said,
    }
}

/// The program, then the kernel's part, each by itself.
fn lacks_sets(family: Family) -> Option<Lack> {
    let lack = |by, said| Lack {
        family,
        name: "sets of addresses and ports".to_owned(),
        by,
        said,
    };
    if !ipset::is_installed() {
        return Some(lack(
            Missing::Program("ipset"),
            "ipset is not installed".to_owned(),
        ));
    }
    let refused = ipset::put(&vec![(family, vec![])]).err()?;
    Some(lack(
        Missing::Module("ip_set and ip_set_hash_ipport".to_owned()),
        said(&refused),
    ))
}

/// Without the advice, which is for the whole.
fn said(error: &Error) -> String {
    match error {
        Error::Failed { program, said } => format!("{program}: {said}"),
        other => other.to_string(),
    }
}
