//! The connections that go all the way, one in each direction and family that the first packets have shown to be
//! captured: whether the proxy takes them on, to where they were going, and whether anything comes back.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use model::Direction;
use netsys::probe::{Owner, Tap, Wire, as_owner};
use rules::{Family, Fate, Mentions, Origin};
use runtime::random::Random;

use super::choice::Probe;
use super::proxy::Proxies;
use super::report::{Finding, Outcome};
use super::roundtrip::{Peer, Trip, inward, joined, outward};
use super::wanted::Wanted;

/// How long a connection may take that a stand-in carries.
const PATIENCE_WITH_MYSELF: Duration = Duration::from_secs(1);

/// Where the connections are made.
pub(super) struct Scene<'a> {
    pub(super) wire: &'a Wire,
    pub(super) wanted: &'a Wanted,
    pub(super) proxies: &'a Proxies,
    /// How long the proxy may take.
    pub(super) patience: Duration,
}

/// The findings, and notes. `shown` is what the first packets came to.
pub(super) fn all(
    scene: &Scene<'_>,
    shown: &[(&Probe, &Finding)],
    beyond: &Mentions,
    random: &mut Random,
) -> io::Result<(Vec<Finding>, Vec<String>)> {
    let proxies = scene.proxies;
    let mut planned = vec![];
    let mut notes = vec![];
    let mut ports = proxies.free_ports(random, beyond, &scene.wanted.intent);
    let mut next = || ports.next().unwrap_or_default();
    for &family in &scene.wanted.families {
        if let Some((from, to)) = outward_by(scene, shown, family)
            && proxies.is_there(Direction::Outbound, family)
        {
            let way = Way::Out { from, to };
            planned.push((Journey { family, way }, peer(scene, random)?));
        }
        if let Some(port) = inward_to(scene, shown, family, next())
            && proxies.is_there(Direction::Inbound, family)
        {
            let to = SocketAddr::new(scene.wire.addresses.near(family), port);
            let from = SocketAddr::new(scene.wire.addresses.far(family), next());
            match as_owner(netsys::probe::myself(), || TcpListener::bind(to))? {
                Ok(application) => {
                    let way = Way::In {
                        from,
                        to,
                        application,
                    };
                    planned.push((Journey { family, way }, peer(scene, random)?));
                }
                Err(error) => notes.push(format!(
                    "no connection was carried in by {family} all the way: {to} is not free ({error})"
                )),
            }
        }
    }
    // Side by side: where one hangs, all that can hang do so at the same time.
    let patience = scene.patience;
    let made: io::Result<Vec<_>> = thread::scope(|scope| {
        let start = |(journey, peer): (Journey, _)| {
            scope.spawn(move || {
                let trip = journey.make(&peer, proxies, patience)?;
                Ok((journey, trip))
            })
        };
        let under_way: Vec<_> = planned.into_iter().map(start).collect();
        under_way.into_iter().map(joined).collect()
    });
    let findings = made?
        .into_iter()
        .map(|(journey, trip)| finding(scene, &journey, &trip));
    Ok((findings.collect(), notes))
}

fn peer<'a>(scene: &Scene<'a>, random: &mut Random) -> io::Result<Peer<'a>> {
    Ok(Peer {
        wire: scene.wire,
        // Of its own: each packet is received once.
        tap: Tap::open(scene.wire.addresses)?,
        number: random.bits() as u32,
    })
}

/// A connection that is to go all the way.
struct Journey {
    family: Family,
    way: Way,
}

enum Way {
    Out {
        from: Owner,
        to: SocketAddr,
    },
    In {
        from: SocketAddr,
        to: SocketAddr,
        application: TcpListener,
    },
}

impl Journey {
    fn make(&self, peer: &Peer<'_>, proxies: &Proxies, patience: Duration) -> io::Result<Trip> {
        let stand_in = proxies.stand_in(self.direction(), self.family);
        // Where nobody but this process takes part, nobody is slow.
        let patience = match stand_in {
            Some(_) => patience.min(PATIENCE_WITH_MYSELF),
            None => patience,
        };
        match &self.way {
            Way::Out { from, to } => outward(peer, *to, *from, stand_in, patience),
            Way::In {
                from, application, ..
            } => inward(peer, application, *from, stand_in, patience),
        }
    }

    fn direction(&self) -> Direction {
        match self.way {
            Way::Out { .. } => Direction::Outbound,
            Way::In { .. } => Direction::Inbound,
        }
    }

