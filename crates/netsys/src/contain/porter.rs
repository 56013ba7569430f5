//! The porter: a process that stays in the command's network after the command was started, with the right
//! over it. It makes the sockets by which the proxy, which is elsewhere, calls into that network, hands them
//! out, and adds routes. The keeper forks it; whoever holds the [`Porter`] asks it; it goes with either of them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::process::{DumpableBehavior, Pid, Signal, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, CapabilitySets};
use socket2::Socket;

use super::{Network, wiring};
use crate::fdpass::Channel;
use crate::netlink::Changes;
use crate::sock;

/// It answers in microseconds; one that does not answer at all was stopped by somebody.
const PATIENCE: Duration = Duration::from_secs(5);
/// First byte of an answer: it is done.
const DONE: u8 = b'+';

/// A line to the porter. Any thread may ask; the one asking waits for the answer.
#[derive(Debug)]
pub struct Porter(Mutex<Option<Channel>>);

impl Porter {
    pub(super) fn new(channel: Channel) -> io::Result<Self> {
        set_socket_timeout(channel.as_fd(), Timeout::Recv, Some(PATIENCE))?;
        Ok(Self(Mutex::new(Some(channel))))
    }

    /// A non-blocking TCP socket of the command's network, with a mark, ready to connect to `target`; its
    /// source address may be chosen, its port is not.
    ///
    /// # Errors
    /// Where the porter is gone: the command has ended. Where the source is no address of that network.
    pub fn stream_to(&self, target: IpAddr, mark: u32, source: Option<IpAddr>) -> io::Result<Socket> {
        let wanted = Wanted {
            is_v6: target.is_ipv6(),
            mark,
            source,
        };
        let (_, descriptors) = self.ask(&wanted.encode())?;
        let socket = descriptors.into_iter().next().ok_or(io::ErrorKind::InvalidData)?;
        Ok(socket.into())
    }

    /// Gives the command's network addresses and routes, some of which may be there already. A family that
    /// its kernel lacks is left out.
    ///
    /// # Errors
    /// Where the porter is gone, or the kernel refuses.
    pub fn extend(&self, network: &Network) -> io::Result<()> {
        self.ask(&String::from_utf8_lossy(&wiring::encode(network)))
            .map(drop)
    }

    /// One question and its answer. A line on which something went wrong is never used again: a late answer
    /// would be taken for that of the next question.
    fn ask(&self, question: &str) -> io::Result<(String, Vec<OwnedFd>)> {
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = line.take().ok_or_else(gone)?;
        channel.send(question.as_bytes(), &[]).map_err(|_| gone())?;
        let (bytes, descriptors) = channel.receive()?.ok_or_else(gone)?;
        *line = Some(channel);
        let (kind, text) = bytes.split_first().ok_or(io::ErrorKind::InvalidData)?;
        let text = String::from_utf8_lossy(text).into_owned();
        match (*kind, i32::from_str(&text)) {
            (DONE, _) => Ok((text, descriptors)),
            (_, Ok(errno)) => Err(io::Error::from_raw_os_error(errno)),
            (_, Err(_)) => Err(io::Error::other(text)),
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotConnected,
        "the command's network is gone: the command has ended",
    )
}

/// A socket that is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Wanted {
    is_v6: bool,
    mark: u32,
    source: Option<IpAddr>,
}

impl Wanted {
    /// `v4 1337 127.0.0.6`, or `v6 1337 any`.
    fn encode(self) -> String {
        let family = if self.is_v6 { "v6" } else { "v4" };
        let source = self
            .source
            .map_or_else(|| String::from("any"), |ip| ip.to_string());
        format!("{family} {} {source}", self.mark)
    }

    fn decode(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let is_v6 = match words.next()? {
            "v4" => false,
            "v6" => true,
            _ => return None,
        };
        let mark = words.next()?.parse().ok()?;
        let source = match words.next()? {
            "any" => None,
            address => Some(address.parse().ok()?),
        };
        Some(Self { is_v6, mark, source })
    }

    fn make(self) -> io::Result<Socket> {
        let any: IpAddr = if self.is_v6 {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        } else {
            std::net::Ipv4Addr::UNSPECIFIED.into()
        };
        let socket = sock::stream_to(SocketAddr::new(any, 0))?;
        socket.set_mark(self.mark)?;
        if let Some(source) = self.source {
            sock::bind_address_no_port(&socket)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        Ok(socket)
    }
}

/// The porter's whole life. The signals of the terminal are blocked in it, as they are in the keeper.
pub(super) fn run(channel: &Channel, keeper: Pid) -> u8 {
    if settle(keeper).is_err() {
        return 1;
    }
    // No word, and an empty one: whoever asked is gone.
    while let Ok(Some((question, _))) = channel.receive() {
        let told = match do_as_asked(&question) {
            Ok(Some(socket)) => channel.send(&[DONE], &[socket.as_fd()]),
            Ok(None) => channel.send(&[DONE], &[]),
            Err(error) => {
                let cause = error
                    .raw_os_error()
                    .map_or_else(|| error.to_string(), |errno| errno.to_string());
                channel.send(format!("-{cause}").as_bytes(), &[])
            }
        };
        if told.is_err() {
            break;
        }
    }
    0
}

/// Makes a socket, or extends the network.
fn do_as_asked(question: &[u8]) -> io::Result<Option<Socket>> {
    let text = String::from_utf8_lossy(question);
    if !text.starts_with(wiring::NETWORK) {
        let wanted = Wanted::decode(&text).ok_or(io::ErrorKind::InvalidInput)?;
        return wanted.make().map(Some);
    }
    let network = wiring::decode(question);
    wiring::connect(&network, wiring::families(), Changes::replacing()).map_err(io::Error::other)?;
    Ok(None)
}

/// Keeps the one right that is needed, goes with the keeper, and lets nobody look into its memory: the
/// command has the same uid, and could else borrow the right.
fn settle(keeper: Pid) -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let needed = CapabilitySet::NET_ADMIN;
    let sets = CapabilitySets {
        effective: needed,
        permitted: needed,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() == Some(keeper) {
        Ok(())
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_survives_the_channel() {
        for source in [None, Some("127.0.0.6".parse().unwrap())] {
            let wanted = Wanted {
                is_v6: false,
                mark: 0x539,
                source,
            };
            assert_eq!(Wanted::decode(&wanted.encode()), Some(wanted));
        }
        let wanted = Wanted {
            is_v6: true,
            mark: 1,
            source: Some("::6".parse().unwrap()),
        };
        assert_eq!(Wanted::decode(&wanted.encode()), Some(wanted));
        for nonsense in ["", "v5 1 any", "v4 x any", "v4 1", "v4 1 nobody"] {
            assert_eq!(Wanted::decode(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn without_a_porter_the_command_has_ended() {
        let (here, there) = crate::fdpass::pair().unwrap();
        let porter = Porter::new(here).unwrap();
        drop(there);
        for _ in 0..2 {
            let error = porter.stream_to([127, 0, 0, 1].into(), 1, None).unwrap_err();
            assert!(error.to_string().contains("the command has ended"), "{error}");
        }
    }
}
