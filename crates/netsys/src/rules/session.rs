//! One change of a namespace's rules, from looking to done: what is there is read once, under the lock,
//! and either everything that a plan asks for holds at the end or everything is as it was.

use std::thread;

use rules::installed::Writer;
use rules::intent::Tracking;
use rules::plan::{PolicyRoute, Stack, Switch, TproxyFacts, remembered};
use rules::{Facts, Family, Intent, Plan, Ruleset};

use super::choice::{Choice, Held, Hidden, choose};
use super::native::{self, Native};
use super::program::{Backend, Programs};
use super::step::{Step, finish, take_side_by_side};
use super::{Error, Lock, ipset, policy, switches, table};
use crate::links;
use crate::netlink::LocalDefault;
use crate::passthrough::{self, Passthrough};

/// The rules of the calling thread's namespace, under its lock.
#[derive(Debug)]
pub struct Session {
    _lock: Lock,
    forced: Option<Backend>,
    families: [Held; 2],
    pub(super) native: Native,
    policy_routes: Vec<PolicyRoute>,
    pub(super) local_routes: Vec<LocalDefault>,
    passthrough: Passthrough,
}

/// What of ours a namespace holds, or is to hold.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Own {
    /// The rules, with what writes them.
    pub rules: Vec<(Backend, Ruleset)>,
    /// What is routed by its mark.
    pub policy_routes: Vec<PolicyRoute>,
    /// Whether `::6` is on loopback.
    pub passthrough_v6: bool,
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
        let tables = &native::tables();
        // Most of the time goes into starting programs: they run side by side. A thread is in the namespace of the
        // one that starts it.
        let (native, families) = thread::scope(|scope| {
            let families = Family::ALL.map(|family| scope.spawn(move || Held::read(family, tables)));
            (Native::read(tables), families.map(finish))
        });
        Ok(Self {
            _lock: lock,
            forced,
            families: {
                let [v4, v6] = families;
                [v4?, v6?]
            },
            native: native?,
            policy_routes: policy::ours().map_err(Error::Facts)?,
            local_routes: policy::our_routes().map_err(Error::Facts)?,
            passthrough: passthrough::find().map_err(Error::Facts)?,
        })
    }

    /// What a plan for that intent has to know of the namespace; cgroups are not the namespace's (see
    /// [`crate::cgroups::facts`]).
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn facts(&self, intent: &Intent) -> Result<Facts, Error> {
        let physical_devices = links::physical_devices().map_err(Error::Facts)?;
        let ipv6_is_on = links::ipv6_is_on().map_err(Error::Facts)?;
        let stack = |held: &Held| match choose(&[held], &self.native, self.forced) {
            Ok(_) => Stack::On,
            Err(error) => Stack::Uncapturable(error.to_string()),
        };
        let [v4, v6] = &self.families;
        let mut facts = Facts {
            ipv4: stack(v4),
            ipv6: if ipv6_is_on { stack(v6) } else { Stack::Off },
            physical_devices,
            cgroups: rules::cgroup::Facts::default(),
            tproxy: TproxyFacts::default(),
        };
        if let Some(tproxy) = intent.inbound.tproxy() {
            facts.tproxy = self.tproxy(intent.families, &facts, tproxy.tracking != Tracking::On);
        }
        Ok(facts)
    }

    /// The back-end for each of these families.
    ///
    /// # Errors
    /// Where there is none for one of them.
    pub fn choices(&self, families: &[Family]) -> Result<Vec<Choice>, Error> {
        let wanted = self.families.iter();
        let wanted: Vec<_> = wanted.filter(|held| families.contains(&held.family)).collect();
        choose(&wanted, &self.native, self.forced)
    }

    /// Whether anything of ours is there.
    #[must_use]
    pub fn has_rules(&self) -> bool {
        self.native.is_there()
            || !self.policy_routes.is_empty()
            || !self.local_routes.is_empty()
            || self.passthrough == Passthrough::Ours
            || self.all().any(|(_, held)| !held.own().tables.is_empty())
    }

    /// Everything that is there, rules of others included, as each back-end that can be read shows it. Of native
    /// nftables this is what our tables hold.
    pub fn installed(&self) -> impl Iterator<Item = (Backend, &Ruleset)> {
        let native = self.native.held().iter().map(|held| (Backend::Nft, held));
        self.all()
            .map(|(programs, held)| (programs.backend, held))
            .chain(native)
    }

    /// Whether rules of others are there, or may be: then [`super::look()`] shows more than this session has read.
    #[must_use]
    pub fn has_foreign(&self) -> bool {
        self.native.has_others()
            || self.families.iter().any(|held| held.has_unread)
            || self.all().any(|(_, held)| held.has_foreign())
    }

    /// What is there and could not be read, a line each.
    #[must_use]
    pub fn hidden(&self) -> Vec<String> {
        let legacy = self.families.iter().filter(|held| held.hidden == Hidden::Legacy);
        let line = |held: &Held| {
            format!(
                "the kernel holds {} tables of legacy iptables, Weir's perhaps, and {}, which shows them, cannot be used",
                held.family,
                Writer::IptablesLegacy.program(held.family)
            )
        };
        legacy.map(line).collect()
    }

    /// What of ours is there, to be [put back](Self::put_back) later.
    #[must_use]
    pub fn own(&self) -> Own {
        let native = self.native.held().iter();
        let rules = self
            .all()
            .map(|(programs, held)| (programs.backend, held.own()))
            .filter(|(_, own)| !own.tables.is_empty())
            .chain(native.map(|held| (Backend::Nft, held.clone())));
        Own {
            rules: rules.collect(),
            policy_routes: self.policy_routes.clone(),
            passthrough_v6: self.passthrough == Passthrough::Ours,
        }
    }

    /// Makes the namespace hold what the plan asks for and nothing else of ours, or leaves it as it was.
    ///
    /// # Errors
    /// Where a program or the kernel refuses.
    pub fn install(&self, plan: &Plan) -> Result<Done, Error> {
        let (by_iptables, by_nft) = (rules::render(plan), rules::nft::render(plan));
        let choices = self.choices(&plan.families)?;
        if plan.needs_sets && choices.iter().any(|choice| choice.backend != Backend::Nft) {
            ipset::probe()?;
        }
        let targets = choices.into_iter().filter_map(|choice| {
            let rendered = match choice.backend {
                Backend::Nft => &by_nft,
                _ => &by_iptables,
            };
            let ruleset = rendered.iter().find(|ruleset| ruleset.family == choice.family)?;
            Some((choice.backend, ruleset.clone()))
        });
        let wanted = Own {
            rules: targets.collect(),
            policy_routes: plan.policy_routes.clone(),
            passthrough_v6: plan.passthrough_v6,
        };
        self.converge(&wanted)
    }

    /// Removes everything of ours from every back-end.
    ///
    /// # Errors
    /// Where a program or the kernel refuses.
    pub fn remove(&self) -> Result<Done, Error> {
        self.converge(&Own::default())
    }

    /// Makes the namespace hold what [`Session::own`] told of an earlier one.
    ///
    /// # Errors
    /// Where a program or the kernel refuses.
    pub fn put_back(&self, own: &Own) -> Result<Done, Error> {
        self.converge(own)
    }

    fn converge(&self, wanted: &Own) -> Result<Done, Error> {
        let Own {
            rules: targets,
            policy_routes,
            passthrough_v6,
        } = wanted;
        self.refuse_hidden(targets.is_empty())?;
        let mut steps: Vec<_> = self
            .all()
            .map(|(programs, held)| self.iptables_step(programs, held, targets))
            .chain([self.native_step(targets)])
            .filter(Step::is_needed)
            .collect();
        // New rules first, so that moving from one back-end to another leaves no gap.
        steps.sort_by_key(Step::only_removes);

        let ours: Vec<_> = targets
            .iter()
            .flat_map(|(_, wanted)| remembered(wanted))
            .collect();
        let (sets_before, sets) = (ipset::named_by(&self.own()), ipset::named_by(wanted));
        let held = self.switches();
        let both = [&held[..], &ours].concat();
        let mut taken = 0;
        let mut take = || -> Result<bool, Error> {
            // Routes, switches and sets before the rules that need them, and away after them.
            let mut changed = policy::add(policy_routes, &both)? | switches::set(&ours)? | ipset::put(&sets)?;
            for steps in steps.chunk_by(Step::may_be_beside) {
                taken += steps.len();
                take_side_by_side(steps)?;
                changed = true;
            }
            changed |= change_address(self.passthrough, *passthrough_v6)?;
            // What a run that was cut off has left is found where all is taken out.
            if !sets_before.is_empty() || !sets.is_empty() || targets.is_empty() {
                changed |= ipset::remove_others(&sets)?;
            }
            changed |= switches::put_back(&held, &ours)?;
            // What remembers the switches goes last.
            Ok(changed | settle_routes(policy_routes, &ours)?)
        };
        match take() {
            Ok(changed) => Ok(Done { changed }),
            Err(error) => Err(self.undo(&steps[..taken], &ours, &sets, error)),
        }
    }

    /// Rules of ours that are not seen would stay beside new ones; and "all is taken out" would be a guess.
    fn refuse_hidden(&self, removes_all: bool) -> Result<(), Error> {
        for held in &self.families {
            let (what, backend) = match held.hidden {
                Hidden::OurChains => ("rules of Weir's", Writer::IptablesNft),
                Hidden::Legacy if removes_all => (
                    "tables of legacy iptables, Weir's perhaps",
                    Writer::IptablesLegacy,
                ),
                _ => continue,
            };
            let (family, program) = (held.family, backend.program(held.family));
            return Err(Error::Hidden {
                family,
                what,
                program,
            });
        }
        Ok(())
    }

    /// Puts back what was there before a step failed.
    fn undo(&self, taken: &[Step<'_>], ours: &[Switch], sets: &ipset::Sets, error: Error) -> Error {
        let held = self.switches();
        let before = ipset::named_by(&self.own());
        let put = ipset::put(&before).map(drop);
        let steps = put.and_then(|()| taken.iter().try_for_each(Step::take_back));
        let steps = steps.and_then(|()| match sets.is_empty() {
            true => Ok(false),
            false => ipset::remove_others(&before),
        });
        let switches = switches::set(&held).and_then(|_| switches::put_back(ours, &held));
        // Where no route can remember, what a run that was cut off has left stays as it is.
        let routes = match self.policy_routes.is_empty() && !held.is_empty() {
            true => Ok(false),
            false => settle_routes(&self.policy_routes, &held),
        };
        match steps.and(switches).and(routes) {
            Ok(_) => error,
            Err(also) => Error::HalfDone {
                error: Box::new(error),
                also: Box::new(also),
            },
        }
    }

    fn iptables_step<'a>(
        &self,
        programs: &'a Programs,
        held: &'a Ruleset,
        targets: &[(Backend, Ruleset)],
    ) -> Step<'a> {
        let target = targets
            .iter()
            .find(|(backend, wanted)| (*backend, wanted.family) == (programs.backend, programs.family));
        let mut wanted = target.map_or_else(|| Ruleset::empty(programs.family), |(_, wanted)| wanted.clone());
        if programs.backend == Backend::IptablesNft {
            table::mark_made(held, &mut wanted);
        }
        Step::Iptables {
            programs,
            held,
            wanted,
        }
    }

    fn native_step(&self, targets: &[(Backend, Ruleset)]) -> Step<'_> {
        let wanted = targets.iter().filter(|(backend, _)| *backend == Backend::Nft);
        let wanted = wanted.map(|(_, wanted)| wanted.clone());
        Step::Native {
            native: &self.native,
            wanted: wanted.filter(|wanted| !wanted.tables.is_empty()).collect(),
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&Programs, &Ruleset)> {
        let backends = self.families.iter().flat_map(|held| &held.backends);
        backends.map(|(programs, ruleset)| (programs, ruleset))
    }
}

/// Makes the routes those that are wanted, and what they remember these switches.
fn settle_routes(wanted: &[PolicyRoute], ours: &[Switch]) -> Result<bool, Error> {
    Ok(policy::add(wanted, ours)? | policy::remove_others(wanted, ours)?)
}

/// Answers whether something was done. An address that others put there is left to them.
fn change_address(before: Passthrough, wanted: bool) -> Result<bool, Error> {
    match (before, wanted) {
        (Passthrough::Absent, true) => passthrough::add().map_err(Error::Address)?,
        (Passthrough::Ours, false) => passthrough::remove().map_err(Error::Address)?,
        _ => return Ok(false),
    }
    Ok(true)
}
