//! What the target of a rule that fits does to the packet, and to its way.

use std::net::IpAddr;

use super::State;
use super::verdict::Fate;
use super::view::Holder;
use super::walk::{End, Hooked, Walk};
use crate::family::Family;
use crate::ruleset::{Addresses, Does, NewDestination, Target};

impl Walk<'_> {
    /// None where the next rule is asked.
    pub(super) fn target(&mut self, hooked: &Hooked<'_>, target: &Target) -> Option<End> {
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
            Target::Foreign(target) => self.of_others(hooked, &target.does),
            Target::Other(_) if only_watches(target) => None,
            Target::Other(_) => Some(self.decide(End::Final(Fate::Unknown))),
        }
    }

    fn mark_connection(&mut self, mark: u32) {
        if self.view.state != State::Untracked {
            self.view.connection_mark = mark;
        }
    }

    fn of_others(&mut self, hooked: &Hooked<'_>, does: &Does) -> Option<End> {
        match does {
            Does::Dnat(to) => Some(match self.lead_to(*to) {
                Some(()) => self.decide(End::Accepted),
                None => self.decide(End::Final(Fate::Unknown)),
            }),
            Does::Snat(to) => {
                self.view.source = *to;
                self.view.has_new_source = true;
                self.is_source_settled = true;
                Some(self.decide(End::Accepted))
            }
            Does::ChangeMark(change) => {
                let view = &mut self.view;
                // What is not tracked has no connection whose mark there is.
                if change.of_connection && view.state != State::Untracked {
                    view.connection_mark = change.apply(view.connection_mark, view.mark);
                } else if !change.of_connection && (change.take == 0 || view.state != State::Untracked) {
                    view.mark = change.apply(view.mark, view.connection_mark);
                }
                None
            }
            Does::InTurn(targets) => targets.iter().find_map(|target| self.target(hooked, target)),
            Does::Cases(cases) => {
                let mut is_known = true;
                for case in cases {
                    match self.view.all_hold(&case.when, self.known) {
                        Some(true) => return self.target(hooked, &case.then),
                        Some(false) => {}
                        None => is_known = false,
                    }
                }
                (!is_known).then(|| self.decide(End::Final(Fate::Unknown)))
            }
            Does::Split { of, ways } => {
                let share = |times: u32| f64::from(times) / f64::from(*of);
                let mut shares: Vec<f64> = ways.iter().map(|(times, _)| share(*times)).collect();
                shares.push(1.0 - shares.iter().sum::<f64>());
                let (_, then) = ways.get(self.dice.throw(shares))?;
                self.target(hooked, then)
            }
        }
    }

    /// None where the kernel chooses among too many.
    fn lead_to(&mut self, to: NewDestination) -> Option<()> {
        /// Addresses that are looked at one by one.
        const MOST: usize = 64;
        let address = match to.addresses {
            None => self.view.destination?,
            Some((first, last)) if first == last => first,
            Some(range) => {
                let all = Addresses::from_ranges(Family::of(range.0), [range].into_iter());
                let all: Vec<IpAddr> = all.iter().take(MOST + 1).collect();
                (all.len() <= MOST).then_some(())?;
                let share = 1.0 / all.len() as f64;
                all[self.dice.throw(vec![share; all.len()])]
            }
        };
        let port = to.port.unwrap_or(self.view.destination_port);
        self.redirected = Some(Fate::Dnat { to: address, port });
        self.view.destination = Some(address);
        self.view.destination_port = port;
        Some(())
    }

    fn redirect(&mut self, port: u16) {
        self.redirected = Some(Fate::Redirect { port });
        self.view.destination_port = port;
        self.view.destination = match (self.view.owner, self.view.original.0) {
            (None, _) => None,
            (Some(_), IpAddr::V4(_)) => Some(std::net::Ipv4Addr::LOCALHOST.into()),
            (Some(_), IpAddr::V6(_)) => Some(std::net::Ipv6Addr::LOCALHOST.into()),
        };
    }
}

/// Targets that look at a packet, or change what no test here looks at.
pub(super) fn only_watches(target: &Target) -> bool {
    const WATCHERS: [&str; 17] = [
        "LOG",
        "NFLOG",
        "TRACE",
        "AUDIT",
        "TCPMSS",
        "DSCP",
        "TOS",
        "CHECKSUM",
        "CLASSIFY",
        "SET",
        "TEE",
        "TTL",
        "HL",
        "ECN",
        "LED",
        "IDLETIMER",
        "RATEEST",
    ];
    match target {
        Target::Continue => true,
        Target::Other(text) => {
            text.split(' ')
                .next()
                .is_some_and(|name| WATCHERS.contains(&name))
                // Which of two tables of connections it is kept in.
                || text.starts_with("CT --zone")
                || text.starts_with("ct zone set ")
                || text == "meta nftrace set 1"
        }
        _ => false,
    }
}

/// Whether that is where the packet goes, whatever lets it pass later.
pub(super) fn leads_elsewhere(target: &Target) -> bool {
    match target {
        Target::Redirect(_) | Target::Tproxy { .. } => true,
        Target::Foreign(target) => match &target.does {
            Does::Dnat(_) => true,
            Does::Cases(cases) => cases.iter().any(|case| leads_elsewhere(&case.then)),
            Does::Split { ways, .. } => ways.iter().any(|(_, then)| leads_elsewhere(then)),
            Does::InTurn(targets) => targets.iter().any(leads_elsewhere),
            Does::Snat(_) | Does::ChangeMark(_) => false,
        },
        _ => false,
    }
}
