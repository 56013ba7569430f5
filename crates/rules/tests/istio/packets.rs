//! Packets that tell one rule set from another.

use std::net::IpAddr;

use rules::ruleset::IpProtocol;
use rules::{Origin, Packet, State};

use crate::setting::PORTS;

const OWN: [&str; 2] = ["10.77.0.1", "fd00:77::1"];

/// Every user with every group.
const OWNERS: [(u32, u32); 12] = [
    (0, 0),
    (0, 1337),
    (0, 1000),
    (0, 77),
    (1337, 0),
    (1337, 1337),
    (1337, 1000),
    (1337, 77),
    (1000, 0),
    (1000, 1337),
    (1000, 1000),
    (1000, 77),
];

const DEVICES: [&str; 5] = ["lo", "eth0", "eth1", "tap0", "tap1"];

/// Those of connections that were open before conntrack looked, one for each first packet of TCP.
pub(crate) fn picked_up() -> impl Iterator<Item = Packet> {
    let opening = |packet: &Packet| (packet.protocol, packet.state) == (IpProtocol::Tcp, State::New);
    packets().into_iter().filter(opening).map(|packet| Packet {
        state: State::PickedUp,
        ..packet
    })
}

/// Packets that can exist: what goes to an address of its own leaves by `lo`.
pub(crate) fn packets() -> Vec<Packet> {
    let mut packets = vec![];
    let destinations = [
        "10.77.0.1",
        "10.96.0.10",
        "10.1.2.3",
        "192.0.2.7",
        "198.51.100.1",
        "127.0.0.1",
        "127.0.0.5",
        "fd00:77::1",
        "fd00::9",
        "2001:db8::7",
        "2001:db8::8",
        "fe80::9",
        "::1",
    ];
    for destination in destinations.map(|text| text.parse::<IpAddr>().unwrap()) {
        let own = OWN.map(|text| text.parse::<IpAddr>().unwrap());
        let [v4, v6] = own;
        let is_own = destination.is_loopback() || own.contains(&destination);
        let (source, passthrough) = match destination {
            IpAddr::V4(_) => (v4, "127.0.0.6".parse().unwrap()),
            IpAddr::V6(_) => (v6, "::6".parse().unwrap()),
        };
        for port in PORTS {
            let packet = |origin, source, device: &str| Packet {
                origin,
                protocol: IpProtocol::Tcp,
                source,
                source_port: 40000,
                destination,
                destination_port: port,
                device: device.to_owned(),
                state: State::New,
                connection_mark: 0,
                transparent: false,
                dns_answers: true,
            };
            for (uid, gid) in OWNERS {
                let origin = Origin::Socket { uid, gid, mark: 0 };
                let device = if is_own { "lo" } else { "eth0" };
                packets.push(packet(origin, source, device));
                if is_own {
                    packets.push(packet(origin, passthrough, device));
                } else {
                    // The last one where the address is another one of its own.
                    let devices = ["eth1", "tap0", "tap1", "lo"];
                    packets.extend(devices.map(|device| packet(origin, source, device)));
                }
                packets.push(Packet {
                    protocol: IpProtocol::Udp,
                    ..packet(origin, source, device)
                });
            }
            if own.contains(&destination) {
                // The proxy in a client's name.
                let client = match destination {
                    IpAddr::V4(_) => "10.77.0.2".parse().unwrap(),
                    IpAddr::V6(_) => "fd00:77::2".parse().unwrap(),
                };
                let marked = Origin::Socket {
                    uid: 0,
                    gid: 1337,
                    mark: 1337,
                };
                packets.push(packet(marked, client, "lo"));
                let remote = match destination {
                    IpAddr::V4(_) => "10.77.0.2".parse().unwrap(),
                    IpAddr::V6(_) => "fd00:77::2".parse().unwrap(),
                };
                for device in ["eth0", "eth1", "tap0", "tap1"] {
                    let arriving = packet(Origin::Remote, remote, device);
                    for state in [State::Established, State::Invalid] {
                        packets.push(Packet {
                            state,
                            connection_mark: 0,
                            transparent: false,
                            ..arriving.clone()
                        });
                    }
                    packets.push(arriving);
                }
            } else if !destination.is_loopback() {
                let guest = match destination {
                    IpAddr::V4(_) => "10.78.0.2".parse().unwrap(),
                    IpAddr::V6(_) => "fd00:78::2".parse().unwrap(),
                };
                packets.extend(
                    ["eth0", "eth1", "tap0", "tap1"].map(|device| packet(Origin::Remote, guest, device)),
                );
            }
        }
    }
    packets.extend(of_dns());
    packets
}

/// The DNS proxy's signs of life and its answers, and look-ups by any device, and without it.
fn of_dns() -> Vec<Packet> {
    let mut packets = vec![];
    for (proxy, own, servers) in [
        (
            "127.0.0.1",
            OWN[0],
            ["10.96.0.10", "10.77.0.1", "127.0.0.1", "127.0.0.5"],
        ),
        ("::1", OWN[1], ["fd00::9", "fd00:77::1", "::1", "2001:db8::7"]),
    ] {
        let [proxy, own]: [IpAddr; 2] = [proxy, own].map(|text| text.parse().unwrap());
        let servers = servers.map(|text| text.parse::<IpAddr>().unwrap());
        for (uid, gid) in OWNERS {
            let answer = Packet {
                origin: Origin::Socket { uid, gid, mark: 0 },
                protocol: IpProtocol::Udp,
                source: proxy,
                source_port: 15053,
                destination: own,
                destination_port: 40000,
                device: "lo".to_owned(),
                state: State::Established,
                connection_mark: 0,
                dns_answers: true,
                transparent: false,
            };
            packets.push(Packet {
                source_port: 40000,
                destination: proxy,
                destination_port: 15053,
                dns_answers: false,
                state: State::New,
                ..answer.clone()
            });
            for destination in servers {
                let query = |protocol, device: &str, dns_answers| Packet {
                    protocol,
                    source: own,
                    source_port: 40000,
                    destination,
                    destination_port: 53,
                    device: device.to_owned(),
                    state: State::New,
                    dns_answers,
                    ..answer.clone()
                };
                let devices = if destination.is_loopback() {
                    &DEVICES[..1]
                } else {
                    &DEVICES
                };
                for device in devices {
                    packets.push(query(IpProtocol::Udp, device, true));
                    packets.push(query(IpProtocol::Tcp, device, true));
                    packets.push(query(IpProtocol::Tcp, device, false));
                }
                packets.push(query(IpProtocol::Udp, devices[0], false));
            }
            packets.push(answer);
        }
    }
    packets
}
