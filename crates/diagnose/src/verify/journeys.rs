//! The connections that go all the way, one in each direction and family that the first packets have shown to be
//! captured: whether the proxy takes them on, to where they were going, and whether anything comes back.

use std::io;
use std::net::{SocketAddr, TcpListener};

use model::Direction;
use netsys::probe::{Owner, as_owner};
use rules::{Family, Fate, Mentions, Origin};
use runtime::random::Random;

use super::Run;
use super::choice::Probe;
use super::proxy::Proxies;
use super::report::{Finding, Outcome};
use super::roundtrip::{Peer, Trip, inward, outward};

/// The findings, and notes. `shown` is what the first packets came to.
pub(super) fn all(
    run: &Run<'_>,
    proxies: &Proxies,
    shown: &[(&Probe, &Finding)],
    beyond: &Mentions,
    random: &mut Random,
) -> io::Result<(Vec<Finding>, Vec<String>)> {
    let mut findings = vec![];
    let mut notes = vec![];
    let mut ports = proxies.free_ports(random, beyond, &run.wanted.intent);
    let mut next = || ports.next().unwrap_or_default();
    for &family in &run.wanted.families {
        if let Some((from, to)) = outward_by(run, shown, family)
            && proxies.is_there(Direction::Outbound, family)
        {
            let stand_in = proxies.stand_in(Direction::Outbound, family);
            let peer = peer(run, random);
            let trip = outward(&peer, to, from, stand_in, run.question.patience)?;
            let sent = format!("uid {} to {to}", from.uid);
            findings.push(finding(run, Direction::Outbound, family, sent, &trip, proxies));
        }
        if let Some(port) = inward_to(run, shown, family, next())
            && proxies.is_there(Direction::Inbound, family)
        {
            let to = SocketAddr::new(run.wire.addresses.near(family), port);
            let from = SocketAddr::new(run.wire.addresses.far(family), next());
            let application = match as_owner(netsys::probe::myself(), || TcpListener::bind(to))? {
                Ok(listener) => listener,
                Err(error) => {
                    notes.push(format!(
                        "no connection was carried in by {family} all the way: {to} is not free ({error})"
                    ));
                    continue;
                }
            };
            let stand_in = proxies.stand_in(Direction::Inbound, family);
            let peer = peer(run, random);
            let trip = inward(&peer, &application, from, stand_in, run.question.patience)?;
            let sent = format!("from {} to {to}", from.ip());
            findings.push(finding(run, Direction::Inbound, family, sent, &trip, proxies));
        }
    }
    Ok((findings, notes))
}

fn peer<'a>(run: &'a Run<'_>, random: &mut Random) -> Peer<'a> {
    Peer {
        wire: &run.wire,
        tap: &run.tap,
        number: random.bits() as u32,
    }
}

/// Who calls out, and to where, that has been shown to be captured.
fn outward_by(run: &Run<'_>, shown: &[(&Probe, &Finding)], family: Family) -> Option<(Owner, SocketAddr)> {
    let far = run.wire.addresses.far(family);
    shown.iter().find_map(|(probe, finding)| {
        let is_it = finding.verdict == Outcome::Proven
            && probe.name() == "TCP out"
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
fn inward_to(run: &Run<'_>, shown: &[(&Probe, &Finding)], family: Family, free: u16) -> Option<u16> {
    let far = run.wire.addresses.far(family);
    let of_family = |probe: &&(&Probe, &Finding)| {
        Family::of(probe.0.packet.destination) == family
            && probe.0.packet.origin == Origin::Remote
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
    match &run.wanted.intent.inbound.ports {
        rules::Selection::All if !captured.is_empty() => Some(free),
        _ => captured.first().map(|(probe, _)| probe.packet.destination_port),
    }
}

fn finding(
    run: &Run<'_>,
    direction: Direction,
    family: Family,
    sent: String,
    trip: &Trip,
    proxies: &Proxies,
) -> Finding {
    let intent = &run.wanted.intent;
    let port = match direction {
        Direction::Outbound => intent.outbound.to_port,
        Direction::Inbound => intent.inbound.to_port,
    };
    let listener = proxies.name(family, port);
    let is_stand_in = proxies.stand_in(direction, family).is_some();
    let far = run.wire.addresses.far(family);
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
                run.question.patience.as_secs_f32()
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
        sent,
        arrived,
        rule: String::new(),
        counted: None,
        verdict,
        why,
    }
}
