//! The client's packet, as the kernel would make it or let it in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use model::{Direction, ports};
use netsys::route_to::{Question as RouteQuestion, Route};
use rules::ruleset::IpProtocol;
use rules::{Family, Fate, Origin, Packet, State};

use super::{Finding, Question, Side, Story};

/// Which no packet has: any client port will do.
const CLIENT_PORT: u16 = 40_000;

impl Story<'_> {
    /// As the kernel would make it, or let it in.
    pub(super) fn packet(&self) -> Result<Packet, Finding> {
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
    pub(super) fn dns_answers(&self) -> bool {
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
    pub(super) fn unlearned(&self) -> Option<Finding> {
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
        (self.rules.installed.evaluate_in(&query, &self.question.client.cgroups, self.network).fate == Fate::Direct).then(|| {
            Finding::new(
                Side::Rules,
                format!("{host} has no ClusterIP; Weir gives it {}, which its own DNS tells, and no rule leads queries there", to.ip()),
                "capture DNS (`weir init --redirect-dns`, `weir proxy --dns`), or give the service a spec.clusterIP",
            )
        })
    }

    pub(super) fn whose(&self, packet: &Packet) -> String {
        match packet.origin {
            Origin::Socket { uid, gid, mark } => {
                let mark = if mark == 0 {
                    String::new()
                } else {
                    format!(", mark {mark:#x}")
                };
                let who = &self.question.client.who;
                let who = if who.is_empty() {
                    String::new()
                } else {
                    format!("; {who}")
                };
                format!(
                    "{} as uid {uid}, gid {gid}{mark}, by {}{who}",
                    packet.source, packet.device
                )
            }
            Origin::Remote => format!("{} from outside, by {}", packet.source, packet.device),
        }
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
