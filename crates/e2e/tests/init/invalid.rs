//! `--drop-invalid` against packets that conntrack really takes as invalid: one of no connection, and one that
//! lies outside the window of a captured connection. Left alone, either is answered with a reset by the
//! application's side, and the second reset ends the connection.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::{Net, Pod, until};
use netsys::rules::Session;
use rules::ruleset::IpProtocol;
use rules::{Family, Fate, Origin, Packet, State, evaluate};
use socket2::{Domain, Protocol, Socket, Type};

use crate::native::init;

const BACKENDS: [&str; 3] = ["iptables-nft", "iptables-legacy", "nft"];
const PATIENCE: Duration = Duration::from_secs(20);
/// Nobody listens there.
const CLOSED: u16 = 9;
/// The same, and never captured.
const EXCLUDED: u16 = 15020;

/// Flags of a TCP header.
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// What matters of a TCP header.
#[derive(Clone, Copy, Debug)]
struct Segment {
    from: u16,
    to: u16,
    sequence: u32,
    acknowledged: u32,
    flags: u8,
}

impl Segment {
    fn bytes(self, source: IpAddr, destination: IpAddr) -> Vec<u8> {
        const WORDS: u8 = 5;
        let mut bytes = vec![];
        bytes.extend(self.from.to_be_bytes());
        bytes.extend(self.to.to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.acknowledged.to_be_bytes());
        bytes.extend([WORDS << 4, self.flags]);
        bytes.extend(1024_u16.to_be_bytes());
        bytes.extend([0; 4]);
        let sum = checksum(&bytes, source, destination);
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn parse(packet: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?));
        let half = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?));
        Some(Self {
            from: half(0)?,
            to: half(2)?,
            sequence: word(4)?,
            acknowledged: word(8)?,
            flags: *packet.get(13)?,
        })
    }
}

