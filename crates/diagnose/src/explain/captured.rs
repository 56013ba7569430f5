//! What is led to a port of this namespace: who listens there, and whether what it answers comes back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use model::ports;
use netsys::route_to::Question as RouteQuestion;
use netsys::socket_table::Listener;
use rules::evaluate::AddressKind;
use rules::ruleset::{IpProtocol, Target, Test};
use rules::{Family, Fate, Origin, Packet, Verdict};

use super::rule;
use super::{End, Finding, Outcome, Side, Story};

impl Story<'_> {
    /// It is led to a port of this namespace.
    pub(super) fn captured(&mut self, packet: &Packet, verdict: &Verdict, port: u16) -> End {
        let is_tproxy = matches!(verdict.fate, Fate::Tproxy { .. });
        let at = SocketAddr::new(arrives_at(packet, is_tproxy), port);
        let listener = match self.listener(packet.protocol, at) {
            Ok(listener) => listener,
            Err(()) => return self.nobody_listens(verdict, at),
        };
        let who = match listener {
            Some(listener) => format!("listens at {}, made by uid {}", listener.address, listener.uid),
            None => format!("is taken to listen on port {port}"),
        };
        self.step("proxy", who);
        if is_tproxy && let Some(finding) = self.lost_answers(packet) {
            return End::fails("the application's answers do not come back to the proxy", finding);
        }
        match (port, packet.protocol) {
            (ports::DNS, _) => End::Works(format!(
                "the proxy's DNS on port {port} answers instead of {}",
                self.question.to
            )),
            (ports::OUTBOUND, IpProtocol::Tcp) => self.outbound(listener),
            (ports::INBOUND, IpProtocol::Tcp) => self.inbound(listener),
            _ => End::Passes(format!(
                "goes to whoever listens on port {port} here; what that does with it is not Weir's to know"
            )),
        }
    }

    /// Another address is put in the place of the one that it was going to.
    pub(super) fn led_elsewhere(&mut self, packet: &Packet, verdict: &Verdict, to: SocketAddr) -> End {
        let installed = &self.rules.installed;
        let step = verdict.decided_by();
        let by = step.map_or_else(String::new, |step| rule::told(installed, step));
        if self.network.kind(to.ip()) == Some(AddressKind::Local) {
            return match ports::is_capture_port(to.port()) {
                true => self.captured(packet, verdict, to.port()),
                false => self.local(to, packet.protocol, &by),
            };
        }
        if let Some(owner) = self
            .owner(self.question.to)
            .filter(|_| packet.protocol == IpProtocol::Tcp)
        {
            let fix = step.map_or_else(String::new, |step| rule::removal(installed, step.at));
            return End::Stops(
                Outcome::Bypasses,
                format!(
                    "it is sent to {to} instead, past the proxy: {} is {owner}",
                    self.question.to
                ),
                Finding::new(
                    Side::Rules,
                    match rule::captures(installed, Family::of(packet.destination)) {
                        true => format!("a rule in front of those that capture leads it elsewhere: {by}"),
                        false => format!(
                            "no rule of this namespace captures it, and this one leads it elsewhere: {by}"
                        ),
                    },
                    fix,
                ),
            );
        }
        if let Some(end) = self.answers_to_client(to) {
            return end;
        }
        End::Passes(format!("it is sent to {to} instead, not by the proxy"))
    }

    fn local(&mut self, to: SocketAddr, protocol: IpProtocol, by: &str) -> End {
        if self.listener(protocol, to).is_err() {
            self.step("endpoint", format!("nobody listens at {to}"));
            return End::fails(
                format!("it is sent to {to} in this namespace, where nobody listens"),
                Finding::new(
                    Side::Rules,
                    format!("no process of this namespace listens where a rule leads it: {by}"),
                    "start what should listen there, or take the rule out",
                ),
            );
        }
        End::Passes(format!(
            "it is sent to {to} in this namespace instead, not by the proxy"
        ))
    }

    /// Who takes what goes to an address of this namespace: nobody is an error, none is not to be known.
    pub(super) fn listener(&self, protocol: IpProtocol, at: SocketAddr) -> Result<Option<Listener>, ()> {
        let Some(all) = self.network.listeners(protocol) else {
            return Ok(None);
        };
        let mut takes = all.into_iter().filter(|listener| listener.takes(at));
        takes.next().map(Some).ok_or(())
    }

    fn nobody_listens(&mut self, verdict: &Verdict, at: SocketAddr) -> End {
        let port = at.port();
        self.step("proxy", format!("nobody listens at {at}"));
        let installed = &self.rules.installed;
        let step = verdict.decided_by();
        let ours = step.is_some_and(|step| {
            let table = installed.tables.get(step.at.table);
            table.is_some_and(|table| rule::is_ours(table, &step.chain, &step.rule))
        });
        let felt = if matches!(verdict.fate, Fate::Tproxy { .. }) {
            "the connection times out"
        } else {
            "the connection is refused at once"
        };
        let headline = format!("it is redirected to port {port}, where nobody listens: {felt}");
        let by = step.map_or_else(String::new, |step| rule::told(installed, step));
        if ours || ports::is_capture_port(port) || port == ports::DNS {
            let how = match port {
                ports::DNS => "start the proxy with --dns",
                _ => {
                    "start it (`weir proxy`), or see why it ended; `weir init --cleanup` lets connections pass meanwhile"
                }
            };
            return End::fails(
                headline,
                Finding::new(
                    Side::Proxy,
                    format!("the proxy does not listen at {at}: it is dead, or not started"),
                    how,
                ),
            );
        }
        let fix = step.map_or_else(String::new, |step| rule::removal(installed, step.at));
        End::fails(
            headline,
            Finding::new(
                Side::Rules,
                format!("a rule that is not Weir's redirects it: {by}"),
                fix,
            ),
        )
    }

    /// With TPROXY, what the application answers is led back to the proxy by a mark: routing must know that mark.
    fn lost_answers(&self, packet: &Packet) -> Option<Finding> {
        let installed = &self.rules.installed;
        let rules = installed
            .of(Family::of(packet.destination))
            .flat_map(|table| &table.chains)
            .flat_map(|chain| &chain.rules);
        let marks = rules.filter_map(|rule| {
            let mark = rule.matches.iter().find_map(|found| match found.test {
                Test::ConnectionMark(mark) if !found.negated => Some(mark.value),
                _ => None,
            })?;
            (rule.target == Target::RestoreMark).then_some(mark)
        });
        for mark in marks {
            let to = packet.source;
            let route = self.network.route(RouteQuestion { to, mark, uid: 0 });
            if route.is_ok_and(|route| route.is_local) || self.network.assumes().is_some() {
                continue;
            }
            return Some(Finding::new(
                Side::Rules,
                format!(
                    "packets of mark {mark:#x} are not routed to this namespace itself: the policy route of TPROXY is gone"
                ),
                "run the same `weir init -m TPROXY` again, which puts the routing rule and its route back",
            ));
        }
        None
    }
}

/// Where a redirect leads: a local client's to loopback, others' to the address of the device.
fn arrives_at(packet: &Packet, is_tproxy: bool) -> IpAddr {
    match (packet.origin, packet.destination) {
        (Origin::Socket { .. }, IpAddr::V4(_)) if !is_tproxy => Ipv4Addr::LOCALHOST.into(),
        (Origin::Socket { .. }, IpAddr::V6(_)) if !is_tproxy => Ipv6Addr::LOCALHOST.into(),
        (_, to) => to,
    }
}
