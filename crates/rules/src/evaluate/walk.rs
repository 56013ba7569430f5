//! The way of a packet through the chains that the kernel asks, in its order, and what their targets do to it.

use std::borrow::Cow;
use std::rc::Rc;

use super::ground::AddressKind;
use super::targets::{leads_elsewhere, only_watches};
use super::verdict::{Asked, At, Fate, Met, Step, Tests, Verdict};
use super::view::{Device, Fit, Known, View};
use super::ways::Dice;
use super::{Origin, Packet, State};
use crate::hook::{Base, HookPoint};
use crate::ruleset::{Chain, ChainKind, Policy, Rule};

/// What is to be told of a packet's way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Telling {
    /// The rules that fitted.
    Path,
    /// All that were asked, too.
    All,
}

/// A chain that the kernel asks, and those that it may jump to.
pub(crate) struct Hooked<'a> {
    /// When it is asked.
    pub(crate) base: Base,
    /// Its table: the number and the name.
    pub(crate) table: (usize, Cow<'static, str>),
    /// Which chain of its table it is.
    pub(crate) chain: usize,
    /// All of its table.
    pub(crate) chains: &'a [Chain],
}

/// Jumps within jumps.
const DEEPEST: usize = 128;
/// Rules that are asked about one packet.
const MOST_ASKED: usize = 200_000;

pub(super) struct Walk<'a> {
    /// In the order of their priorities.
    hooked: Rc<[Hooked<'a>]>,
    pub(super) known: Known<'a>,
    pub(super) dice: &'a mut Dice,
    pub(super) view: View,
    pub(super) path: Vec<Step>,
    telling: Telling,
    asked: Vec<Asked>,
    /// How many rules were asked.
    count: usize,
    pub(super) decided: Option<usize>,
    /// Whether conntrack has seen it: what is made here it sees as it is sent, and not again as it arrives.
    pub(super) is_seen: bool,
    /// How many chains have been entered by jumps and not been left.
    depth: usize,
    /// Where it goes instead: a [`Fate::Redirect`], a [`Fate::Tproxy`] or a [`Fate::Dnat`].
    pub(super) redirected: Option<Fate>,
    /// Whether it is settled what its source is.
    pub(super) is_source_settled: bool,
    /// Whether the chain that is asked is about the source alone.
    is_about_source: bool,
}

/// Whether NAT of the destination is still to be asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nat {
    Asked,
    Over,
}

/// How a chain ended.
pub(super) enum End {
    /// At its end or by RETURN: the caller goes on.
    Returned,
    /// The table is done with the packet.
    Accepted,
    /// Nothing more is asked.
    Final(Fate),
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        hooked: Rc<[Hooked<'a>]>,
        packet: &Packet,
        known: Known<'a>,
        telling: Telling,
        dice: &'a mut Dice,
    ) -> Self {
        Self {
            hooked,
            known,
            dice,
            view: View::of(packet),
            path: vec![],
            telling,
            asked: vec![],
            count: 0,
            decided: None,
            is_seen: false,
            depth: 0,
            redirected: None,
            is_source_settled: false,
            is_about_source: false,
        }
    }

    pub(super) fn verdict(mut self, packet: &Packet) -> Verdict {
        let fate = match self.pass(packet) {
            Err(fate) => fate,
            Ok(()) => self.redirected.unwrap_or(Fate::Direct),
        };
        Verdict {
            fate,
            mark: self.view.mark,
            connection_mark: self.view.connection_mark,
            is_tracked: self.view.state != State::Untracked,
            zone: self.view.zone,
            is_remembered: self.view.is_remembered,
            path: self.path,
            decided: self.decided,
            asked: self.asked,
            ways: vec![],
        }
    }

