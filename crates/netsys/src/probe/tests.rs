//! Packets made and read, and what a probe keeps of what it sees.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use rules::Family;

use super::*;
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
