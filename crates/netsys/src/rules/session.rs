//! One change of a namespace's rules, from looking to done: what is there is read once, under the lock,
//! and either everything that a plan asks for holds at the end or everything is as it was.

use rules::diff::changes;
use rules::plan::{PASSTHROUGH_V6_OURS, PassthroughV6, Stack};
use rules::ruleset::TableName;
use rules::{Facts, Family, Plan, Ruleset};

use super::program::{Backend, Programs};
use super::{Error, Lock, apply, table};
use crate::links;

/// The rules of the calling thread's namespace, under its lock.
#[derive(Debug)]
pub struct Session {
    _lock: Lock,
    forced: Option<Backend>,
    families: [Held; 2],
}

/// One family: each back-end that can be read, with what it holds, and why others cannot.
#[derive(Debug)]
struct Held {
    family: Family,
    backends: Vec<(Programs, Ruleset)>,
    unusable: Vec<String>,
}

/// The back-end that a family's rules go to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// Which family.
    pub family: Family,
    /// Which back-end.
    pub backend: Backend,
    /// One clause for people.
    pub why: &'static str,
}

/// What a session did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Done {
    /// Whether anything was written.
    pub changed: bool,
}

impl Session {
    /// Takes the lock and reads every back-end, or the `forced` one; writes nothing.
    ///
    /// # Errors
    /// [`Error::Busy`] where another session goes on too long.
    pub fn open(forced: Option<Backend>) -> Result<Self, Error> {
        let lock = Lock::take()?;
        Ok(Self {
            _lock: lock,
            forced,
            families: Family::ALL.map(Held::read),
        })
    }

    /// What a plan has to know of the namespace.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn facts(&self) -> Result<Facts, Error> {
        let physical_devices = links::physical_devices().map_err(Error::Facts)?;
        let ipv6_is_on = links::ipv6_is_on().map_err(Error::Facts)?;
        let stack = |held: &Held| match held.choose(self.forced) {
            Ok(_) => Stack::On,
            Err(error) => Stack::Uncapturable(error.to_string()),
        };
        let [v4, v6] = &self.families;
        Ok(Facts {
            ipv4: stack(v4),
            ipv6: if ipv6_is_on { stack(v6) } else { Stack::Off },
            physical_devices,
            passthrough_v6: self.passthrough_v6()?,
        })
    }

    /// The back-end for each of these families.
    ///
    /// # Errors
    /// Where there is none for one of them.
    pub fn choices(&self, families: &[Family]) -> Result<Vec<Choice>, Error> {
        let wanted = self
            .families
            .iter()
            .filter(|held| families.contains(&held.family));
        wanted
            .map(|held| {
                let (programs, _, why) = held.choose(self.forced)?;
                Ok(Choice {
                    family: held.family,
                    backend: programs.backend,
                    why,
                })
            })
            .collect()
    }

    /// Whether any rule of ours is there.
    #[must_use]
    pub fn has_rules(&self) -> bool {
        self.all().any(|(_, held)| !held.own().tables.is_empty())
    }

    /// What of ours is there, to be [put back](Self::put_back) later.
    #[must_use]
    pub fn own(&self) -> Vec<(Backend, Ruleset)> {
        self.all()
            .map(|(programs, held)| (programs.backend, held.own()))
            .filter(|(_, own)| !own.tables.is_empty())
            .collect()
    }

    /// Makes the namespace hold what the plan asks for and nothing else of ours, or leaves it as it was.
    ///
    /// # Errors
    /// Where a program or the kernel refuses.
    pub fn install(&self, plan: &Plan) -> Result<Done, Error> {
        let wanted = rules::render(plan);
        let mut targets = vec![];
        for held in &self.families {
            let ruleset = wanted.iter().find(|ruleset| ruleset.family == held.family);
            if let Some(ruleset) = ruleset {
                let (programs, _, _) = held.choose(self.forced)?;
                targets.push((programs.backend, ruleset.clone()));
            }
        }
        self.converge(&targets, plan.passthrough_v6)
    }

    /// Removes everything of ours from every back-end.
    ///
    /// # Errors
    /// Where a program or the kernel refuses.
    pub fn remove(&self) -> Result<Done, Error> {
        self.converge(&[], false)
    }

    /// Makes the namespace hold what [`Session::own`] told of an earlier one.
    ///
    /// # Errors
    /// Where a program or the kernel refuses.
    pub fn put_back(&self, own: &[(Backend, Ruleset)]) -> Result<Done, Error> {
        let had_address = own.iter().any(|(_, ruleset)| remembers_address(ruleset));
        self.converge(own, had_address)
    }

    fn converge(&self, targets: &[(Backend, Ruleset)], passthrough_v6: bool) -> Result<Done, Error> {
        let mut steps: Vec<(&Programs, &Ruleset, Ruleset)> = self
            .all()
            .map(|(programs, held)| {
                let target = targets.iter().find(|(backend, wanted)| {
                    (*backend, wanted.family) == (programs.backend, programs.family)
                });
                let mut wanted =
                    target.map_or_else(|| Ruleset::empty(programs.family), |(_, wanted)| wanted.clone());
                if programs.backend == Backend::IptablesNft {
                    table::mark_made(held, &mut wanted);
                }
                (programs, held, wanted)
            })
            .filter(|(_, held, wanted)| !changes(held, wanted).is_empty())
            .collect();
        // New rules first, so that moving from one back-end to another leaves no gap.
        steps.sort_by_key(|(_, _, wanted)| wanted.tables.is_empty());

        let before = self.passthrough_v6()?;
        let mut written = vec![];
        let result = steps
            .iter()
            .try_for_each(|(programs, held, wanted)| {
                written.push((*programs, *held));
                apply(programs, held, wanted)?;
                remove_tables(programs, held, wanted)
            })
            .and_then(|()| change_address(before, passthrough_v6));
        match result {
            Ok(address_changed) => Ok(Done {
                changed: address_changed || !steps.is_empty(),
            }),
            Err(error) => Err(undo(&written, error)),
        }
    }

    fn passthrough_v6(&self) -> Result<PassthroughV6, Error> {
        if self.all().any(|(_, held)| remembers_address(held)) {
            Ok(PassthroughV6::Ours)
        } else if links::has_passthrough_v6().map_err(Error::Facts)? {
            Ok(PassthroughV6::Foreign)
        } else {
            Ok(PassthroughV6::Absent)
        }
    }

    fn all(&self) -> impl Iterator<Item = (&Programs, &Ruleset)> {
        let backends = self.families.iter().flat_map(|held| &held.backends);
        backends.map(|(programs, ruleset)| (programs, ruleset))
    }
}

