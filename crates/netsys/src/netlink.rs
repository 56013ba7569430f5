//! The kernel by netlink, in the calling thread's network namespace: several changes go to it in one message, and
//! lists come from it. Called by whoever furnishes a namespace or looks at one; what is asked is below, a file each.

mod addresses;
mod links;
mod message;
mod policies;
mod routes;
mod sockets;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

pub(crate) use self::addresses::LIST_ADDRESSES;
pub use self::links::LinkIndex;
pub(crate) use self::links::{LIST_LINKS, NAME, NEW_LINK, REMOVE_LINK, link_header};
pub(crate) use self::message::{
    HEADER, ack, address, address_family, attribute, attributes, family, family_of, host_bits, name, nested,
    number, octets, split_message, text,
};
pub(crate) use self::policies::{
    LIST_POLICIES, NEW_POLICY, POLICY_MARK, POLICY_MASK, POLICY_PROTOCOL, REMOVE_POLICY,
};
pub use self::routes::LocalDefault;
pub(crate) use self::routes::{LIST_ROUTES, METRIC, NEW_ROUTE, REMOVE_ROUTE, ROUTE_LOCAL, TABLE};
pub(crate) use self::sockets::list_sockets;

const ACK_ERROR: u16 = 2;
const LIST_DONE: u16 = 3;

pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const REQUEST_ACK: u16 = REQUEST | 0x4;
pub(crate) const CREATE_EXCLUSIVE: u16 = 0x400 | 0x200;
pub(crate) const CREATE_OR_REPLACE: u16 = 0x400 | 0x100;
const REQUEST_LIST: u16 = REQUEST | 0x300;

/// Changes to be made, in order. The kernel stops at none of them: [`Changes::commit`] tells the first
/// that failed, and those after it may have been made.
#[derive(Default)]
pub struct Changes {
    bytes: Vec<u8>,
    /// What each message was for, by sequence number.
    what: Vec<String>,
    /// Whether addresses and routes may be there already.
    replacing: bool,
}

/// A change that the kernel refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The netlink socket failed.
    #[error("cannot speak to the kernel by rtnetlink")]
    Socket(#[source] io::Error),
    /// The kernel refused one change.
    #[error("cannot {what}")]
    Refused {
        /// What was asked, in words.
        what: String,
        /// What the kernel answered.
        source: io::Error,
    },
}

impl Changes {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// None yet; an address or route that is there already is no error.
    #[must_use]
    pub fn replacing() -> Self {
        Self {
            replacing: true,
            ..Self::default()
        }
    }

    fn create(&self) -> u16 {
        let how = if self.replacing {
            CREATE_OR_REPLACE
        } else {
            CREATE_EXCLUSIVE
        };
        REQUEST_ACK | how
    }

    /// Makes them all, in the calling thread's namespace. Needs `CAP_NET_ADMIN` over it.
    ///
    /// # Errors
    /// Names the first change that the kernel refused.
    pub fn commit(&self) -> Result<(), Error> {
        let socket = socket().map_err(Error::Socket)?;
        rustix::net::send(&socket, &self.bytes, SendFlags::empty())
            .map_err(|errno| Error::Socket(errno.into()))?;
        self.await_acks(&socket)
    }

    fn await_acks(&self, socket: &OwnedFd) -> Result<(), Error> {
        let mut first = Ok(());
        let mut left = self.what.len();
        let mut buffer = vec![0; 32 * 1024];
        while left > 0 {
            let (length, _) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())
                .map_err(|errno| Error::Socket(errno.into()))?;
            let mut rest = &buffer[..length];
            while let Some((message, after)) = split_message(rest) {
                rest = after;
                let Some((sequence, errno)) = ack(message) else {
                    continue;
                };
                left -= 1;
                if errno != 0 && first.is_ok() {
                    first = Err(Error::Refused {
                        what: self.what.get(sequence).cloned().unwrap_or_default(),
                        source: io::Error::from_raw_os_error(errno),
                    });
                }
            }
        }
        first
    }

    pub(crate) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        what: String,
        body: impl FnOnce(&mut Vec<u8>),
    ) -> &mut Self {
        let start = self.bytes.len();
        let sequence = self.what.len() as u32;
        self.bytes.extend(0_u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend(0_u32.to_ne_bytes());
        body(&mut self.bytes);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.what.push(what);
        self
    }
}

/// Speaks rtnetlink.
fn socket() -> io::Result<OwnedFd> {
    socket_of(None)
}

/// No protocol is `NETLINK_ROUTE`.
fn socket_of(protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        flags,
        protocol,
    )?)
}

/// Everything of one kind ([`LIST_LINKS`], [`LIST_ADDRESSES`]), in the calling thread's namespace: the body
/// of each message, the kernel's fixed structure first and then attributes (see [`attributes`]).
pub(crate) fn list(kind: u16) -> io::Result<Vec<Vec<u8>>> {
    /// Room for the fixed structure of any kind; all zeroes is "all of them".
    const ANY: [u8; 20] = [0; 20];
    list_of(kind, &ANY)
}

/// The same, of those alone that fit the kernel's fixed structure.
pub(crate) fn list_of(kind: u16, wanted: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    list_by(&socket()?, kind, wanted)
}

fn list_by(socket: &OwnedFd, kind: u16, wanted: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let mut request = Vec::new();
    request.extend(((HEADER + wanted.len()) as u32).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(REQUEST_LIST.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(wanted);
    rustix::net::send(socket, &request, SendFlags::empty())?;

    let mut found = vec![];
    // The kernel makes no datagram of a list longer than this.
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let (length, _) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some((message, after)) = split_message(rest) {
            rest = after;
            match (u16::from_ne_bytes([message[4], message[5]]), ack(message)) {
                (LIST_DONE, _) => return Ok(found),
                (ACK_ERROR, Some((_, errno))) => return Err(io::Error::from_raw_os_error(errno)),
                _ => found.push(message[HEADER..].to_vec()),
            }
        }
    }
}
