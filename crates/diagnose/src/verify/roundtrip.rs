//! Connections that go all the way: from an application through the rules to the proxy, on to a peer, and back
//! with what was sent; and from a peer in. The peer is at the wire's far end and speaks TCP by hand. Where no
//! proxy runs, a stand-in does what it would do.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netsys::probe::{Flags, Owner, Passed, Payload, Seen, Segment, Tap, Wire, as_owner};
use netsys::sock;
use socket2::{Domain, Socket, Type};

/// What is sent, and has to come back. To a proxy it is no protocol that it knows.
const WORD: &[u8; 17] = b"\x00weir probes this";
/// How long is waited for each next thing to happen.
const PAUSE: Duration = Duration::from_millis(20);

/// What became of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Trip {
    /// The word came back from where it was going.
    Back {
        /// Who called there.
        called_by: SocketAddr,
    },
    /// It was accepted, and then ended by whoever had accepted it.
    Ended,
    /// It was accepted, and then nothing happened.
    Stuck,
    /// It was not accepted.
    Refused(String),
}

/// A side that plays the proxy where none runs.
pub(super) struct StandIn {
    /// Where it listens.
    pub(super) listener: TcpListener,
    /// How it is recognised as the proxy; where it cannot be, it calls nobody who is not of this namespace.
    pub(super) owner: Option<Owner>,
    /// By TPROXY: the mark on what it sends in a client's name.
    pub(super) tproxy: Option<u32>,
}

/// The peer at the far end.
pub(super) struct Peer<'a> {
    pub(super) wire: &'a Wire,
    pub(super) tap: &'a Tap,
    /// A number that no earlier connection has begun with.
    pub(super) number: u32,
}

/// An application calls the peer; the proxy is to take it there.
pub(super) fn outward(
    peer: &Peer<'_>,
    to: SocketAddr,
    from: Owner,
    stand_in: Option<&StandIn>,
    patience: Duration,
) -> io::Result<Trip> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            let called = call(to, from, patience);
            done.store(true, Ordering::Release);
            called
        });
        let passed = stand_in.map(|stand_in| scope.spawn(|| stand_in.pass_on(&done)));
        let served = peer.serve(to, &done);
        let called = joined(client);
        let passed = passed.map(joined);
        let served = served?;
        // What the application itself sent would say that it was not captured.
        let by_proxy = served.filter(|by| called.local != Some(*by));
        Ok(match (called.trip, by_proxy, passed.flatten()) {
            (None, Some(called_by), _) => Trip::Back { called_by },
            // A stand-in that could call nobody has answered.
            (None, None, Some(meant)) if meant == to => Trip::Back { called_by: to },
            (None, None, Some(meant)) => {
                Trip::Refused(format!("the stand-in was told that it was going to {meant}"))
            }
            (None, None, _) => Trip::Refused("the connection went past the proxy".to_owned()),
            (Some(Trip::Stuck), Some(_), _) => Trip::Stuck,
            (Some(trip), ..) => trip,
        })
    })
}

/// The peer calls an application here; the proxy is to take it there.
pub(super) fn inward(
    peer: &Peer<'_>,
    application: &TcpListener,
    from: SocketAddr,
    stand_in: Option<&StandIn>,
    patience: Duration,
) -> io::Result<Trip> {
    let to = application.local_addr()?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let answered = scope.spawn(|| echo(application, &done));
        let passed = stand_in.map(|stand_in| scope.spawn(|| stand_in.pass_on(&done)));
        let trip = peer.call(from, to, patience);
        done.store(true, Ordering::Release);
        let answered = joined(answered);
        let _ = passed.map(joined);
        Ok(match (trip?, answered) {
            (Called::Back, Some(called_by)) => Trip::Back { called_by },
            (Called::Back, None) => Trip::Refused("somebody else answered".to_owned()),
            (Called::Ended, _) => Trip::Ended,
            (Called::Stuck, _) => Trip::Stuck,
            (Called::Refused, _) => Trip::Refused("nobody accepted it".to_owned()),
        })
    })
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|cause| std::panic::resume_unwind(cause))
}

/// What came of a call; no trip where all went well.
struct Call {
    trip: Option<Trip>,
    local: Option<SocketAddr>,
}

fn call(to: SocketAddr, from: Owner, patience: Duration) -> Call {
    let refused = |error: io::Error| Call {
        trip: Some(Trip::Refused(error.to_string())),
        local: None,
    };
    let socket = as_owner(from, || {
        Socket::new(Domain::for_address(to), Type::STREAM.cloexec(), None)
    });
    let socket = match socket.and_then(|socket| socket) {
        Ok(socket) => socket,
        Err(error) => return refused(error),
    };
    if from.mark != 0
        && let Err(error) = socket.set_mark(from.mark)
    {
        return refused(error);
    }
    if let Err(error) = socket.connect_timeout(&to.into(), patience) {
        return refused(error);
    }
    let mut stream = TcpStream::from(socket);
    let local = stream.local_addr().ok();
    // A reset leaves nothing waiting in the kernel.
    let _ = sock::reset_on_close(&stream);
    let _ = stream.set_read_timeout(Some(patience));
    let mut back = [0; WORD.len()];
    let read = stream.write_all(WORD).and_then(|()| stream.read_exact(&mut back));
    let trip = match read {
        Ok(()) if &back == WORD => None,
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Some(Trip::Stuck)
        }
        _ => Some(Trip::Ended),
    };
    Call { trip, local }
}

