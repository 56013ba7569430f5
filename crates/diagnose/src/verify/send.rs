//! Sends the probes' packets and notes where each is seen: leaving by the wire, on loopback under whatever
//! address it then has, answered or not. None of them opens a connection that anybody would notice: the first
//! packet goes, and what answers it is told that nothing was meant.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use netsys::netlink::LinkIndex;
use netsys::probe::{
    Device, Flags, Owner, Passed, Payload, RawSocket, Seen, Segment, TOO_LONG, Tap, Wire, in_cgroup,
};
use netsys::socket_table;
use rules::ruleset::IpProtocol;
use rules::{Family, Fate, Origin, Packet, State};

use super::choice::Probe;

/// What was seen of one probe.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Observed {
    /// It left by the wire.
    pub(super) left: bool,
    /// It was on loopback, to this address.
    pub(super) on_loopback: Option<SocketAddr>,
    /// What came back.
    pub(super) answer: Option<Answer>,
    /// Where the connection that it asked for is half open.
    pub(super) half_open: Option<SocketAddr>,
    /// Why it could not be sent.
    pub(super) unsent: Option<Unsent>,
}

/// What came back of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// Somebody listens.
    Accepted,
    /// Nobody listens.
    Refused,
}

/// Why a packet could not be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Unsent {
    /// A rule dropped it as it was made.
    Dropped,
    /// The source is no address of the namespace's.
    NoSource,
    /// Anything else.
    Other(String),
}

/// Between two attempts at what has not been seen yet.
const AGAIN: Duration = Duration::from_millis(80);
/// Attempts that bring nothing new, one after the other, before what is missing is lost: the kernel answers at once.
const ATTEMPTS: u32 = 4;
/// What should vanish has this long to be seen all the same, after all else has been.
const GRACE: Duration = Duration::from_millis(20);

/// Sends them all and waits until each has been seen, or is lost. `start` is a number that no earlier run has used.
/// A program that listens on a port of which `is_busy` says so may take up to `patience`.
pub(super) fn send(
    wire: &Wire,
    tap: &Tap,
    probes: &[Probe],
    start: u32,
    is_busy: &dyn Fn(u16) -> bool,
    patience: Duration,
) -> io::Result<Vec<Observed>> {
    let mut round = Round {
        wire,
        probes,
        start,
        sockets: HashMap::new(),
        observed: vec![Observed::default(); probes.len()],
    };
    let end = Instant::now() + patience;
    let mut in_vain = 0;
    while !round.is_settled() && Instant::now() < end {
        if in_vain == ATTEMPTS && !round.waits_for(is_busy) {
            break;
        }
        let before = round.unsettled().count();
        round.send_unsettled();
        let pause = end.min(Instant::now() + AGAIN);
        while !round.is_settled() {
            match tap.next(pause)? {
                Some(seen) => round.note(&seen),
                None => break,
            }
        }
        in_vain = if round.unsettled().count() < before {
            0
        } else {
            ATTEMPTS.min(in_vain + 1)
        };
    }
    if probes.iter().any(|probe| probe.expected.fate == Fate::Drop) {
        let end = Instant::now() + GRACE;
        while let Some(seen) = tap.next(end)? {
            round.note(&seen);
        }
    }
    round.note_half_open();
    round.take_back();
    Ok(round.observed)
}

struct Round<'a> {
    wire: &'a Wire,
    probes: &'a [Probe],
    start: u32,
    sockets: HashMap<(Owner, IpAddr), RawSocket>,
    observed: Vec<Observed>,
}

/// Between the numbers of two probes, so that what acknowledges one is not taken for another.
const STEP: u32 = 4;