fn checksum(segment: &[u8], source: IpAddr, destination: IpAddr) -> u16 {
    const TCP: u8 = 6;
    let octets = |address| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let length = segment.len() as u16;
    let mut all = [octets(source), octets(destination), vec![0, TCP]].concat();
    all.extend(length.to_be_bytes());
    all.extend(segment);
    let words = all
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Sends made-up segments to a pod, and sees every one that comes from there.
struct Wire {
    socket: Socket,
    own: IpAddr,
    pod: IpAddr,
}

impl Wire {
    fn new(other: &Pod, own: IpAddr, pod: IpAddr) -> Result<Self> {
        let domain = Domain::for_address(SocketAddr::new(pod, 0));
        let socket = other.within(|| Socket::new(domain, Type::RAW, Some(Protocol::TCP)))??;
        socket.connect(&SocketAddr::new(pod, 0).into())?;
        Ok(Self { socket, own, pod })
    }

    fn send(&self, segment: Segment) -> Result<()> {
        self.socket.send(&segment.bytes(self.own, self.pod))?;
        Ok(())
    }

    /// The next segment that comes within that time.
    fn receive(&self, within: Duration) -> Result<Option<Segment>> {
        let mut buffer = [0; 128];
        self.socket.set_read_timeout(Some(within))?;
        match (&self.socket).read(&mut buffer) {
            Ok(length) => {
                let packet = &buffer[..length];
                // With IPv4 the header comes along.
                let header = match self.own {
                    IpAddr::V4(_) => usize::from(packet[0] & 0xf) * 4,
                    IpAddr::V6(_) => 0,
                };
                Ok(Segment::parse(&packet[header..]))
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether a segment of no connection is answered. What is sent after it by the same way tells when it would
/// have been.
fn is_answered(wire: &Wire, port: u16) -> Result<bool> {
    let stray = Segment {
        from: port,
        to: CLOSED,
        sequence: 7,
        acknowledged: 7,
        flags: SYN | ACK,
    };
    let opening = Segment {
        from: port,
        to: EXCLUDED,
        acknowledged: 0,
        flags: SYN,
        ..stray
    };
    until(PATIENCE, "the answer to what may pass", || {
        wire.send(stray).and_then(|()| wire.send(opening)).ok()?;
        let mut answered = false;
        while let Some(segment) = wire.receive(Duration::from_millis(500)).ok()? {
            if segment.to != port || segment.flags & RST == 0 {
                continue;
            }
            answered |= segment.from == CLOSED;
            if segment.from == EXCLUDED {
                return Some(answered);
            }
        }
        None
    })
}

/// Whether a captured connection survives a segment beyond its window.
fn survives(wire: &Wire, pod: &Pod, other: &Pod) -> Result<bool> {
    let proxy = pod.within(|| TcpListener::bind((wire.pod, 15006)))??;
    let mut client = other.dial(SocketAddr::new(wire.pod, 80))?;
    let (mut served, _) = proxy.accept()?;
    let port = client.local_addr()?.port();
    for end in [&client, &served] {
        end.set_read_timeout(Some(PATIENCE))?;
    }
    let opened = loop {
        let segment = wire.receive(PATIENCE)?.context("the opening of the connection")?;
        if segment.to == port && segment.flags & (SYN | ACK) == SYN | ACK {
            break segment;
        }
    };
    wire.send(Segment {
        from: port,
        to: 80,
        // What the client would send next, and far beyond; and what it expects next.
        sequence: opened.acknowledged.wrapping_add(1 << 30),
        acknowledged: opened.sequence.wrapping_add(1),
        flags: ACK,
    })?;
    exchange(&mut client, &mut served)
}

fn exchange(client: &mut TcpStream, served: &mut TcpStream) -> Result<bool> {
    let mut byte = [0];
    let there = client.write_all(&[1]).and_then(|()| served.read_exact(&mut byte));
    let back = there
        .and_then(|()| served.write_all(&[2]))
        .and_then(|()| client.read_exact(&mut byte));
    match back {
        Ok(()) => Ok(true),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof
            ) =>
        {
            Ok(false)
        }
        Err(error) => bail!("{error}"),
    }
}

/// What is said of an invalid packet.
fn said(pod: &Pod, wire: &Wire) -> Result<Fate> {
    let held = pod.within(|| Session::open(None).map(|session| session.own().rules))??;
    let held = held.iter().find(|(_, held)| held.family == Family::of(wire.pod));
    let (_, held) = held.context("both families")?;
    let packet = Packet {
        origin: Origin::Remote,
        protocol: IpProtocol::Tcp,
        source: wire.own,
        source_port: 40_000,
        destination: wire.pod,
        destination_port: 80,
        device: "eth0".to_owned(),
        state: State::Invalid,
        connection_mark: 0,
        transparent: false,
        dns_answers: true,
    };
    Ok(evaluate(held, &packet).fate)
}

#[test]
fn what_conntrack_can_make_nothing_of_is_dropped_where_that_is_asked_for() -> Result<()> {
    for backend in BACKENDS {
        for (flag, fate) in [("", Fate::Direct), ("--drop-invalid", Fate::Drop)] {
            let net = Net::create()?;
            let (pod, other) = (net.pod("pod")?, net.pod("other")?);
            init(&pod, &format!("--sidecar {flag} --backend {backend}"))?;
            for (own, to) in other.addresses().into_iter().zip(pod.addresses()) {
                let what = format!("{backend} {flag}, {own} -> {to}");
                let wire = Wire::new(&other, own, to)?;
                let passes = fate == Fate::Direct;
                ensure!(said(&pod, &wire)? == fate, "{what}: evaluate says something else");
                ensure!(
                    is_answered(&wire, 40_001)? == passes,
                    "{what}: a segment of no connection"
                );
                ensure!(
                    survives(&wire, &pod, &other)? != passes,
                    "{what}: beyond the window"
                );
            }
        }
    }
    Ok(())
}
