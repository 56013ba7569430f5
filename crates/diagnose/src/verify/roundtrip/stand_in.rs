//! What plays the proxy where none runs: takes a connection to where it was going.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use netsys::probe::{Owner, made_in_cgroup, socket_of};
use netsys::sock;
use socket2::{Domain, Socket, Type};

use super::super::seats::Seat;
use super::talk::{WORD, accept, read_until, wait_for_end};

/// A side that plays the proxy where none runs.
pub(crate) struct StandIn {
    /// Where it listens.
    pub(crate) listener: TcpListener,
    /// How it is recognised as the proxy; where it cannot be, it calls nobody who is not of this namespace.
    pub(crate) owner: Option<Owner>,
    /// The cgroup that it is recognised by, if by one.
    pub(crate) seat: Option<Seat>,
    /// Whether it takes what comes in.
    pub(crate) is_inward: bool,
    /// By TPROXY: the mark on what it sends in a client's name.
    pub(crate) tproxy: Option<u32>,
}

impl StandIn {
    /// Takes one connection to where it was going, as the proxy does. Answers where that was.
    pub(super) fn pass_on(&self, done: &AtomicBool, patience: Duration) -> Option<SocketAddr> {
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
        if self.owner.is_some() || self.is_inward {
            let onward = self.dial(to, peer.ip(), patience).ok()?;
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

    fn dial(&self, to: SocketAddr, client: IpAddr, patience: Duration) -> io::Result<Socket> {
        let dial = || self.dial_from_here(to, client, patience);
        match &self.seat {
            Some(seat) => made_in_cgroup(&seat.folder, dial),
            None => dial(),
        }
    }

    fn dial_from_here(&self, to: SocketAddr, client: IpAddr, patience: Duration) -> io::Result<Socket> {
        let owner = self.owner.unwrap_or(netsys::probe::myself());
        let socket = socket_of(owner, Domain::for_address(to), Type::STREAM, None)?;
        let source: Option<IpAddr> = match (self.tproxy, to) {
            (Some(mark), _) => {
                sock::transparent(&socket)?;
                socket.set_mark(mark)?;
                Some(client)
            }
            (None, _) if !self.is_inward => None,
            (None, SocketAddr::V4(_)) => Some(model::ports::PASSTHROUGH_V4.into()),
            (None, SocketAddr::V6(_)) => Some(model::ports::PASSTHROUGH_V6.into()),
        };
        if let Some(source) = source {
            sock::bind_address_no_port(&socket)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        sock::reset_on_close(&socket)?;
        socket.connect_timeout(&to.into(), patience)?;
        Ok(socket)
    }
}
