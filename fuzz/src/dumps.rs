//! Dumps of rules that somebody sends: whatever is in them, reading ends, and so does following a packet through them.

use std::net::IpAddr;

use rules::dumps::read;
use rules::ruleset::IpProtocol;
use rules::{Family, Fate, Origin, Packet, State};

/// Reads a dump and follows packets of both families, both ways.
///
/// # Panics
/// Where a packet's fate is not known and no rule, tie or depth stands for it, or one that decides is not to be shown.
pub fn check_dump(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let Ok(installed) = read(&text, Family::V4) else {
        return;
    };
    for (source, destination) in [
        ("10.0.0.1", "10.96.0.1"),
        ("fd00::1", "fd00:96::1"),
        ("10.0.0.1", "10.0.0.1"),
    ] {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        for origin in [
            Origin::Remote,
            Origin::Socket {
                uid: 1000,
                gid: 1000,
                mark: 0,
            },
        ] {
            let packet = Packet {
                origin,
                protocol: IpProtocol::Tcp,
                source: address(source),
                source_port: 40_000,
                destination: address(destination),
                destination_port: 80,
                device: String::from(if source == destination { "lo" } else { "eth0" }),
                state: State::New,
                connection_mark: 0,
                transparent: false,
                dns_answers: true,
            };
            let verdict = installed.evaluate(&packet);
            let family = Family::of(packet.destination);
            let is_explained = verdict.decided_by().is_some() || !installed.ties(family).is_empty();
            assert!(
                verdict.fate != Fate::Unknown || is_explained,
                "unknown without a reason"
            );
            for asked in &verdict.asked {
                assert!(installed.rule(asked.at).is_some() && installed.note(asked.at).is_some());
            }
        }
    }
}
