//! The way of a packet through the chains that the kernel asks, in its order, and what their targets do to it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;

use super::verdict::{Asked, At, Fate, Met, Step, Tests, Verdict};
use super::view::{Fit, Holder, View};
use super::{Origin, Packet, State};
use crate::cgroup::Membership;
use crate::installed::{Base, HookPoint};
use crate::ruleset::{Chain, ChainKind, Policy, Rule, Target};

/// The same through any chains that the kernel asks; those of one hook and priority in the order given.
pub(crate) fn follow(
    mut hooked: Vec<Hooked<'_>>,
    packet: &Packet,
    cgroups: &Membership,
    telling: Telling,
) -> Verdict {
    hooked.sort_by_key(|hooked| hooked.base.priority);
    let mut walk = Walk {
        hooked: hooked.into(),
        cgroups,
        view: View::of(packet),
        path: vec![],
        telling,
        asked: vec![],
        count: 0,
        decided: None,
        is_seen: false,
        depth: 0,
        redirected: None,
    };
    let fate = walk.fate(packet);
    Verdict {
        fate,
        mark: walk.view.mark,
        connection_mark: walk.view.connection_mark,
        is_tracked: walk.view.state != State::Untracked,
        zone: walk.view.zone,
        is_remembered: walk.view.is_remembered,
        path: walk.path,
        decided: walk.decided,
        asked: walk.asked,
    }
}

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

struct Walk<'a> {
    /// In the order of their priorities.
    hooked: Rc<[Hooked<'a>]>,
    cgroups: &'a Membership,
    view: View,
    path: Vec<Step>,
    telling: Telling,
    asked: Vec<Asked>,
    /// How many rules were asked.
    count: usize,
    decided: Option<usize>,
    /// Whether conntrack has seen it: what is made here it sees as it is sent, and not again as it arrives.
    is_seen: bool,
    /// How many chains have been entered by jumps and not been left.
    depth: usize,
    /// Where it goes instead: a [`Fate::Redirect`] or a [`Fate::Tproxy`].
    redirected: Option<Fate>,
}

/// Whether NAT is still to be asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nat {
    Asked,
    Over,
}

/// How a chain ended.
enum End {
    /// At its end or by RETURN: the caller goes on.
    Returned,
    /// The table is done with the packet.
    Accepted,
    /// Nothing more is asked.
    Final(Fate),
}