impl Round<'_> {
    fn send_unsettled(&mut self) {
        for (index, probe) in self.probes.iter().enumerate() {
            if is_settled(probe, &self.observed[index]) {
                continue;
            }
            let segment = segment(&probe.packet, self.number(index));
            let sent = self.put(probe, &segment);
            let observed = &mut self.observed[index];
            match sent {
                Ok(has_left) => {
                    observed.left |= has_left;
                    observed.unsent = None;
                }
                Err(error) => observed.unsent = Some(why(&error)),
            }
        }
    }

    /// Answers whether it is known to have left by a device, after all rules.
    fn put(&mut self, probe: &Probe, segment: &Segment) -> io::Result<bool> {
        let packet = &probe.packet;
        let mut devices = self.wire.devices().iter();
        let device = devices.find(|device| device.name == packet.device);
        let Some(owner) = owner(packet) else {
            match device {
                Some(device) => self.wire.put_by(device, segment)?,
                None => self.wire.put(segment)?,
            }
            return Ok(false);
        };
        if let Some(seat) = &probe.seat {
            let send = || RawSocket::open(owner, packet.source)?.send(segment);
            return in_cgroup(&seat.folder, send).map(|()| false);
        }
        let socket = match self.sockets.entry((owner, packet.source)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(RawSocket::open(owner, packet.source)?),
        };
        if device.is_none() {
            return socket.send(segment).map(|()| false);
        }
        let bytes = Device::packet_bytes(Family::of(packet.destination));
        match socket.send(&segment.clone().grown_to(bytes)) {
            Err(error) if error.raw_os_error() == Some(TOO_LONG) => Ok(true),
            sent => sent.map(|()| false),
        }
    }

    fn number(&self, index: usize) -> u32 {
        self.start.wrapping_add(index as u32 * STEP)
    }

    /// Which probe has that number.
    fn index(&self, number: u32) -> Option<usize> {
        let distance = number.wrapping_sub(self.start);
        let index = (distance / STEP) as usize;
        (distance.is_multiple_of(STEP) && index < self.probes.len()).then_some(index)
    }

    /// Which probe a packet acknowledges.
    fn counted(&self, acknowledged: u32) -> Option<usize> {
        [1, 2]
            .into_iter()
            .find_map(|count| self.index(acknowledged.wrapping_sub(count)))
    }

    fn note(&mut self, seen: &Seen) {
        match &seen.segment.payload {
            Payload::Tcp {
                flags,
                sequence,
                acknowledged,
                ..
            } => {
                let is_answer = flags.has(Flags::RST) || flags.has(Flags::SYN_ACK);
                if !is_answer {
                    if let Some(index) = self.index(*sequence) {
                        self.note_sight(index, seen);
                    }
                    return;
                }
                // What a packet opens or ends counts as one each; what does neither is reset by the number that
                // it acknowledged, which is its own.
                let counted = flags.has(Flags::ACK).then(|| self.counted(*acknowledged));
                if let Some(index) = counted.unwrap_or_else(|| self.index(*sequence)) {
                    self.observed[index]
                        .answer
                        .get_or_insert(match flags.has(Flags::RST) {
                            true => Answer::Refused,
                            false => Answer::Accepted,
                        });
                }
            }
            Payload::Udp(data) => {
                let number = data.get(..4).and_then(|bytes| bytes.try_into().ok());
                if let Some(index) = number.and_then(|bytes| self.index(u32::from_be_bytes(bytes))) {
                    self.note_sight(index, seen);
                }
            }
        }
    }

    fn note_sight(&mut self, index: usize, seen: &Seen) {
        let observed = &mut self.observed[index];
        if seen.device == LinkIndex::LOOPBACK.0 {
            observed.on_loopback.get_or_insert(seen.segment.destination);
        } else if seen.passed == Passed::Out {
            observed.left = true;
        }
    }

    fn is_settled(&self) -> bool {
        self.unsettled().next().is_none()
    }

    /// What has still to be seen, but for what should vanish.
    fn unsettled(&self) -> impl Iterator<Item = &Observed> {
        let pairs = self.probes.iter().zip(&self.observed);
        let open =
            pairs.filter(|(probe, seen)| probe.expected.fate != Fate::Drop && !is_settled(probe, seen));
        open.map(|(_, seen)| seen)
    }

    /// Whether one has come to a program that may answer yet.
    fn waits_for(&self, is_busy: &dyn Fn(u16) -> bool) -> bool {
        self.unsettled()
            .any(|seen| seen.on_loopback.is_some_and(|to| is_busy(to.port())))
    }

    /// Before they are taken back, the kernel tells at which listener connections from outside have arrived.
    fn note_half_open(&mut self) {
        // Without socket diagnosis it is told by other means, or not at all.
        let all = socket_table::half_open().unwrap_or_default();
        for (probe, observed) in self.probes.iter().zip(&mut self.observed) {
            let peer = SocketAddr::new(probe.packet.source, probe.packet.source_port);
            let is_its =
                |open: &&socket_table::HalfOpen| open.peer == peer && probe.packet.origin == Origin::Remote;
            observed.half_open = all.iter().find(is_its).map(|open| open.local);
        }
    }

    /// Ends what was half opened, and tells the kernel's tables that nothing comes of what left. What was made
    /// here and answered has been ended by the kernel itself.
    fn take_back(&self) {
        for (index, (probe, observed)) in self.probes.iter().zip(&self.observed).enumerate() {
            let number = self.number(index).wrapping_add(1);
            let packet = &probe.packet;
            let (source, destination) = ends(packet);
            let reset = |source, destination, flags, sequence, acknowledged| Segment {
                source,
                destination,
                payload: Payload::Tcp {
                    flags,
                    sequence,
                    acknowledged,
                    data: vec![],
                },
            };
            let is_tcp = packet.protocol == IpProtocol::Tcp && packet.state == State::New;
            let segment = if !is_tcp {
                continue;
            } else if packet.origin == Origin::Remote && observed.answer == Some(Answer::Accepted) {
                reset(source, destination, Flags::RST, number, 0)
            } else if observed.left {
                let flags = Flags(Flags::RST.0 | Flags::ACK.0);
                reset(destination, source, flags, 0, number)
            } else {
                continue;
            };
            // The wire goes in a moment anyway.
            let _ = self.wire.put(&segment);
        }
    }
}

