//! The peer at the wire's far end, which speaks TCP by hand.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netsys::probe::{Flags, Passed, Payload, Seen, Segment, Tap, Wire};

use super::talk::{PAUSE, WORD};

/// The peer at the far end.
pub(crate) struct Peer<'a> {
    pub(crate) wire: &'a Wire,
    pub(crate) tap: Tap,
    /// A number that no earlier connection has begun with.
    pub(crate) number: u32,
}

/// What came of a call.
pub(super) enum Called {
    Back,
    Ended,
    Stuck,
    Refused,
}

impl Peer<'_> {
    /// Serves connections to `at` that leave by the wire, until it is done: gives back what comes. Answers who
    /// called first.
    pub(super) fn serve(&self, at: SocketAddr, done: &AtomicBool) -> io::Result<Option<SocketAddr>> {
        let mut first = None;
        while !done.load(Ordering::Acquire) {
            let Some(seen) = self.tap.next(Instant::now() + PAUSE)? else {
                continue;
            };
            if !self.left(&seen) || seen.segment.destination != at {
                continue;
            }
            let Payload::Tcp {
                flags,
                sequence,
                acknowledged,
                data,
            } = &seen.segment.payload
            else {
                continue;
            };
            let client = seen.segment.source;
            let reply = |flags, sequence, acknowledged, data| {
                self.put(at, client, flags, sequence, acknowledged, data)
            };
            if flags.has(Flags::SYN) {
                first.get_or_insert(client);
                reply(Flags::SYN_ACK, self.number, sequence.wrapping_add(1), vec![])?;
            } else if !data.is_empty() {
                let next = sequence.wrapping_add(data.len() as u32);
                reply(Flags::PUSH_ACK, *acknowledged, next, data.clone())?;
            } else if flags.has(Flags::FIN) {
                let flags = Flags(Flags::RST.0 | Flags::ACK.0);
                reply(flags, *acknowledged, sequence.wrapping_add(1), vec![])?;
            }
        }
        Ok(first)
    }

    /// Calls somebody here from the far end, sends the word and waits for it to come back.
    pub(super) fn call(&self, from: SocketAddr, to: SocketAddr, patience: Duration) -> io::Result<Called> {
        let end = Instant::now() + patience;
        let mut accepted = false;
        let mut next_try = Instant::now();
        let mut back: Vec<u8> = vec![];
        // Theirs that has come, ours that is next.
        let (mut theirs, ours) = (0, self.number.wrapping_add(1));
        loop {
            if !accepted && Instant::now() >= next_try {
                self.put(from, to, Flags::SYN, self.number, 0, vec![])?;
                next_try = Instant::now() + Duration::from_millis(150);
            }
            let Some(seen) = self.tap.next(end.min(Instant::now() + PAUSE))? else {
                if Instant::now() >= end {
                    self.reset(from, to, ours)?;
                    return Ok(if accepted { Called::Stuck } else { Called::Refused });
                }
                continue;
            };
            if !self.left(&seen) || seen.segment.source != to || seen.segment.destination != from {
                continue;
            }
            let Payload::Tcp {
                flags,
                sequence,
                data,
                ..
            } = &seen.segment.payload
            else {
                continue;
            };
            if flags.has(Flags::RST) || flags.has(Flags::FIN) {
                self.reset(from, to, ours.wrapping_add(WORD.len() as u32))?;
                return Ok(if accepted { Called::Ended } else { Called::Refused });
            }
            if flags.has(Flags::SYN_ACK) {
                accepted = true;
                theirs = sequence.wrapping_add(1);
                self.put(from, to, Flags::PUSH_ACK, ours, theirs, WORD.to_vec())?;
            } else if *sequence == theirs && !data.is_empty() {
                back.extend(data);
                theirs = theirs.wrapping_add(data.len() as u32);
                let sent = ours.wrapping_add(WORD.len() as u32);
                self.put(from, to, Flags::ACK, sent, theirs, vec![])?;
                if back.len() >= WORD.len() {
                    self.reset(from, to, sent)?;
                    return Ok(if back == WORD.as_slice() {
                        Called::Back
                    } else {
                        Called::Ended
                    });
                }
            }
        }
    }

    /// Whether it left by the wire.
    fn left(&self, seen: &Seen) -> bool {
        seen.device == self.wire.device && seen.passed == Passed::Out
    }

    fn reset(&self, from: SocketAddr, to: SocketAddr, number: u32) -> io::Result<()> {
        self.put(from, to, Flags::RST, number, 0, vec![])
    }

    fn put(
        &self,
        source: SocketAddr,
        destination: SocketAddr,
        flags: Flags,
        sequence: u32,
        acknowledged: u32,
        data: Vec<u8>,
    ) -> io::Result<()> {
        self.wire.put(&Segment {
            source,
            destination,
            payload: Payload::Tcp {
                flags,
                sequence,
                acknowledged,
                data,
            },
        })
    }
}