impl Walk<'_> {
    fn fate(&mut self, packet: &Packet) -> Fate {
        match self.pass(packet) {
            Err(fate) => fate,
            Ok(()) => self.redirected.unwrap_or(Fate::Direct),
        }
    }

    fn pass(&mut self, packet: &Packet) -> Result<(), Fate> {
        match packet.origin {
            Origin::Remote => self.hook(HookPoint::Prerouting, Nat::Asked)?,
            Origin::Socket { .. } => {
                self.hook(HookPoint::Output, Nat::Asked)?;
                self.is_seen = true;
                if self.redirected.is_some() {
                    self.view.out_device = Some("lo".to_owned());
                }
                // Source NAT moves nothing.
                self.hook(HookPoint::Postrouting, Nat::Over)?;
                if self.view.out_device.as_deref() != Some("lo") {
                    return Ok(());
                }
                self.view.in_device = self.view.out_device.take();
                self.view.owner = None;
                // Over `lo` the connection has been through NAT already.
                self.hook(HookPoint::Prerouting, Nat::Over)?;
            }
        }
        self.hook(HookPoint::Input, Nat::Over)
    }

    fn hook(&mut self, point: HookPoint, nat: Nat) -> Result<(), Fate> {
        let hooked = Rc::clone(&self.hooked);
        for hooked in hooked.iter().filter(|hooked| hooked.base.point == point) {
            self.base_chain(hooked, nat)?;
        }
        Ok(())
    }

    fn base_chain(&mut self, hooked: &Hooked<'_>, nat: Nat) -> Result<(), Fate> {
        // Where it goes is settled once.
        let is_settled = matches!(self.redirected, Some(Fate::Redirect { .. }));
        if hooked.base.is_nat && (nat == Nat::Over || !self.view.state.is_first() || is_settled) {
            return Ok(());
        }
        match self.chain(hooked, hooked.chain) {
            End::Final(fate) => Err(fate),
            End::Returned if hooked.chains[hooked.chain].kind == ChainKind::Builtin(Policy::Drop) => {
                self.decided = None;
                Err(Fate::Drop)
            }
            End::Returned | End::Accepted => Ok(()),
        }
    }

    fn chain(&mut self, hooked: &Hooked<'_>, number: usize) -> End {
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
            if fit == Fit::No || (fit == Fit::Unknown && only_watches(&rule.target)) {
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

    /// None where the next rule is asked.
    fn target(&mut self, hooked: &Hooked<'_>, target: &Target) -> Option<End> {
        match target {
            Target::Continue => None,
            Target::Accept => Some(self.decide(End::Accepted)),
            Target::Return => Some(self.decide(End::Returned)),
            Target::Drop => Some(self.decide(End::Final(Fate::Drop))),
            Target::Reject(_) => Some(self.decide(End::Final(Fate::Reject))),
            Target::Redirect(port) => {
                self.redirect(*port);
                Some(self.decide(End::Accepted))
            }
            Target::Tproxy { or_next, .. } if self.view.holder == Holder::Plain => {
                if *or_next {
                    // It has not fitted.
                    self.path.pop();
                    return None;
                }
                Some(self.decide(End::Final(Fate::Drop)))
            }
            Target::Tproxy {
                port,
                mark,
                connection,
                ..
            } => {
                self.redirected = Some(Fate::Tproxy { port: *port });
                self.view.mark = mark.unwrap_or(self.view.mark);
                self.mark_connection(connection.unwrap_or(self.view.connection_mark));
                Some(self.decide(End::Accepted))
            }
            Target::MarkConnection(mark) => {
                self.mark_connection(*mark);
                None
            }
            Target::Mark(mark) => {
                self.view.mark = *mark;
                None
            }
            Target::SaveMark => {
                self.mark_connection(self.view.mark);
                None
            }
            Target::RestoreMark => {
                if self.view.state != State::Untracked {
                    self.view.mark = self.view.connection_mark;
                }
                None
            }
            Target::Notrack => {
                if !self.is_seen {
                    self.view.state = State::Untracked;
                }
                None
            }
            Target::Zone(zone) => {
                // Only the first one counts.
                if self.view.zone == 0 {
                    self.view.zone = *zone;
                }
                None
            }
            Target::Remember(_) => {
                self.view.is_remembered = true;
                self.view.dns_answers = true;
                None
            }
            Target::Jump(name) | Target::Goto(name) => {
                let Some(chain) = hooked.chains.iter().position(|chain| chain.name == *name) else {
                    return Some(self.decide(End::Final(Fate::Unknown)));
                };
                match self.chain(hooked, chain) {
                    End::Returned if matches!(target, Target::Jump(_)) => None,
                    end => Some(end),
                }
            }
            Target::Other(_) if only_watches(target) => None,
            Target::Other(text) => match new_mark(text, self.view.mark) {
                Some(mark) => {
                    self.view.mark = mark;
                    None
                }
                None => Some(self.decide(End::Final(Fate::Unknown))),
            },
        }
    }

    fn mark_connection(&mut self, mark: u32) {
        if self.view.state != State::Untracked {
            self.view.connection_mark = mark;
        }
    }

    /// Notes the last step as the one that decided. A redirect stands, whatever lets it pass later.
    fn decide(&mut self, end: End) -> End {
        let passes = matches!(end, End::Accepted | End::Returned);
        let last = self.path.last();
        let redirects =
            last.is_some_and(|step| matches!(step.rule.target, Target::Redirect(_) | Target::Tproxy { .. }));
        if !passes || self.redirected.is_none() || redirects {
            self.decided = self.path.len().checked_sub(1);
        }
        end
    }

    fn redirect(&mut self, port: u16) {
        self.redirected = Some(Fate::Redirect { port });
        self.view.destination_port = port;
        self.view.destination = match (self.view.owner, self.view.source) {
            (None, _) => None,
            (Some(_), IpAddr::V4(_)) => Some(std::net::Ipv4Addr::LOCALHOST.into()),
            (Some(_), IpAddr::V6(_)) => Some(std::net::Ipv6Addr::LOCALHOST.into()),
        };
    }

    /// Whether the rule fits; notes what stands against it.
    fn ask(&mut self, rule: &Rule, at: At) -> Fit {
        self.count += 1;
        let (mut failed, mut unknown) = (Tests::default(), Tests::default());
        for (number, found) in rule.matches.iter().enumerate() {
            match self.view.fits(found, self.cgroups) {
                Fit::No if self.telling == Telling::Path => return Fit::No,
                Fit::No => failed.add(number),
                Fit::Unknown => unknown.add(number),
                Fit::Yes => {}
            }
        }
        let fit = match (failed.is_empty(), unknown.is_empty()) {
            (false, _) => Fit::No,
            (true, false) => Fit::Unknown,
            (true, true) => Fit::Yes,
        };
        if self.telling == Telling::Path {
            return fit;
        }
        self.asked.push(Asked {
            at,
            failed,
            unknown,
            met: Met {
                destination_port: self.view.destination_port,
                mark: self.view.mark,
                is_inward: self.view.in_device.is_some(),
            },
        });
        fit
    }
}

/// Targets that look at a packet, or change what no test here looks at.
fn only_watches(target: &Target) -> bool {
    const WATCHERS: [&str; 8] = [
        "LOG", "NFLOG", "TRACE", "AUDIT", "TCPMSS", "DSCP", "TOS", "CHECKSUM",
    ];
    match target {
        Target::Continue => true,
        Target::Other(text) => {
            text.split(' ')
                .next()
                .is_some_and(|name| WATCHERS.contains(&name))
                || text.starts_with("CONNMARK --save-mark")
                // Which of two tables of connections it is kept in.
                || text.starts_with("CT --zone")
                || text.starts_with("ct zone set ")
                || text == "meta nftrace set 1"
        }
        _ => false,
    }
}

/// What `MARK --set-xmark VALUE/MASK` makes of a mark.
fn new_mark(target: &str, mark: u32) -> Option<u32> {
    let text = target.strip_prefix("MARK --set-xmark ")?;
    let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
    let number = |text: &str| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    Some((mark & !number(mask)?) ^ number(value)?)
}