    fn sent(&self) -> String {
        match &self.way {
            Way::Out { from, to } => format!("uid {} to {to}", from.uid),
            Way::In { from, to, .. } => format!("from {} to {to}", from.ip()),
        }
    }
}

/// Who calls out, and to where, that has been shown to be captured.
fn outward_by(
    scene: &Scene<'_>,
    shown: &[(&Probe, &Finding)],
    family: Family,
) -> Option<(Owner, SocketAddr)> {
    let far = scene.wire.addresses.far(family);
    shown.iter().find_map(|(probe, finding)| {
        let is_it = finding.verdict == Outcome::Proven
            && probe.name() == "TCP out"
            && probe.packet.device == Wire::DEVICE
            && probe.packet.destination == far;
        match probe.packet.origin {
            Origin::Socket { uid, gid, mark } if is_it => {
                let to = SocketAddr::new(far, probe.packet.destination_port);
                Some((Owner { uid, gid, mark }, to))
            }
            _ => None,
        }
    })
}

/// A port that is captured inbound: a free one where all are.
fn inward_to(scene: &Scene<'_>, shown: &[(&Probe, &Finding)], family: Family, free: u16) -> Option<u16> {
    let far = scene.wire.addresses.far(family);
    let of_family = |probe: &&(&Probe, &Finding)| {
        Family::of(probe.0.packet.destination) == family
            && probe.0.packet.origin == Origin::Remote
            && probe.0.packet.device == Wire::DEVICE
            && probe.0.packet.source == far
            && matches!(probe.0.expected.fate, Fate::Redirect { .. } | Fate::Tproxy { .. })
    };
    let captured: Vec<_> = shown.iter().filter(of_family).collect();
    if captured
        .iter()
        .any(|(_, finding)| finding.verdict != Outcome::Proven)
    {
        return None;
    }
    match &scene.wanted.intent.inbound.ports {
        rules::Selection::All if !captured.is_empty() => Some(free),
        _ => captured.first().map(|(probe, _)| probe.packet.destination_port),
    }
}

fn finding(scene: &Scene<'_>, journey: &Journey, trip: &Trip) -> Finding {
    let proxies = scene.proxies;
    let (direction, family) = (journey.direction(), journey.family);
    let intent = &scene.wanted.intent;
    let port = match direction {
        Direction::Outbound => intent.outbound.to_port,
        Direction::Inbound => intent.inbound.to_port,
    };
    let listener = proxies.name(family, port);
    let is_stand_in = proxies.stand_in(direction, family).is_some();
    let far = scene.wire.addresses.far(family);
    let keeps_address = direction == Direction::Inbound && intent.inbound.tproxy().is_some();
    let (arrived, verdict, why) = match trip {
        Trip::Back { called_by, .. } if keeps_address && called_by.ip() != far => (
            format!("the application, called by {}", called_by.ip()),
            Outcome::Broken,
            Some(format!(
                "the application should see its client's address, {far}: the proxy does not keep it (--inbound-mode tproxy)"
            )),
        ),
        Trip::Back { called_by, .. } => {
            let end = match direction {
                Direction::Outbound => "its destination".to_owned(),
                Direction::Inbound => format!("the application, called by {}", called_by.ip()),
            };
            (format!("{listener}, then {end}, and back"), Outcome::Proven, None)
        }
        Trip::Ended if is_stand_in => (
            listener,
            Outcome::Broken,
            Some("nothing came back: the way on from the proxy, or back to it, is broken".to_owned()),
        ),
        Trip::Ended => (
            format!("{listener}, which ended it"),
            Outcome::NotProbed,
            Some(
                "the proxy ended the connection; it may let none pass to what it does not know. Where it would have gone is not shown"
                    .to_owned(),
            ),
        ),
        Trip::Stuck => (
            listener,
            Outcome::Broken,
            Some(format!(
                "the connection was accepted for port {port}, and then nothing happened for {} s: the proxy hangs, or cannot \
                 reach where it was going",
                scene.patience.as_secs_f32()
            )),
        ),
        Trip::Refused(why) => (why.clone(), Outcome::Broken, Some(format!("should go by {listener}"))),
    };
    Finding {
        probe: match direction {
            Direction::Outbound => "out and back",
            Direction::Inbound => "in and back",
        }
        .to_owned(),
        family: family.to_string(),
        sent: journey.sent(),
        arrived,
        rule: String::new(),
        counted: None,
        verdict,
        why,
    }
}
