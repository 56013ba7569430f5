//! Connections that are made to see what comes of them: as any user, with any mark, closed at once. Caller:
//! `weir explain`, with `--trace` and `--probe`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};
use std::{io, thread};

use rules::ruleset::IpProtocol;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_gid, set_thread_uid};
use socket2::{Domain, Socket, Type};

/// A connection that is to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sent {
    /// TCP, or UDP: one empty datagram.
    pub protocol: IpProtocol,
    /// Where to.
    pub to: SocketAddr,
    /// As whom.
    pub uid: u32,
    /// In which group.
    pub gid: u32,
    /// With which mark.
    pub mark: u32,
}

/// As many are made at once.
const AT_ONCE: usize = 32;

/// Makes each of these, waits so long for it, and closes it. What came of each, in their order.
#[must_use]
pub fn knock(all: &[Sent], patience: Duration) -> Vec<io::Result<Duration>> {
    let one = |sent: Sent| connect(&connection(sent)?, sent, patience);
    let mut answers = vec![];
    for some in all.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let calls: Vec<_> = some.iter().map(|sent| scope.spawn(move || one(*sent))).collect();
            let joined = calls.into_iter().map(|call| {
                call.join()
                    .unwrap_or_else(|_| Err(io::Error::other("the thread that calls has panicked")))
            });
            answers.extend(joined);
        });
    }
    answers
}

/// A socket of that user: the packet filter looks at who made it. Its mark takes a right that the user lacks.
pub(super) fn connection(sent: Sent) -> io::Result<Socket> {
    let kind = match sent.protocol {
        IpProtocol::Udp => Type::DGRAM,
        _ => Type::STREAM,
    };
    let make = || -> io::Result<Socket> {
        set_thread_gid(Gid::from_raw(sent.gid))?;
        set_thread_uid(Uid::from_raw(sent.uid))?;
        Socket::new(Domain::for_address(sent.to), kind, None)
    };
    // The ids go with the thread.
    let socket = thread::scope(|scope| {
        let made = scope.spawn(make).join();
        made.unwrap_or_else(|_| Err(io::Error::other("the thread that makes the socket has panicked")))
    })?;
    if sent.mark != 0 {
        socket.set_mark(sent.mark)?;
    }
    Ok(socket)
}

pub(super) fn connect(socket: &Socket, sent: Sent, patience: Duration) -> io::Result<Duration> {
    let start = Instant::now();
    if sent.protocol == IpProtocol::Udp {
        socket.connect(&sent.to.into())?;
        socket.send(&[])?;
    } else {
        socket.connect_timeout(&sent.to.into(), patience)?;
    }
    Ok(start.elapsed())
}
