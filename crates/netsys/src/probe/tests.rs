//! Packets made and read, and what a probe keeps of what it sees.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use rules::Family;

use super::*;
use crate::netlink::{Changes, LinkIndex};
use crate::netns::Netns;

/// Only ends a test that has already failed.
const PATIENCE: Duration = Duration::from_secs(20);

fn shown() -> String {
    let commands = [
        "ip -br link",
        "ip -4 rule",
        "ip -6 rule",
        "ip addr",
        "ip route show table all",
    ];
    commands
        .map(|command| {
            let mut words = command.split(' ');
            let said = Command::new(words.next().unwrap()).args(words).output().unwrap();
            String::from_utf8(said.stdout).unwrap()
        })
        .concat()
}

fn syn(source: IpAddr, destination: SocketAddr, sequence: u32) -> Segment {
    Segment {
        source: SocketAddr::new(source, 40_000),
        destination,
        payload: Payload::Tcp {
            flags: Flags::SYN,
            sequence,
            acknowledged: 0,
            data: vec![],
        },
    }
}

/// What is sent the moment after an address was added may be lost, so it is sent until it is seen.
fn send_until_seen(tap: &Tap, send: impl Fn(), what: impl Fn(&Seen) -> bool) -> Seen {
    const AGAIN: Duration = Duration::from_millis(50);
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        send();
        while let Some(seen) = tap.next(Instant::now() + AGAIN).unwrap() {
            if what(&seen) {
                return seen;
            }
        }
    }
    panic!("it is not seen");
}

#[test]
fn what_is_sent_from_it_ends_there_and_what_is_put_in_arrives_and_nothing_stays() {
    let before_and_after = Netns::create()
        .unwrap()
        .run(|| {
            let before = shown();
            let local = ["192.0.2.200", "2001:db8::200"].map(|ip| ip.parse().unwrap());
            let wire = Wire::lay(Addresses::CHOICES[0], &Family::ALL, &local).unwrap();
            let tap = Tap::open(wire.addresses).unwrap();
            for (family, anywhere) in Family::ALL.into_iter().zip(["192.0.2.9:80", "[2001:db8::9]:80"]) {
                let near = wire.addresses.near(family);
                let out = syn(near, anywhere.parse().unwrap(), 7);
                let owner = Owner {
                    uid: 1337,
                    gid: 1338,
                    mark: 0,
                };
                let socket = RawSocket::open(owner, near).unwrap();
                let send = || socket.send(&out).unwrap();
                let seen = send_until_seen(&tap, send, |seen| seen.segment == out);
                assert_eq!((seen.device, seen.passed), (wire.device, Passed::Out));

                // Nobody listens there, and the stack says so.
                let far = wire.addresses.far(family);
                let put = || wire.put(&syn(far, SocketAddr::new(near, 9), 7)).unwrap();
                let answer = send_until_seen(&tap, put, |seen| {
                    seen.passed == Passed::Out && seen.segment.destination.ip() == far
                });
                let Payload::Tcp {
                    flags, acknowledged, ..
                } = answer.segment.payload
                else {
                    panic!("{answer:?}");
                };
                assert!(flags.has(Flags::RST) && acknowledged == 8, "{answer:?}");
            }
            // One that was killed leaves everything; the next run finds it.
            std::mem::forget(wire);
            drop(Wire::lay(Addresses::CHOICES[0], &Family::ALL, &local).unwrap());
            (before, shown())
        })
        .unwrap();
    assert_eq!(before_and_after.0, before_and_after.1);
}

/// The same, without what the kernel gives a device that has just been made in its own time: whether it runs, and
/// addresses of the link.
fn settled() -> Vec<String> {
    let is_given = |line: &&str| {
        ["fe80", "ff00", "valid_lft", "<"]
            .iter()
            .any(|sign| line.contains(sign))
    };
    let text = shown();
    let devices = crate::links::links().unwrap();
    let names = devices.into_iter().map(|device| device.name);
    names
        .chain(text.lines().filter(|line| !is_given(line)).map(str::to_owned))
        .collect()
}