/// Accepts, until it is done; the sockets that come are left blocking.
fn accept(listener: &TcpListener, done: &AtomicBool) -> Option<(TcpStream, SocketAddr)> {
    listener.set_nonblocking(true).ok()?;
    while !done.load(Ordering::Acquire) {
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(false).ok()?;
                let _ = sock::reset_on_close(&stream);
                return Some((stream, peer));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(PAUSE / 10),
            Err(_) => return None,
        }
    }
    None
}

/// Plays the application: gives back what it gets. Answers who called.
fn echo(listener: &TcpListener, done: &AtomicBool) -> Option<SocketAddr> {
    let (mut stream, peer) = accept(listener, done)?;
    let mut word = [0; WORD.len()];
    read_until(&mut stream, &mut word, done)?;
    stream.write_all(&word).ok()?;
    wait_for_end(&mut stream, done);
    Some(peer)
}

/// Reads all of it, or gives up when it is done.
fn read_until(stream: &mut TcpStream, word: &mut [u8], done: &AtomicBool) -> Option<()> {
    stream.set_read_timeout(Some(PAUSE)).ok()?;
    let mut filled = 0;
    while filled < word.len() {
        match stream.read(&mut word[filled..]) {
            Ok(0) => return None,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !done.load(Ordering::Acquire) => {}
            Err(_) => return None,
        }
    }
    Some(())
}

fn wait_for_end(stream: &mut TcpStream, done: &AtomicBool) {
    let mut rest = [0; 1];
    let _ = read_until(stream, &mut rest, done);
}

impl StandIn {
    /// Takes one connection to where it was going, as the proxy does. Answers where that was.
    fn pass_on(&self, done: &AtomicBool) -> Option<SocketAddr> {
        let (mut stream, peer) = accept(&self.listener, done)?;
        let local = stream.local_addr().ok()?;
        let to = match self.tproxy {
            Some(_) => local,
            None => sock::original_dst(&stream, local).ok()?.socket(),
        };
        // Called directly it would call itself.
        if to.port() == self.listener.local_addr().ok()?.port() {
            return None;
        }
        let mut word = [0; WORD.len()];
        if self.owner.is_some() || self.is_inward() {
            let onward = self.dial(to, peer.ip()).ok()?;
            let mut onward = TcpStream::from(onward);
            read_until(&mut stream, &mut word, done)?;
            onward.write_all(&word).ok()?;
            read_until(&mut onward, &mut word, done)?;
        } else {
            read_until(&mut stream, &mut word, done)?;
        }
        stream.write_all(&word).ok()?;
        wait_for_end(&mut stream, done);
        Some(to)
    }

    /// Whether it takes what comes in.
    fn is_inward(&self) -> bool {
        let local = self.listener.local_addr();
        local.is_ok_and(|local| local.ip().is_unspecified())
    }

    fn dial(&self, to: SocketAddr, client: IpAddr) -> io::Result<Socket> {
        let owner = self.owner.unwrap_or(netsys::probe::myself());
        let socket = as_owner(owner, || {
            Socket::new(Domain::for_address(to), Type::STREAM.cloexec(), None)
        })??;
        if owner.mark != 0 {
            socket.set_mark(owner.mark)?;
        }
        let source: Option<IpAddr> = match (self.tproxy, to) {
            (Some(mark), _) => {
                sock::transparent(&socket)?;
                socket.set_mark(mark)?;
                Some(client)
            }
            (None, _) if !self.is_inward() => None,
            (None, SocketAddr::V4(_)) => Some(model::ports::PASSTHROUGH_V4.into()),
            (None, SocketAddr::V6(_)) => Some(model::ports::PASSTHROUGH_V6.into()),
        };
        if let Some(source) = source {
            sock::bind_address_no_port(&socket)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        sock::reset_on_close(&socket)?;
        const PATIENCE: Duration = Duration::from_secs(3);
        socket.connect_timeout(&to.into(), PATIENCE)?;
        Ok(socket)
    }
}

enum Called {
    Back,
    Ended,
    Stuck,
    Refused,
}

impl Peer<'_> {
    /// Serves connections to `at` that leave by the wire, until it is done: gives back what comes. Answers who
    /// called first.
    fn serve(&self, at: SocketAddr, done: &AtomicBool) -> io::Result<Option<SocketAddr>> {
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
    fn call(&self, from: SocketAddr, to: SocketAddr, patience: Duration) -> io::Result<Called> {
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
