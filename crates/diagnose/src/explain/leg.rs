//! The client's packet: routed, put before the rules, and where it then arrives.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use model::{Direction, ports};
use netsys::route_to::{Question as RouteQuestion, Route};
use netsys::socket_table::Listener;
use rules::ruleset::{IpProtocol, Target, Test};
use rules::{Family, Fate, Origin, Packet, State, Verdict};

use super::rule::{self, RuleStep};
use super::{End, Finding, Question, Side, Story};

/// Which no packet has: any client port will do.
const CLIENT_PORT: u16 = 40_000;

impl Story<'_> {
    pub(super) fn client_leg(&mut self) -> End {
        let packet = match self.packet() {
            Ok(packet) => packet,
            Err(finding) => return End::fails(finding.what.clone(), finding),
        };
        self.told.client = self.whose(&packet);
        if let Some(assumes) = self.network.assumes() {
            self.remark(assumes);
        }
        if let Some(finding) = self.unlearned() {
            return End::fails("the client does not learn the address", finding);
        }
        let installed = &self.rules.installed;
        let verdict = installed.evaluate_from(&packet, &self.question.client.cgroups);
        self.told.asked = rule::asked(installed, &packet, &verdict);
        self.told.near_misses = rule::near_misses(installed, &packet, &verdict);
        self.told.rule = verdict
            .decided_by()
            .and_then(|step| RuleStep::at(installed, step.at));
        let says = match verdict.decided_by() {
            Some(step) => rule::told(installed, step),
            None if !installed.has_rules(Family::of(packet.destination)) => String::from("none is installed"),
            None => String::from("none decides: it passes every chain to its end"),
        };
        self.step("rule", says);
        match verdict.fate {
            Fate::Unknown => self.not_known(&packet, &verdict),
            Fate::Drop | Fate::Reject => self.stopped(&verdict, "the packet"),
            fate => match self.full_conntrack(&verdict) {
                Some(end) => end,
                None => match fate {
                    Fate::Redirect { port } | Fate::Tproxy { port } => self.captured(&packet, &verdict, port),
                    _ => self.left_alone(&packet, &verdict),
                },
            },
        }
    }

    /// As the kernel would make it, or let it in.
    fn packet(&self) -> Result<Packet, Finding> {
        let question = self.question;
        let to = question.to;
        let ask = RouteQuestion {
            to: to.ip(),
            mark: question.client.mark,
            uid: question.client.uid,
        };
        let route = self
            .network
            .route(ask)
            .map_err(|error| no_route(to.ip(), &error))?;
        let (origin, source, device) = match question.direction {
            Direction::Outbound => {
                let source = question.client.source.or(route.source).unwrap_or(to.ip());
                let origin = Origin::Socket {
                    uid: question.client.uid,
                    gid: question.client.gid,
                    mark: question.client.mark,
                };
                (origin, source, leaving(&route))
            }
            Direction::Inbound if !route.is_local && self.network.assumes().is_none() => {
                return Err(Finding::new(
                    Side::Client,
                    format!(
                        "{} is no address of this namespace, so nothing that goes there comes in here",
                        to.ip()
                    ),
                    "with --in, give an address of the namespace itself in --to",
                ));
            }
            Direction::Inbound => {
                let (source, device) = self.caller(to.ip());
                (Origin::Remote, source, device)
            }
        };
        Ok(Packet {
            origin,
            protocol: question.protocol,
            source,
            source_port: CLIENT_PORT,
            destination: to.ip(),
            destination_port: to.port(),
            device,
            state: State::New,
            connection_mark: 0,
            transparent: false,
            dns_answers: self.dns_answers(),
        })
    }

    /// Whether the proxy's DNS gives signs of life, as far as is known.
    fn dns_answers(&self) -> bool {
        let at = SocketAddr::from(([127, 0, 0, 1], ports::DNS));
        self.listener(IpProtocol::Udp, at).is_ok()
    }

    /// A client from outside, where none is named: the next hop to everywhere, and the device that leads to it.
    fn caller(&self, own: IpAddr) -> (IpAddr, String) {
        let somewhere: IpAddr = match own {
            IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        };
        let source = self.question.client.source;
        let ask = |to| {
            let route = self.network.route(RouteQuestion { to, mark: 0, uid: 0 });
            route.ok().filter(|route| !route.is_local)
        };
        let route = ask(source.unwrap_or(somewhere));
        let device = route
            .as_ref()
            .map_or_else(|| String::from("eth0"), |route| route.device.clone());
        let gateway = route.and_then(|route| route.gateway);
        (source.or(gateway).unwrap_or(somewhere), device)
    }

    /// An address that Weir has made up for a service without one is known to Weir's DNS alone.
    fn unlearned(&self) -> Option<Finding> {
        let Question { host, to, .. } = self.question;
        let is_made_up = match to.ip() {
            IpAddr::V4(ip) => ip.octets()[..2] == [240, 240],
            IpAddr::V6(ip) => ip.segments()[..3] == [0x2001, 2, 0],
        };
        if !is_made_up || host.parse::<IpAddr>().is_ok() {
            return None;
        }
        let query = Packet {
            protocol: IpProtocol::Udp,
            destination_port: 53,
            ..self.packet().ok()?
        };
        (self.rules.installed.evaluate(&query).fate == Fate::Direct).then(|| {
            Finding::new(
                Side::Rules,
                format!("{host} has no ClusterIP; Weir gives it {}, which its own DNS tells, and no rule leads queries there", to.ip()),
                "capture DNS (`weir init --redirect-dns`, `weir proxy --dns`), or give the service a spec.clusterIP",
            )
        })
    }

    fn whose(&self, packet: &Packet) -> String {
        match packet.origin {
            Origin::Socket { uid, gid, mark } => {
                let mark = if mark == 0 {
                    String::new()
                } else {
                    format!(", mark {mark:#x}")
                };
                format!(
                    "{} as uid {uid}, gid {gid}{mark}, by {}",
                    packet.source, packet.device
                )
            }
            Origin::Remote => format!("{} from outside, by {}", packet.source, packet.device),
        }
    }

    fn full_conntrack(&mut self, verdict: &Verdict) -> Option<End> {
        /// From here on, in percent, a burst of connections fills it.
        const HIGH: u64 = 90;
        const FULL: u64 = 99;
        let usage = self.network.conntrack()?;
        let reaches = |percent: u64| {
            let limit = u128::from(usage.limit) * u128::from(percent);
            verdict.is_tracked && usage.limit > 0 && u128::from(usage.entries) * 100 >= limit
        };
        let is_full = reaches(FULL);
        if reaches(HIGH) && !is_full {
            self.remark(format!(
                "the kernel's table of connections is nearly full: {} of at most {}",
                usage.entries, usage.limit
            ));
        }
        is_full.then(|| {
            End::fails(
                "the kernel's table of connections is full, so it drops what opens a new one",
                Finding::new(
                    Side::Rules,
                    format!(
                        "conntrack has {} of at most {} entries",
                        usage.entries, usage.limit
                    ),
                    "raise net.netfilter.nf_conntrack_max, or see by `conntrack -L` who holds so many; \
                     the metric weir_conntrack_entries warns beforehand",
                ),
            )
        })
    }

    fn not_known(&self, packet: &Packet, verdict: &Verdict) -> End {
        let installed = &self.rules.installed;
        let step = verdict.decided_by();
        let by = step.map_or_else(String::new, |step| rule::told(installed, step));
        let last = self.told.asked.last();
        let what = match last.filter(|asked| !asked.fits) {
            Some(asked) => format!("{by}: {}", asked.because.join("; ")),
            None if step.is_some_and(|step| matches!(step.rule.target, Target::Other(_))) => {
                format!("{by}: what it does is not known here")
            }
            None => {
                let family = Family::of(packet.destination);
                let ties = installed.ties(family);
                let ties: Vec<_> = ties
                    .iter()
                    .map(|(one, other)| format!("{one} and {other}"))
                    .collect();
                format!(
                    "{} are asked at the same priority: which of them is first depends on which was made last, and \
                     here they decide differently",
                    ties.join(", ")
                )
            }
        };
        End::Stops(
            super::Outcome::Unknown,
            String::from("a rule could decide of which it cannot be said what it does"),
            Finding::new(
                Side::Rules,
                what,
                "--trace sends one connection and shows what the kernel does with it",
            ),
        )
    }

    /// By a rule, or by the policy of a chain. `what` says whose packet it is.
    pub(super) fn stopped(&self, verdict: &Verdict, what: &str) -> End {
        let installed = &self.rules.installed;
        let how = if verdict.fate == Fate::Drop {
            "drops"
        } else {
            "rejects"
        };
        let feels = match verdict.fate {
            Fate::Drop => "the client waits until it times out",
            _ => "the client is refused at once",
        };
        let Some(step) = verdict.decided_by() else {
            let dropping = super::reason::dropping(installed, Family::of(self.question.to.ip()));
            return End::fails(
                format!("the policy of a chain drops {what}: {feels}"),
                Finding::new(
                    Side::Rules,
                    format!("no rule accepts it, and {dropping} at its end"),
                    "add a rule that accepts it there, or set the chain's policy to accept",
                ),
            );
        };
        let rule = rule::told(installed, step);
        End::fails(
            format!("a rule {how} {what}: {feels}"),
            Finding::new(Side::Rules, rule, rule::removal(installed, step.at)),
        )
    }

    /// It is led to a port of this namespace.
    fn captured(&mut self, packet: &Packet, verdict: &Verdict, port: u16) -> End {
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
            _ => End::Works(format!(
                "goes to whoever listens on port {port} here; what that does with it is not Weir's to know"
            )),
        }
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

/// A local destination is reached over loopback, whatever device has the address.
fn leaving(route: &Route) -> String {
    if route.is_local {
        String::from("lo")
    } else {
        route.device.clone()
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

fn no_route(to: IpAddr, error: &std::io::Error) -> Finding {
    let family = Family::of(to);
    Finding::new(
        Side::Client,
        format!(
            "there is no route to {to} in this namespace: connect() fails with `{error}`, before any rule is asked"
        ),
        format!(
            "give the namespace an {family} address and a route (`ip -{} route`)",
            if to.is_ipv4() { 4 } else { 6 }
        ),
    )
}
