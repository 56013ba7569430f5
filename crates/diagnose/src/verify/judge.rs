//! Whether a probe fared as it should: from what was seen of it to where it arrived, and what that means.

use std::net::SocketAddr;

use rules::ruleset::IpProtocol;
use rules::{Fate, Origin, State};

use super::choice::Probe;
use super::report::Outcome;
use super::send::{Answer, Observed, Unsent};

/// Where a packet arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Arrival {
    /// Where it was going.
    There,
    /// At a listener of the namespace on this port, which accepted it.
    Listener(u16),
    /// It was led to this port of the namespace, and nobody listens there.
    Closed(u16),
    /// It was led to this port of the namespace, and nothing came back.
    Silent(u16),
    /// At a transparent listener.
    Transparent,
    /// Nowhere.
    Nowhere,
    /// Somebody listens where it was going too, or would have answered alike: what was seen may be either.
    Ambiguous,
    /// It could not be sent.
    Unsent(String),
}

/// What there is to know of the namespace's listeners.
pub(super) struct Ears<'a> {
    /// Whether somebody listens at that address.
    pub(super) listens: &'a dyn Fn(SocketAddr) -> bool,
    /// Whether connections from outside may be brought to a transparent listener.
    pub(super) by_tproxy: bool,
}

pub(super) fn arrival(probe: &Probe, observed: &Observed, ears: &Ears<'_>) -> Arrival {
    let packet = &probe.packet;
    let to = SocketAddr::new(packet.destination, packet.destination_port);
    match &observed.unsent {
        Some(Unsent::NoSource) => {
            return Arrival::Unsent(format!("{} is no address of this namespace", packet.source));
        }
        Some(Unsent::Other(why)) => return Arrival::Unsent(why.clone()),
        Some(Unsent::Dropped) | None => {}
    }
    if observed.left {
        return Arrival::There;
    }
    let is_tcp = packet.protocol == IpProtocol::Tcp;
    if let Some(now) = observed.on_loopback.filter(|now| *now != to) {
        return match observed.answer {
            Some(Answer::Accepted) => Arrival::Listener(now.port()),
            Some(Answer::Refused) => Arrival::Closed(now.port()),
            None if is_tcp && packet.state == State::New => Arrival::Silent(now.port()),
            None => Arrival::Listener(now.port()),
        };
    }
    match (observed.answer, observed.half_open) {
        // Whoever listens resets it.
        (Some(Answer::Refused), _) if packet.state == State::Stray && ears.by_tproxy => Arrival::Ambiguous,
        (Some(Answer::Refused), _) => Arrival::There,
        (Some(Answer::Accepted), Some(open)) if open != to => Arrival::Listener(open.port()),
        (Some(Answer::Accepted), half_open) => {
            let is_redirect_seen = half_open.is_some() && !ears.by_tproxy;
            match (ears.listens)(to) {
                // Its half-open connection is where it was going.
                true if is_redirect_seen => Arrival::There,
                true if packet.origin != Origin::Remote && !ears.by_tproxy => Arrival::There,
                true => Arrival::Ambiguous,
                false if ears.by_tproxy => Arrival::Transparent,
                // Without socket diagnosis the port is not known: whoever it is, is not who was called.
                false => match probe.expected.fate {
                    Fate::Redirect { port } => Arrival::Listener(port),
                    _ => Arrival::Listener(0),
                },
            }
        }
        (None, _) if observed.on_loopback.is_some() && (!is_tcp || probe.is_unanswered) => Arrival::There,
        (None, _) => Arrival::Nowhere,
    }
}

/// The verdict, and why it is not that all is well.
pub(super) fn judge(probe: &Probe, arrival: &Arrival) -> (Outcome, Option<String>) {
    let is_as_it_should = match (&probe.expected.fate, arrival) {
        (Fate::Direct, Arrival::There)
        | (Fate::Drop | Fate::Reject, Arrival::Nowhere)
        | (Fate::Tproxy { .. }, Arrival::Transparent) => true,
        (Fate::Redirect { port }, Arrival::Listener(at)) => port == at,
        _ => false,
    };
    if is_as_it_should {
        return (Outcome::Proven, None);
    }
    let expected = expected(&probe.expected.fate);
    match (&probe.expected.fate, arrival) {
        (_, Arrival::Unsent(why)) => (Outcome::NotProbed, Some(why.clone())),
        (Fate::Unknown | Fate::Split, _) => (
            Outcome::NotProbed,
            Some("what should become of it cannot be said".to_owned()),
        ),
        (_, Arrival::Ambiguous) if probe.packet.state == State::Stray => (
            Outcome::NotProbed,
            Some(format!("should go {expected}; whoever it goes to resets it")),
        ),
        (_, Arrival::Ambiguous) => (
            Outcome::NotProbed,
            Some(format!(
                "should go {expected}; somebody listens on port {} as well, so the answer may be theirs",
                probe.packet.destination_port
            )),
        ),
        (Fate::Redirect { port }, Arrival::Closed(at)) if port == at => (
            Outcome::Broken,
            Some(format!("is led to port {port}, and nobody listens there")),
        ),
        (Fate::Redirect { port }, Arrival::Silent(at)) if port == at => (
            Outcome::Broken,
            Some(format!(
                "is led to port {port}, and nothing comes back: a rule drops it, or the proxy's queue is full"
            )),
        ),
        _ => (Outcome::Broken, Some(format!("should go {expected}"))),
    }
}

/// Where it should go.
pub(super) fn expected(fate: &Fate) -> String {
    match fate {
        Fate::Redirect { port } => format!("to the proxy on port {port}"),
        Fate::Tproxy { port } => format!("to the proxy's transparent listener on port {port}"),
        Fate::Dnat { to, port } => format!("to {to}, port {port}"),
        Fate::Direct => "where it is addressed".to_owned(),
        Fate::Drop => "nowhere".to_owned(),
        Fate::Reject => "back to the sender, refused".to_owned(),
        Fate::Split => "one of several ways, by chance".to_owned(),
        Fate::Unknown => "somewhere that cannot be said".to_owned(),
    }
}

impl Arrival {
    /// For people. `of` says who listens on a port.
    pub(super) fn text(&self, of: impl Fn(u16) -> String) -> String {
        match self {
            Self::There => "where it was going".to_owned(),
            Self::Listener(port) | Self::Closed(port) | Self::Silent(port) => of(*port),
            Self::Transparent => "a transparent listener".to_owned(),
            Self::Nowhere => "nowhere".to_owned(),
            Self::Ambiguous => "a listener".to_owned(),
            Self::Unsent(_) => "not sent".to_owned(),
        }
    }
}