/// Whether the rules say that `::6` was put on loopback by us.
fn remembers_address(ruleset: &Ruleset) -> bool {
    ruleset
        .purposes()
        .any(|purpose| purpose.strip_prefix("weir: ") == Some(PASSTHROUGH_V6_OURS))
}

/// Answers whether something was done. An address that others put there is left to them.
fn change_address(before: PassthroughV6, wanted: bool) -> Result<bool, Error> {
    if before == PassthroughV6::Foreign {
        return Ok(false);
    }
    let there = links::has_passthrough_v6().map_err(Error::Facts)?;
    match (there, wanted) {
        (false, true) => links::add_passthrough_v6().map_err(Error::Address)?,
        (true, false) => links::remove_passthrough_v6().map_err(Error::Address)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// What earlier runs made for themselves goes with the last rule of ours in it.
fn remove_tables(programs: &Programs, held: &Ruleset, wanted: &Ruleset) -> Result<(), Error> {
    let names = table::made_and_unwanted(held, wanted);
    if names.is_empty() {
        return Ok(());
    }
    table::remove_unused(programs.family, &names).map_err(Error::Table)
}

/// Puts back what was there before a step failed.
fn undo(written: &[(&Programs, &Ruleset)], error: Error) -> Error {
    for (programs, before) in written {
        let undone = super::dump(programs).and_then(|now| {
            let wanted = before.own();
            apply(programs, &now, &wanted)?;
            remove_tables(programs, &now, &wanted)
        });
        if let Err(also) = undone {
            return Error::HalfDone {
                error: Box::new(error),
                also: Box::new(also),
            };
        }
    }
    error
}

impl Held {
    fn read(family: Family) -> Self {
        let mut held = Self {
            family,
            backends: vec![],
            unusable: vec![],
        };
        for backend in Backend::ALL {
            // The plain name is one of the others, where there are others.
            if backend == Backend::Iptables && !held.backends.is_empty() {
                continue;
            }
            match Programs::find(family, backend) {
                None => held.unusable.push(format!("{backend} is not installed")),
                Some(programs) => match super::dump(&programs) {
                    Ok(ruleset) => held.backends.push((programs, ruleset)),
                    Err(error) => held.unusable.push(error.to_string()),
                },
            }
        }
        held
    }

    /// The forced one; else the one that holds our rules already; else legacy where it is in use; else nft;
    /// else the plain name. (The order of istio-iptables, but nothing is written to find out.)
    fn choose(&self, forced: Option<Backend>) -> Result<(&Programs, &Ruleset, &'static str), Error> {
        let is = |wanted: Backend| move |programs: &Programs, _: &Ruleset| programs.backend == wanted;
        let find = |why: &'static str, test: &dyn Fn(&Programs, &Ruleset) -> bool| {
            let mut backends = self.backends.iter();
            let found = backends.find(|(programs, ruleset)| test(programs, ruleset));
            found.map(|(programs, ruleset)| (programs, ruleset, why))
        };
        let chosen = match forced {
            Some(backend) => find("asked for", &is(backend)),
            None => find("it holds Weir's rules already", &|_, held| {
                !held.own().tables.is_empty()
            })
            .or_else(|| {
                find("it has rules in this namespace already", &|programs, held| {
                    programs.backend == Backend::IptablesLegacy && has_rules(held)
                })
            })
            .or_else(|| find("the kernel has nf_tables", &is(Backend::IptablesNft)))
            .or_else(|| find("it is the one that works here", &|_, _| true)),
        };
        chosen.ok_or_else(|| {
            let wanted = forced.map_or("iptables", Backend::as_str);
            let why = self.unusable.join("; ");
            let advice = match why.contains("is not installed") {
                true => "; install the package iptables",
                false => "",
            };
            Error::Unusable(format!("no {wanted} can be used ({why}){advice}"))
        })
    }
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
