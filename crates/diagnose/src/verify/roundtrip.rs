//! Connections that go all the way: from an application through the rules to the proxy, on to a peer, and back
//! with what was sent; and from a peer in. Where no proxy runs, a stand-in does what it would do.

mod peer;
mod stand_in;
mod talk;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use netsys::probe::{Owner, socket_of};
use netsys::sock;
use socket2::{Domain, Type};

use self::peer::Called;
pub(super) use self::peer::Peer;
pub(super) use self::stand_in::StandIn;
use self::talk::{WORD, accept, read_until, wait_for_end};

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
        let passed = stand_in.map(|stand_in| scope.spawn(|| stand_in.pass_on(&done, patience)));
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
        let passed = stand_in.map(|stand_in| scope.spawn(|| stand_in.pass_on(&done, patience)));
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

/// What a thread came to.
pub(super) fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
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
    let socket = match socket_of(from, Domain::for_address(to), Type::STREAM, None) {
        Ok(socket) => socket,
        Err(error) => return refused(error),
    };
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

/// Plays the application: gives back what it gets. Answers who called.
fn echo(listener: &TcpListener, done: &AtomicBool) -> Option<SocketAddr> {
    let (mut stream, peer) = accept(listener, done)?;
    let mut word = [0; WORD.len()];
    read_until(&mut stream, &mut word, done)?;
    stream.write_all(&word).ok()?;
    wait_for_end(&mut stream, done);
    Some(peer)
}
