//! What is asked of a namespace besides its rules: routing, who listens, how full conntrack is. Of a live one the
//! kernel is asked; of a file of rules it is assumed, and said.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use netsys::conntrack::{self, Usage};
use netsys::route_to::{self, Question, Route};
use netsys::rules::Sent;
use netsys::socket_table::{self, Listener};
use rules::Family;
use rules::evaluate::{AddressKind, Ground};
use rules::ruleset::IpProtocol;

/// A namespace.
pub trait Network: Ground {
    /// Where a packet would leave.
    ///
    /// # Errors
    /// What connect(2) would say.
    fn route(&self, question: Question) -> io::Result<Route>;

    /// Who listens; none where that cannot be known.
    fn listeners(&self, protocol: IpProtocol) -> Option<Vec<Listener>>;

    /// How full conntrack is; none where that is not known, or nothing is tracked.
    fn conntrack(&self) -> Option<Usage>;

    /// What comes of each of these connections, tried at once and closed; none where nothing is to be sent.
    fn knock(&self, _: &[Sent]) -> Option<Vec<io::Result<Duration>>> {
        None
    }

    /// Whether the proxy's own connections are made in it, too.
    fn has_proxy(&self) -> bool {
        true
    }

    /// What is taken for granted, for people; none where the kernel was asked.
    fn assumes(&self) -> Option<&'static str> {
        None
    }
}

/// That of the calling thread.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// Whether endpoints are to be called.
    pub probes: bool,
    /// Whether the proxy's own connections are made elsewhere, as those of `weir run` are.
    pub proxy_is_elsewhere: bool,
}

/// How long an endpoint is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

impl Ground for Live {
    fn kind(&self, address: IpAddr) -> Option<AddressKind> {
        route_to::Here.kind(address)
    }

    fn device(&self, to: IpAddr) -> Option<String> {
        route_to::Here.device(to)
    }
}

impl Network for Live {
    fn route(&self, question: Question) -> io::Result<Route> {
        route_to::route_to(question)
    }

    fn listeners(&self, protocol: IpProtocol) -> Option<Vec<Listener>> {
        socket_table::listeners(protocol).ok()
    }

    fn conntrack(&self) -> Option<Usage> {
        conntrack::usage()
    }

    fn has_proxy(&self) -> bool {
        !self.proxy_is_elsewhere
    }

    fn knock(&self, calls: &[Sent]) -> Option<Vec<io::Result<Duration>>> {
        self.probes.then(|| netsys::rules::knock(calls, PATIENCE))
    }
}

/// One of which there is only a file of rules.
#[derive(Clone, Default, Debug)]
pub struct Assumed {
    /// Its addresses, where the pod is known.
    pub own: Vec<IpAddr>,
    /// Those that the file tells, with their devices.
    pub told: Vec<(String, IpNet)>,
    /// The one that is asked about, where that comes in.
    pub asked: Option<IpAddr>,
}

impl Assumed {
    /// Whether an address of the family is known that a client there has.
    #[must_use]
    pub fn has(&self, family: Family) -> bool {
        let told = self.told.iter().map(|(_, net)| net.addr());
        let mut all = told.chain(self.own.iter().copied());
        all.any(|ip| Family::of(ip) == family && !ip.is_loopback())
    }

    fn is_own(&self, address: IpAddr) -> bool {
        address.is_loopback()
            || self.asked == Some(address)
            || self.own.contains(&address)
            || self.told.iter().any(|(_, net)| net.addr() == address)
    }

    /// The device on whose wire it is, where the file tells.
    fn wire(&self, to: IpAddr) -> Option<&str> {
        let told = self.told.iter();
        let on_wire = told.filter(|(_, net)| net.contains(&to));
        let narrowest = on_wire.max_by_key(|(_, net)| net.prefix_len());
        narrowest.map(|(device, _)| device.as_str())
    }

    /// A device that leads out.
    fn outer(&self) -> &str {
        let mut devices = self.told.iter().map(|(device, _)| device.as_str());
        devices.find(|device| *device != "lo").unwrap_or("eth0")
    }

    fn source(&self, to: IpAddr) -> Option<IpAddr> {
        let wire = self.wire(to).unwrap_or_else(|| self.outer());
        let mine = |own: &IpAddr| own.is_ipv4() == to.is_ipv4();
        let told = self.told.iter().filter(|(device, _)| device == wire);
        let told = told.map(|(_, net)| net.addr()).find(mine);
        told.or_else(|| self.own.iter().copied().find(mine))
    }
}

impl Ground for Assumed {
    fn kind(&self, address: IpAddr) -> Option<AddressKind> {
        let is_broadcast =
            |net: &IpNet| net.broadcast() == address && address.is_ipv4() && net.prefix_len() < 31;
        if self.is_own(address) {
            return Some(AddressKind::Local);
        }
        if self.told.iter().any(|(_, net)| is_broadcast(net)) {
            return Some(AddressKind::Broadcast);
        }
        let are_known = !self.own.is_empty() || !self.told.is_empty();
        AddressKind::everywhere(address).or(are_known.then_some(AddressKind::Unicast))
    }

    fn device(&self, to: IpAddr) -> Option<String> {
        match self.is_own(to) {
            true => Some(String::from("lo")),
            false => self.wire(to).map(str::to_owned),
        }
    }
}

impl Network for Assumed {
    fn route(&self, question: Question) -> io::Result<Route> {
        let to = question.to;
        let is_local = self.is_own(to);
        let device = match is_local {
            true => "lo",
            false => self.wire(to).unwrap_or_else(|| self.outer()),
        };
        Ok(Route {
            device: device.to_owned(),
            source: if is_local { Some(to) } else { self.source(to) },
            gateway: None,
            is_local,
            is_broadcast: false,
        })
    }

    fn listeners(&self, _: IpProtocol) -> Option<Vec<Listener>> {
        None
    }

    fn conntrack(&self) -> Option<Usage> {
        None
    }

    fn assumes(&self) -> Option<&'static str> {
        Some(match self.told.is_empty() {
            true => {
                "by a file of rules alone: it is assumed that the device is eth0, that the proxy listens and that routes lead on"
            }
            false => {
                "by a file of rules and addresses alone: it is assumed that the proxy listens and that routes lead on"
            }
        })
    }
}
