//! The proxy's own packet to where it sends a connection on.

use std::net::SocketAddr;

use model::ports;
use netsys::route_to::{Question as RouteQuestion, Route};
use netsys::socket_table::Listener;
use rules::ruleset::{IpProtocol, Test};
use rules::{Family, Fate, Origin, Packet, State, Verdict};

use super::{End, Finding, Side, Story};

impl Story<'_> {
    /// The proxy's own packet to the next hop; none where nothing is in its way, or nothing is known.
    pub(super) fn onward(&mut self, to: SocketAddr, listener: Option<Listener>) -> Option<End> {
        let uid = listener.filter(|_| self.network.has_proxy())?.uid;
        let question = RouteQuestion {
            to: to.ip(),
            mark: 0,
            uid,
        };
        let route = match self.network.route(question) {
            Ok(route) => route,
            Err(error) => {
                return Some(End::fails(
                    format!("the proxy cannot reach {to}: {error}"),
                    Finding::new(
                        Side::Proxy,
                        format!("there is no route to {} in the proxy's namespace", to.ip()),
                        "mend the namespace's routes (`ip route`), or the address in the EndpointSlice",
                    ),
                ));
            }
        };
        let packet = of_proxy(to, &route, uid, 0);
        let verdict = self.by_rules(&packet);
        match verdict.fate {
            Fate::Drop | Fate::Reject => {
                Some(self.stopped(&verdict, &format!("what the proxy sends to {to}")))
            }
            Fate::Redirect {
                port: ports::OUTBOUND,
            } if self.is_recognised_by_uid(&packet) => Some(looped(&self.rules.installed, &verdict, uid)),
            Fate::Direct => self.lost_answer(&packet),
            _ => None,
        }
    }

    /// What is answered to a packet that left as it was; an end where rules do not let that in.
    pub(super) fn lost_answer(&self, sent: &Packet) -> Option<End> {
        let from = SocketAddr::new(sent.destination, sent.destination_port);
        let answer = Packet {
            origin: Origin::Remote,
            source: sent.destination,
            source_port: sent.destination_port,
            destination: sent.source,
            destination_port: sent.source_port,
            state: State::Established,
            ..sent.clone()
        };
        let verdict = self.by_rules(&answer);
        let is_stopped = matches!(verdict.fate, Fate::Drop | Fate::Reject);
        is_stopped.then(|| self.stopped(&verdict, &format!("what {from} answers")))
    }

    /// What the rules do with a packet of the proxy's.
    pub(super) fn by_rules(&self, packet: &Packet) -> Verdict {
        let none = rules::cgroup::Membership::default();
        self.rules.installed.evaluate_in(packet, &none, self.network)
    }

    /// Whether the proxy is told from others by its uid alone: a group or a mark of it is not to be seen.
    fn is_recognised_by_uid(&self, packet: &Packet) -> bool {
        let rules = self.rules.installed.of(Family::of(packet.destination));
        let tests = rules
            .flat_map(|table| &table.chains)
            .flat_map(|chain| &chain.rules)
            .filter(|rule| {
                rule.comment()
                    .is_some_and(|text| text.contains("made by the proxy"))
            })
            .flat_map(|rule| &rule.matches);
        let mut by_uid = false;
        for found in tests {
            match found.test {
                Test::Uid(..) | Test::Uids(_) => by_uid = true,
                Test::Mark(_) | Test::Class(_) | Test::Classes(_) | Test::Cgroup(_) | Test::Other(_) => {
                    return false;
                }
                _ => {}
            }
        }
        by_uid
    }
}

/// A packet of the proxy's own.
pub(super) fn of_proxy(to: SocketAddr, route: &Route, uid: u32, mark: u32) -> Packet {
    Packet {
        origin: Origin::Socket { uid, gid: uid, mark },
        protocol: IpProtocol::Tcp,
        source: route.source.unwrap_or(to.ip()),
        source_port: 40_001,
        destination: to.ip(),
        destination_port: to.port(),
        device: match route.is_local {
            true => String::from("lo"),
            false => route.device.clone(),
        },
        state: State::New,
        connection_mark: 0,
        transparent: false,
        dns_answers: true,
    }
}

fn looped(installed: &rules::Installed, verdict: &Verdict, uid: u32) -> End {
    let by = verdict
        .decided_by()
        .map_or_else(String::new, |step| super::rule::told(installed, step));
    End::fails(
        "the proxy's own connections are captured again, so that they come back to it and never leave",
        Finding::new(
            Side::Proxy,
            format!("the proxy runs as uid {uid}, by which the rules do not recognise it: {by}"),
            "run it as the uid of `weir init -u` (1337), or give weir init its uid",
        ),
    )
}
