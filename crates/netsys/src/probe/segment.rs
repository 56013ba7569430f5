//! A TCP segment or UDP datagram in its IP packet, put together and taken apart by hand: what a probe sends must
//! be free of the kernel's own ideas, and what it sees may come from anybody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const TCP: u8 = 6;
const UDP: u8 = 17;
const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// One packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes; of the same family.
    pub destination: SocketAddr,
    /// What it carries.
    pub payload: Payload,
}

/// What a packet carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    /// A segment of TCP.
    Tcp {
        /// Its flags.
        flags: Flags,
        /// Its sequence number.
        sequence: u32,
        /// The sequence number that is expected next; counts where [`Flags::ACK`] is set.
        acknowledged: u32,
        /// Its bytes.
        data: Vec<u8>,
    },
    /// A datagram of UDP.
    Udp(Vec<u8>),
}

/// Flags of TCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flags(pub u8);

impl Flags {
    /// Nothing more will be sent.
    pub const FIN: Self = Self(0x01);
    /// Opens a connection.
    pub const SYN: Self = Self(0x02);
    /// Ends a connection at once.
    pub const RST: Self = Self(0x04);
    /// Acknowledges.
    pub const ACK: Self = Self(0x10);
    /// Answers [`Flags::SYN`].
    pub const SYN_ACK: Self = Self(0x12);
    /// Acknowledges, with bytes for the application.
    pub const PUSH_ACK: Self = Self(0x18);

    /// Whether all of these are set.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl Segment {
    /// The IP packet, with its checksums.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        let (protocol, mut inner) = self.inner();
        let sum = self.pseudo_sum(protocol, inner.len());
        let place = if protocol == TCP { 16 } else { 6 };
        let sum = checksum(sum, &inner);
        // To UDP, zero is "none".
        let sum = if sum == 0 && protocol == UDP {
            u16::MAX
        } else {
            sum
        };
        inner[place..place + 2].copy_from_slice(&sum.to_be_bytes());
        let mut packet = self.header(protocol, inner.len());
        packet.append(&mut inner);
        packet
    }

    /// The same, with zeros after its bytes until its packet is as long.
    #[must_use]
    pub fn grown_to(mut self, packet_bytes: usize) -> Self {
        let missing = packet_bytes.saturating_sub(self.packet().len());
        let (Payload::Tcp { data, .. } | Payload::Udp(data)) = &mut self.payload;
        data.resize(data.len() + missing, 0);
        self
    }

    /// The segment or datagram with a checksum of zero.
    fn inner(&self) -> (u8, Vec<u8>) {
        const WORDS_OF_HEADER: u8 = (TCP_HEADER / 4) as u8;
        const WINDOW: u16 = 65_535;
        let mut bytes = vec![];
        bytes.extend(self.source.port().to_be_bytes());
        bytes.extend(self.destination.port().to_be_bytes());
        match &self.payload {
            Payload::Tcp {
                flags,
                sequence,
                acknowledged,
                data,
            } => {
                bytes.extend(sequence.to_be_bytes());
                bytes.extend(acknowledged.to_be_bytes());
                bytes.extend([WORDS_OF_HEADER << 4, flags.0]);
                bytes.extend(WINDOW.to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(data);
                (TCP, bytes)
            }
            Payload::Udp(data) => {
                bytes.extend(((UDP_HEADER + data.len()) as u16).to_be_bytes());
                bytes.extend([0; 2]);
                bytes.extend(data);
                (UDP, bytes)
            }
        }
    }

    fn header(&self, protocol: u8, length: usize) -> Vec<u8> {
        const HOPS: u8 = 64;
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = vec![0x45, 0];
                header.extend(((V4_HEADER + length) as u16).to_be_bytes());
                header.extend([0, 0, 0x40, 0, HOPS, protocol, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                let sum = checksum(0, &header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                header
            }
            (source, destination) => {
                let mut header = vec![0x60, 0, 0, 0];
                header.extend((length as u16).to_be_bytes());
                header.extend([protocol, HOPS]);
                header.extend(as_v6(source).octets());
                header.extend(as_v6(destination).octets());
                header
            }
        }
    }

    /// What the checksums of TCP and UDP count of the header around them.
    fn pseudo_sum(&self, protocol: u8, length: usize) -> u32 {
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let mut pseudo = octets(self.source.ip());
        pseudo.extend(octets(self.destination.ip()));
        pseudo.extend((length as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, protocol]);
        sum(0, &pseudo)
    }

    /// What an IP packet holds; none for what is neither TCP nor UDP, a later fragment, or cut short. Checksums
    /// are not looked at: a packet that has not left the machine may have none yet.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let (protocol, source, destination, inner) = match packet.first()? >> 4 {
            4 => v4(packet)?,
            6 => v6(packet)?,
            _ => return None,
        };
        let port = |at: usize| Some(u16::from_be_bytes(inner.get(at..at + 2)?.try_into().ok()?));
        let number = |at: usize| Some(u32::from_be_bytes(inner.get(at..at + 4)?.try_into().ok()?));
        let payload = match protocol {
            TCP => {
                let header = usize::from(inner.get(12)? >> 4) * 4;
                Payload::Tcp {
                    flags: Flags(*inner.get(13)?),
                    sequence: number(4)?,
                    acknowledged: number(8)?,
                    data: inner.get(header.max(TCP_HEADER)..)?.to_vec(),
                }
            }
            UDP => Payload::Udp(inner.get(UDP_HEADER..)?.to_vec()),
            _ => return None,
        };
        Some(Self {
            source: SocketAddr::new(source, port(0)?),
            destination: SocketAddr::new(destination, port(2)?),
            payload,
        })
    }
}

