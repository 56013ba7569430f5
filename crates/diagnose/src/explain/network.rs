//! What is asked of a namespace besides its rules: routing, who listens, how full conntrack is. Of a live one the
//! kernel is asked; of a file of rules it is assumed, and said.

use std::io;
use std::net::IpAddr;

use netsys::conntrack::{self, Usage};
use netsys::route_to::{self, Route};
use netsys::socket_table::{self, Listener};
use rules::ruleset::IpProtocol;

/// A namespace.
pub trait Network {
    /// Where a packet would leave.
    ///
    /// # Errors
    /// What connect(2) would say.
    fn route(&self, question: route_to::Question) -> io::Result<Route>;

    /// Who listens; none where that cannot be known.
    fn listeners(&self, protocol: IpProtocol) -> Option<Vec<Listener>>;

    /// How full conntrack is; none where that is not known, or nothing is tracked.
    fn conntrack(&self) -> Option<Usage>;

    /// What is taken for granted, for people; none where the kernel was asked.
    fn assumes(&self) -> Option<&'static str> {
        None
    }
}

/// That of the calling thread.
#[derive(Clone, Copy, Debug)]
pub struct Live;

impl Network for Live {
    fn route(&self, question: route_to::Question) -> io::Result<Route> {
        route_to::route_to(question)
    }

    fn listeners(&self, protocol: IpProtocol) -> Option<Vec<Listener>> {
        socket_table::listeners(protocol).ok()
    }

    fn conntrack(&self) -> Option<Usage> {
        conntrack::usage()
    }
}

/// One of which there is only a file of rules.
#[derive(Clone, Default, Debug)]
pub struct Assumed {
    /// Its addresses, where the pod is known.
    pub own: Vec<IpAddr>,
}

impl Network for Assumed {
    fn route(&self, question: route_to::Question) -> io::Result<Route> {
        let to = question.to;
        let is_local = to.is_loopback() || self.own.contains(&to);
        let own = self.own.iter().find(|own| own.is_ipv4() == to.is_ipv4());
        Ok(Route {
            device: String::from(if is_local { "lo" } else { "eth0" }),
            source: if is_local { Some(to) } else { own.copied() },
            gateway: None,
            is_local,
        })
    }

    fn listeners(&self, _: IpProtocol) -> Option<Vec<Listener>> {
        None
    }

    fn conntrack(&self) -> Option<Usage> {
        None
    }

    fn assumes(&self) -> Option<&'static str> {
        Some(
            "by a file of rules alone: it is assumed that the device is eth0, that the proxy listens and that routes lead on",
        )
    }
}
