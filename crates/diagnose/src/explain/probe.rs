//! Whether those answer that the connection would come to: each is called once, and the call closed at once, where
//! the question allows it.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use model::Direction;
use netsys::route_to::Question as RouteQuestion;
use netsys::rules::Sent;
use netsys::socket_table::Listener;
use rules::Fate;
use rules::ruleset::{IpProtocol, Test};

use super::network::PATIENCE;
use super::onward::of_proxy;
use super::{End, Finding, Side, Story};
use crate::journey::elapsed;

/// As many endpoints are called.
const MOST: usize = 64;
/// As many answers are shown.
const SHOWN: usize = 6;

impl Story<'_> {
    /// Calls endpoints as the proxy would; an end where not one of them takes the connection.
    pub(super) fn probe_endpoints(&mut self, all: &[SocketAddr], listener: Option<Listener>) -> Option<End> {
        let known = listener.filter(|_| self.network.has_proxy() && !all.is_empty());
        let Some(Listener { uid, .. }) = known else {
            if self.network.assumes().is_none() {
                self.remark("whether the endpoints answer was not tried: they are called from elsewhere");
            }
            return None;
        };
        let mark = self.mark_of_proxy();
        let is_let_out = |to: &SocketAddr| {
            let ask = RouteQuestion {
                to: to.ip(),
                mark,
                uid,
            };
            let route = self.network.route(ask).ok()?;
            let verdict = self.by_rules(&of_proxy(*to, &route, uid, mark));
            (verdict.fate == Fate::Direct).then_some(*to)
        };
        let called: Vec<SocketAddr> = all.iter().take(MOST).filter_map(is_let_out).collect();
        let calls: Vec<Sent> = called.iter().map(|to| call(*to, uid, uid, mark)).collect();
        let Some(answers) = self.network.knock(&calls) else {
            if self.network.assumes().is_none() {
                self.remark("whether the endpoints answer was not tried; --probe calls them");
            }
            return None;
        };
        if called.len() < all.len() {
            self.remark(format!(
                "{} of {} endpoints were not called: only the first {MOST} are, and only where the rules let the proxy's \
                 call out",
                all.len() - called.len(),
                all.len()
            ));
        }
        let each: Vec<_> = called.iter().copied().zip(&answers).collect();
        self.tell_answers(&each);
        self.judge(
            &each,
            "no endpoint takes the connection: HTTP gets 503, anything else is closed",
        )
    }

    /// Calls the destination as the client would.
    pub(super) fn answers_to_client(&mut self, to: SocketAddr) -> Option<End> {
        let client = &self.question.client;
        if self.question.direction == Direction::Inbound {
            return None;
        }
        let call = call(to, client.uid, client.gid, client.mark);
        let Some(answers) = self.network.knock(&[call]) else {
            if self.network.assumes().is_none() {
                self.remark(format!("whether {to} answers was not tried; --probe calls it"));
            }
            return None;
        };
        let each: Vec<_> = answers.iter().map(|answer| (to, answer)).collect();
        self.tell_answers(&each);
        self.judge(&each, "the destination does not take the connection")
    }

    fn tell_answers(&mut self, each: &[(SocketAddr, &io::Result<Duration>)]) {
        let mut shown: Vec<String> = vec![];
        for (to, answer) in each {
            let says = says(answer);
            if shown.len() < SHOWN {
                shown.push(format!("{to} {says}"));
            }
            let mut candidates = self.told.endpoints.iter_mut();
            if let Some(candidate) = candidates.find(|candidate| candidate.address == *to) {
                candidate.answer = Some(says);
            }
        }
        let more = match each.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        if !shown.is_empty() {
            self.step("probe", format!("{}{more}", shown.join(", ")));
        }
    }

    /// An end where not one of them takes the connection.
    fn judge(&mut self, each: &[(SocketAddr, &io::Result<Duration>)], headline: &str) -> Option<End> {
        let bad: Vec<_> = each.iter().filter(|(_, answer)| answer.is_err()).collect();
        let (_, answer) = bad.first()?;
        let named = bad
            .iter()
            .take(3)
            .map(|(to, answer)| format!("{to} {}", says(answer)));
        let mut what = named.collect::<Vec<_>>().join(", ");
        if bad.len() > 3 {
            what.push_str(&format!(", and {} more like it", bad.len() - 3));
        }
        if bad.len() < each.len() {
            self.remark(format!(
                "{} of {} endpoints do not take a connection: {what}; the proxy tries another one, and ejects those that \
                 fail often",
                bad.len(),
                each.len()
            ));
            return None;
        }
        Some(End::fails(
            headline,
            Finding::new(Side::Endpoint, what, fix(answer)),
        ))
    }

    /// By which the rules recognise the proxy, where they do by a mark.
    fn mark_of_proxy(&self) -> u32 {
        let tables = self.rules.installed.tables.iter();
        let rules = tables
            .flat_map(|table| &table.chains)
            .flat_map(|chain| &chain.rules);
        let ours = rules.filter(|rule| {
            rule.comment()
                .is_some_and(|text| text.contains("made by the proxy"))
        });
        let mut tests = ours.flat_map(|rule| &rule.matches);
        let mark = tests.find_map(|found| match found.test {
            Test::Mark(mark) if !found.negated => Some(mark.value),
            _ => None,
        });
        mark.unwrap_or(0)
    }
}

fn call(to: SocketAddr, uid: u32, gid: u32, mark: u32) -> Sent {
    Sent {
        protocol: IpProtocol::Tcp,
        to,
        uid,
        gid,
        mark,
    }
}

/// `answers in 0.4 ms`, `refuses the connection`.
fn says(answer: &io::Result<Duration>) -> String {
    match answer {
        Ok(took) => format!("answers in {}", elapsed(*took)),
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused => String::from("refuses the connection"),
            ErrorKind::TimedOut | ErrorKind::WouldBlock => {
                format!("does not answer within {}", elapsed(PATIENCE))
            }
            ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => {
                format!("cannot be reached: {error}")
            }
            _ => format!("cannot be called: {error}"),
        },
    }
}

fn fix(answer: &io::Result<Duration>) -> &'static str {
    let kind = answer.as_ref().err().map(io::Error::kind);
    match kind {
        Some(ErrorKind::ConnectionRefused) => {
            "nobody listens there: is the application up, does it listen on the pod's address (not on 127.0.0.1 alone), and \
             is the targetPort its port?"
        }
        Some(ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
            "the machine is gone, or something on the way drops it: a NetworkPolicy, a security group, the pod's own rules \
             (run `weir explain --in` there)"
        }
        Some(ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable) => {
            "is the pod still there, and does the EndpointSlice have its address of today?"
        }
        _ => "see what the error says",
    }
}