/// Two that are there, of which one leads out of the namespace, and two that are not.
#[test]
fn packets_come_in_and_leave_by_a_device_and_nothing_gets_out_by_it() {
    let outside = Netns::create().unwrap();
    let inside = Netns::create().unwrap();
    let peers = outside.run(|| Tap::open(Addresses::CHOICES[0]).unwrap()).unwrap();
    let (before, after) = inside
        .run(|| {
            let veth = ((LinkIndex(71), "eth1"), (LinkIndex(72), "outside"));
            let mut changes = Changes::new();
            changes.veth_into(veth.0, veth.1, outside.as_fd());
            changes.bridge((LinkIndex(73), "br0"));
            changes.commit().unwrap();
            outside
                .run(|| Changes::new().up(LinkIndex(72)).commit().unwrap())
                .unwrap();
            let before = settled();
            let mut wire = Wire::lay(Addresses::CHOICES[0], &Family::ALL, &[]).unwrap();
            let tap = Tap::open(wire.addresses).unwrap();
            for name in ["eth1", "br+", "docker0", "tap*"] {
                wire.lead_by(name, true).unwrap();
            }
            assert!(
                wire.lead_by("none", false)
                    .unwrap_err()
                    .contains("no such device")
            );
            let names: Vec<_> = wire.devices().iter().map(|device| device.name.as_str()).collect();
            assert_eq!(names, ["eth1", "br0", "docker0", "tapweirprobe"]);
            for device in wire.devices() {
                assert_eq!(device.lacks, [""; 0]);
                assert_eq!(device.is_made, !["eth1", "br0"].contains(&device.name.as_str()));
                for (family, anywhere) in Family::ALL.into_iter().zip(["192.0.2.9:80", "[2001:db8::9]:80"]) {
                    let source = device.source(family);
                    let out =
                        syn(source, anywhere.parse().unwrap(), 7).grown_to(Device::packet_bytes(family));
                    let owner = myself();
                    let socket = RawSocket::open(owner, source).unwrap();
                    let refused = socket.send(&out).unwrap_err();
                    assert_eq!(
                        refused.raw_os_error(),
                        Some(libc::EMSGSIZE),
                        "{}: {refused}",
                        device.name
                    );

                    let (near, far) = (wire.addresses.near(family), wire.addresses.far(family));
                    let index = crate::links::index_of(&device.name).unwrap();
                    let call = syn(far, SocketAddr::new(near, 9), 7);
                    let put = || wire.put_by(device, &call).unwrap();
                    let seen = send_until_seen(&tap, put, |seen| {
                        seen.device == index && seen.passed == Passed::In && seen.segment == call
                    });
                    assert_eq!(seen.segment, call);
                    // The answer goes back by the wire.
                    send_until_seen(&tap, put, |seen| {
                        let is_answer = seen.segment.destination.ip() == far && seen.passed == Passed::Out;
                        assert!(!is_answer || seen.device == wire.device, "{seen:?}");
                        is_answer
                    });
                }
            }
            // One that was killed leaves everything; the next run finds it.
            std::mem::forget(wire);
            drop(Wire::lay(Addresses::CHOICES[0], &Family::ALL, &[]).unwrap());
            (before, settled())
        })
        .unwrap();
    assert_eq!(before, after);
    assert_eq!(peers.next(Instant::now()).unwrap(), None);
}

#[test]
fn a_socket_belongs_to_whom_it_is_made_for_and_the_thread_stays_who_it_was() {
    let uid_of = |owner| {
        let socket = as_owner(owner, || std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        let file = std::os::fd::OwnedFd::from(socket);
        rustix::fs::fstat(file).unwrap().st_uid
    };
    let me = rustix::process::geteuid().as_raw();
    let owner = |uid| Owner { uid, gid: 5, mark: 0 };
    assert_eq!(uid_of(owner(1337)), 1337);
    assert_eq!(std::net::UdpSocket::bind("127.0.0.1:0").map(|_| me).unwrap(), me);
    assert!(can_be(owner(4_000_000)));
}
