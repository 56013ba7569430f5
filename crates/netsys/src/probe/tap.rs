//! Sees packets of the probes' addresses as they pass any device of a namespace, `lo` included: what leaves after
//! every rule has had it, what comes before any.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::{Domain, SockFilter, Socket, Type};

use super::addresses::Addresses;
use super::segment::Segment;
use crate::sys;

/// A packet socket on every device.
#[derive(Debug)]
pub struct Tap(Socket);

/// A packet, and where it was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The device's index.
    pub device: u32,
    /// Which way it went.
    pub passed: Passed,
    /// What it is.
    pub segment: Segment,
}

/// Which way a packet passed a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passed {
    /// From the namespace.
    Out,
    /// To the namespace.
    In,
}

impl Tap {
    /// Sees packets from or to these addresses from now on.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW`.
    pub fn open(addresses: Addresses) -> io::Result<Self> {
        // No protocol yet: nothing is received before the filter is in place.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking().cloexec(), None)?;
        socket.attach_filter(&filter(addresses))?;
        sys::packet::bind_to_all(socket.as_fd())?;
        Ok(Self(socket))
    }

    /// The next one; none where none comes until `end`.
    ///
    /// # Errors
    /// Where the socket fails.
    pub fn next(&self, end: Instant) -> io::Result<Option<Seen>> {
        let mut buffer = [0; 2048];
        loop {
            match sys::packet::receive(self.0.as_fd(), &mut buffer) {
                Ok((length, device, kind)) => {
                    let Some(segment) = Segment::parse(&buffer[..length]) else {
                        continue;
                    };
                    return Ok(Some(Seen {
                        device,
                        passed: match kind {
                            libc::PACKET_OUTGOING => Passed::Out,
                            _ => Passed::In,
                        },
                        segment,
                    }));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A device went down.
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
                Err(error) => return Err(error),
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            wait(&self.0, left)?;
        }
    }
}

fn wait(socket: &Socket, time: Duration) -> io::Result<()> {
    let mut waiting = [PollFd::new(socket, PollFlags::IN)];
    let time = Timespec::try_from(time).unwrap_or_default();
    match poll(&mut waiting, Some(&time)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Classic BPF over an IP packet: takes what is from or to the networks of the addresses.
fn filter(addresses: Addresses) -> Vec<SockFilter> {
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_WORD: u16 = 0x20;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let op = |code, k, jt, jf| SockFilter::new(code, jt, jf, k);
    let load = |offset| op(LOAD_WORD, offset, 0, 0);
    let jump = |value, jt, jf| op(JUMP_IF_EQUAL, value, jt, jf);
    let mask = u32::MAX << (32 - Addresses::V4_BITS);
    let v4 = u32::from(addresses.near_v4) & mask;
    let segments = addresses.near_v6.segments();
    let word = |at: usize| u32::from(segments[at]) << 16 | u32::from(segments[at + 1]);
    let (first, second, third) = (word(0), word(2), word(4));
    vec![
        op(LOAD_BYTE, 0, 0, 0),
        op(AND, 0xf0, 0, 0),
        jump(0x40, 1, 0),  // 2: to 4
        jump(0x60, 6, 18), // 3: to 10, or to 22
        load(12),          // 4: IPv4, source
        op(AND, mask, 0, 0),
        jump(v4, 16, 0), // 6: to 23
        load(16),        // 7: destination
        op(AND, mask, 0, 0),
        jump(v4, 13, 12),  // 9: to 23, or to 22
        load(8),           // 10: IPv6, source
        jump(first, 0, 4), // 11: or to 16
        load(12),
        jump(second, 0, 2), // 13: or to 16
        load(16),
        jump(third, 7, 0), // 15: to 23
        load(24),          // 16: destination
        jump(first, 0, 4), // 17: or to 22
        load(28),
        jump(second, 0, 2), // 19: or to 22
        load(32),
        jump(third, 1, 0),                     // 21: to 23
        op(RETURN, 0, 0, 0),                   // 22: none of it
        op(RETURN, u32::from(u16::MAX), 0, 0), // 23: all of it
    ]
}