/// Whether nothing more is to be waited for: where it arrived is plain, right or wrong.
fn is_settled(probe: &Probe, observed: &Observed) -> bool {
    let is_unanswered = probe.is_unanswered || probe.packet.protocol != IpProtocol::Tcp;
    let is_lost = matches!(observed.unsent, Some(Unsent::NoSource | Unsent::Other(_)));
    is_lost || observed.left || observed.answer.is_some() || (is_unanswered && observed.on_loopback.is_some())
}

fn owner(packet: &Packet) -> Option<Owner> {
    match packet.origin {
        Origin::Socket { uid, gid, mark } => Some(Owner { uid, gid, mark }),
        Origin::Remote => None,
    }
}

fn ends(packet: &Packet) -> (SocketAddr, SocketAddr) {
    (
        SocketAddr::new(packet.source, packet.source_port),
        SocketAddr::new(packet.destination, packet.destination_port),
    )
}

fn segment(packet: &Packet, number: u32) -> Segment {
    let (source, destination) = ends(packet);
    let payload = match packet.protocol {
        IpProtocol::Udp => {
            // Too short for a question, to whoever takes it for DNS.
            Payload::Udp(number.to_be_bytes().to_vec())
        }
        _ => Payload::Tcp {
            flags: match packet.state {
                State::PickedUp | State::Stray => Flags::ACK,
                // No segment of any connection has both.
                State::Invalid => Flags(Flags::SYN.0 | Flags::FIN.0),
                _ => Flags::SYN,
            },
            sequence: number,
            acknowledged: if packet.state == State::New { 0 } else { number },
            data: vec![],
        },
    };
    Segment {
        source,
        destination,
        payload,
    }
}

fn why(error: &io::Error) -> Unsent {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Unsent::Dropped,
        io::ErrorKind::AddrNotAvailable => Unsent::NoSource,
        _ => Unsent::Other(error.to_string()),
    }
}