    fn pass(&mut self, packet: &Packet) -> Result<(), Fate> {
        if packet.origin == Origin::Remote {
            self.hook(HookPoint::Prerouting, Nat::Asked)?;
            return match self.is_for_here() {
                Some(true) => self.arrive(),
                Some(false) => self.go_through(),
                None => self.either(Self::arrive, Self::go_through),
            };
        }
        self.hook(HookPoint::Output, Nat::Asked)?;
        self.is_seen = true;
        if self.redirected.is_some() {
            self.view.out_device = self.device_to_destination();
        }
        self.hook(HookPoint::Postrouting, Nat::Over)?;
        self.is_source_settled = true;
        match &self.view.out_device {
            Device::Is(name) if name == "lo" => self.loop_back(),
            Device::Unknown => self.either(Self::loop_back, |_| Ok(())),
            _ => Ok(()),
        }
    }

    /// Over `lo` it comes in again; the connection has been through NAT already.
    fn loop_back(&mut self) -> Result<(), Fate> {
        self.view.in_device = Device::Is(String::from("lo"));
        self.view.out_device = Device::None;
        self.view.owner = None;
        self.hook(HookPoint::Prerouting, Nat::Over)?;
        self.arrive()
    }

    fn arrive(&mut self) -> Result<(), Fate> {
        self.hook(HookPoint::Input, Nat::Over)
    }

    fn go_through(&mut self) -> Result<(), Fate> {
        self.view.out_device = self.device_to_destination();
        self.hook(HookPoint::Forward, Nat::Over)?;
        self.view.in_device = Device::None;
        self.hook(HookPoint::Postrouting, Nat::Over)
    }

    /// Where it is not known which of the two, whatever both come to.
    fn either(
        &mut self,
        one: impl Fn(&mut Self) -> Result<(), Fate>,
        other: impl Fn(&mut Self) -> Result<(), Fate>,
    ) -> Result<(), Fate> {
        let (view, decided, redirected) = (self.view.clone(), self.decided, self.redirected);
        let (steps, settled) = (self.path.len(), self.is_source_settled);
        let first = one(self);
        let after_first = (self.redirected, self.view.mark, self.view.connection_mark);
        self.view = view;
        (self.decided, self.redirected, self.is_source_settled) = (decided, redirected, settled);
        self.path.truncate(steps);
        let second = other(self);
        let after_second = (self.redirected, self.view.mark, self.view.connection_mark);
        if first == second && after_first == after_second {
            return second;
        }
        self.decided = decided;
        Err(Fate::Unknown)
    }

    /// Whether it is delivered here; none where that cannot be said.
    fn is_for_here(&self) -> Option<bool> {
        let Some(Fate::Dnat { to, .. }) = self.redirected else {
            // What comes in is asked about because it comes here, unless it is known better.
            let elsewhere = self.redirected.is_none()
                && self
                    .view
                    .destination
                    .and_then(|to| self.known.ground.kind(to))
                    .is_some_and(|kind| kind == AddressKind::Unicast);
            return Some(!elsewhere);
        };
        self.known.ground.kind(to).map(|kind| kind == AddressKind::Local)
    }

    /// By which device it leaves, after it was led elsewhere.
    fn device_to_destination(&self) -> Device {
        if matches!(self.redirected, Some(Fate::Redirect { .. } | Fate::Tproxy { .. })) {
            return Device::Is(String::from("lo"));
        }
        let device = self.view.destination.and_then(|to| self.known.ground.device(to));
        device.map_or(Device::Unknown, Device::Is)
    }

    fn hook(&mut self, point: HookPoint, nat: Nat) -> Result<(), Fate> {
        let hooked = Rc::clone(&self.hooked);
        for hooked in hooked.iter().filter(|hooked| hooked.base.point == point) {
            if !hooked.base.is_nat {
                self.base_chain(hooked)?;
            } else if matches!(point, HookPoint::Input | HookPoint::Postrouting) {
                self.source_nat(hooked)?;
            } else if nat == Nat::Asked && self.view.state.is_first() && !self.is_destination_settled() {
                self.base_chain(hooked)?;
            }
        }
        Ok(())
    }

    /// Where it goes is settled once.
    fn is_destination_settled(&self) -> bool {
        matches!(self.redirected, Some(Fate::Redirect { .. } | Fate::Dnat { .. }))
    }