/// Protocol, source, destination, and what follows the header.
type Parts<'a> = (u8, IpAddr, IpAddr, &'a [u8]);

fn v4(packet: &[u8]) -> Option<Parts<'_>> {
    let address = |at: usize| {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(IpAddr::from(Ipv4Addr::from(octets)))
    };
    let header = usize::from(packet.first()? & 0xf) * 4;
    let length = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
    let offset = u16::from_be_bytes(packet.get(6..8)?.try_into().ok()?) & 0x1fff;
    if header < V4_HEADER || offset != 0 {
        return None;
    }
    Some((
        *packet.get(9)?,
        address(12)?,
        address(16)?,
        packet.get(header..length)?,
    ))
}

fn v6(packet: &[u8]) -> Option<Parts<'_>> {
    let address = |at: usize| {
        let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::from(Ipv6Addr::from(octets)))
    };
    let length = usize::from(u16::from_be_bytes(packet.get(4..6)?.try_into().ok()?));
    Some((
        *packet.get(6)?,
        address(8)?,
        address(24)?,
        packet.get(V6_HEADER..V6_HEADER + length)?,
    ))
}

fn as_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// The sum of 16-bit words of RFC 1071, not folded yet.
fn sum(start: u32, bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|pair| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    words.fold(start, u32::wrapping_add)
}

fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = sum(start, bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments() -> Vec<Segment> {
        let addresses = [
            ("192.0.2.1:1", "192.0.2.2:65535"),
            ("[2001:db8::1]:80", "[2001:db8::2]:15001"),
        ];
        let payloads = [
            Payload::Tcp {
                flags: Flags::SYN_ACK,
                sequence: u32::MAX,
                acknowledged: 1,
                data: vec![],
            },
            Payload::Tcp {
                flags: Flags::PUSH_ACK,
                sequence: 7,
                acknowledged: 0,
                data: b"odd".to_vec(),
            },
            Payload::Udp(b"weir".to_vec()),
            Payload::Udp(vec![]),
        ];
        let all = addresses.iter().flat_map(|(source, destination)| {
            payloads.iter().map(|payload| Segment {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                payload: payload.clone(),
            })
        });
        all.collect()
    }

    #[test]
    fn what_is_put_together_is_taken_apart() {
        for segment in segments() {
            let packet = segment.packet();
            assert_eq!(Segment::parse(&packet), Some(segment.clone()));
            // Padding of a short frame is not the packet's.
            let padded = [packet.as_slice(), &[0; 8]].concat();
            assert_eq!(Segment::parse(&padded), Some(segment));
        }
    }

    /// With the checksum in its place, the words sum up to all ones.
    #[test]
    fn checksums_are_right() {
        for segment in segments() {
            let packet = segment.packet();
            let header = if packet[0] >> 4 == 4 { V4_HEADER } else { V6_HEADER };
            let (protocol, inner) = segment.inner();
            let whole = checksum(segment.pseudo_sum(protocol, inner.len()), &packet[header..]);
            assert_eq!(whole, 0, "{segment:?}");
            if header == V4_HEADER {
                assert_eq!(checksum(0, &packet[..header]), 0);
            }
        }
    }

    #[test]
    fn what_is_cut_short_or_makes_no_sense_is_nothing() {
        for segment in segments() {
            let packet = segment.packet();
            for end in 0..packet.len() {
                assert_eq!(Segment::parse(&packet[..end]), None, "{end} bytes of {segment:?}");
            }
            for (at, byte) in [(0, 0x05), (0, 0x41), (0, 0x75), (0, 0xff), (6, 0x1f), (9, 1)] {
                let mut changed = packet.clone();
                changed[at] = byte;
                // It may be a packet still, of another meaning; it is never read past its end.
                let _ = Segment::parse(&changed);
            }
        }
        let mut fragment = segments()[0].packet();
        fragment[7] = 1;
        assert_eq!(Segment::parse(&fragment), None, "a later fragment has no ports");
        let mut huge = segments()[0].packet();
        huge[32] = 0xf0;
        assert_eq!(Segment::parse(&huge), None, "a TCP header longer than the packet");
        assert_eq!(Segment::parse(&[]), None);
    }
}