    /// A chain that can do no more than change the source: where the packet goes was decided elsewhere.
    fn source_nat(&mut self, hooked: &Hooked<'_>) -> Result<(), Fate> {
        if self.is_source_settled || !self.view.state.is_first() {
            return Ok(());
        }
        let (steps, decided) = (self.path.len(), self.decided);
        self.is_about_source = true;
        let end = self.base_chain(hooked);
        self.is_about_source = false;
        if end.is_ok() {
            self.path.truncate(steps);
            self.decided = decided;
        }
        end
    }

    fn base_chain(&mut self, hooked: &Hooked<'_>) -> Result<(), Fate> {
        match self.chain(hooked, hooked.chain) {
            End::Final(fate) => Err(fate),
            End::Returned if hooked.chains[hooked.chain].kind == ChainKind::Builtin(Policy::Drop) => {
                self.decided = None;
                Err(Fate::Drop)
            }
            End::Returned | End::Accepted => Ok(()),
        }
    }

    pub(super) fn chain(&mut self, hooked: &Hooked<'_>, number: usize) -> End {
        // The kernel takes no rules that are as deep as this, or run in a circle; a file may hold anything.
        if self.depth >= DEEPEST || self.count >= MOST_ASKED {
            return self.decide(End::Final(Fate::Unknown));
        }
        self.depth += 1;
        let end = self.rules(hooked, number);
        self.depth -= 1;
        end
    }

    fn rules(&mut self, hooked: &Hooked<'_>, number: usize) -> End {
        let chain = &hooked.chains[number];
        for (index, rule) in chain.rules.iter().enumerate() {
            let at = At {
                table: hooked.table.0,
                chain: number,
                rule: index,
            };
            let fit = self.ask(rule, at);
            if fit == Fit::No || (fit != Fit::Yes && only_watches(&rule.target)) {
                continue;
            }
            if let Fit::ByChance(share) = fit
                && self.dice.throw(vec![share, 1.0 - share]) == 1
            {
                continue;
            }
            self.path.push(Step {
                table: hooked.table.1.clone(),
                chain: chain.name.clone(),
                number: index + 1,
                rule: rule.clone(),
                at,
            });
            if fit == Fit::Unknown {
                return self.decide(End::Final(Fate::Unknown));
            }
            if let Some(end) = self.target(hooked, &rule.target) {
                return end;
            }
        }
        End::Returned
    }

    /// Notes the last step as the one that decided. A redirect stands, whatever lets it pass later.
    pub(super) fn decide(&mut self, end: End) -> End {
        let passes = matches!(end, End::Accepted | End::Returned);
        let last = self.path.last();
        let redirects = last.is_some_and(|step| leads_elsewhere(&step.rule.target));
        if !passes || self.redirected.is_none() || redirects {
            self.decided = self.path.len().checked_sub(1);
        }
        end
    }

    /// Whether the rule fits; notes what stands against it.
    fn ask(&mut self, rule: &Rule, at: At) -> Fit {
        self.count += 1;
        let (mut failed, mut unknown) = (Tests::default(), Tests::default());
        let mut share = None;
        for (number, found) in rule.matches.iter().enumerate() {
            match self.view.fits(found, self.known) {
                Fit::No if self.telling == Telling::Path => return Fit::No,
                Fit::No => failed.add(number),
                Fit::Unknown => unknown.add(number),
                Fit::Yes => {}
                // Never.
                Fit::ByChance(one) if one <= 0.0 => failed.add(number),
                Fit::ByChance(one) => share = Some(share.unwrap_or(1.0) * one),
            }
        }
        let fit = match (failed.is_empty(), unknown.is_empty(), share) {
            (false, ..) => Fit::No,
            (true, false, _) => Fit::Unknown,
            (true, true, None) => Fit::Yes,
            (true, true, Some(share)) => Fit::ByChance(share),
        };
        if self.telling == Telling::Path {
            return fit;
        }
        self.asked.push(Asked {
            at,
            failed,
            unknown,
            met: Met {
                destination: self.view.destination,
                destination_port: self.view.destination_port,
                mark: self.view.mark,
                is_inward: self.view.in_device != Device::None,
                is_about_source: self.is_about_source,
            },
        });
        fit
    }
}
