//! What is asked of links: that they are made, go up, and are plugged into one another.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::message::{attribute, nested, text};
use super::{CREATE_EXCLUSIVE, Changes, REQUEST_ACK};

pub(crate) const NEW_LINK: u16 = 16;
pub(crate) const REMOVE_LINK: u16 = 17;
pub(crate) const LIST_LINKS: u16 = 18;

/// Attribute of a link: its name.
pub(crate) const NAME: u16 = 3;

/// A link by its interface index. The loopback device of every namespace has [`LinkIndex::LOOPBACK`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkIndex(pub u32);

impl LinkIndex {
    /// `lo`.
    pub const LOOPBACK: Self = Self(1);
}

impl Changes {
    /// Sets a link up.
    pub fn up(&mut self, link: LinkIndex) -> &mut Self {
        self.message(
            NEW_LINK,
            REQUEST_ACK,
            format!("set link {} up", link.0),
            |bytes| link_header(bytes, link.0, true),
        )
    }

    /// Makes a veth pair with both ends in this namespace, both up.
    pub fn veth(&mut self, near: (LinkIndex, &str), far: (LinkIndex, &str)) -> &mut Self {
        let what = format!("make the veth pair {} and {}", near.1, far.1);
        self.make(near, "veth", what, |bytes| {
            nested(bytes, 1, |bytes| {
                link_header(bytes, far.0.0, false);
                attribute(bytes, NAME, &text(far.1));
            });
        });
        // An end goes up only once it knows the other one.
        self.up(near.0).up(far.0)
    }

    /// Makes a veth pair, the near end here and up, the far one in another namespace, where it is still to
    /// be set up. The descriptor must stay open until [`Changes::commit`].
    pub fn veth_into(
        &mut self,
        near: (LinkIndex, &str),
        far: (LinkIndex, &str),
        netns: BorrowedFd<'_>,
    ) -> &mut Self {
        const NETNS_FD: u16 = 28;
        let what = format!("make the veth pair {} and {}", near.1, far.1);
        self.make(near, "veth", what, |bytes| {
            nested(bytes, 1, |bytes| {
                link_header(bytes, far.0.0, false);
                attribute(bytes, NAME, &text(far.1));
                attribute(bytes, NETNS_FD, &netns.as_raw_fd().to_ne_bytes());
            });
        });
        self.up(near.0)
    }

    /// Makes a bridge and sets it up.
    pub fn bridge(&mut self, link: (LinkIndex, &str)) -> &mut Self {
        self.make(link, "bridge", format!("make the bridge {}", link.1), |_| {});
        self.up(link.0)
    }

    /// Plugs a link into a bridge.
    pub fn join(&mut self, link: LinkIndex, bridge: LinkIndex) -> &mut Self {
        const MASTER: u16 = 10;
        let what = format!("plug link {} into the bridge", link.0);
        self.message(NEW_LINK, REQUEST_ACK, what, |bytes| {
            link_header(bytes, link.0, false);
            attribute(bytes, MASTER, &bridge.0.to_ne_bytes());
        })
    }

    fn make(
        &mut self,
        link: (LinkIndex, &str),
        kind: &str,
        what: String,
        data: impl FnOnce(&mut Vec<u8>),
    ) -> &mut Self {
        const INFO: u16 = 18;
        self.message(NEW_LINK, REQUEST_ACK | CREATE_EXCLUSIVE, what, |bytes| {
            link_header(bytes, link.0.0, false);
            attribute(bytes, NAME, &text(link.1));
            nested(bytes, INFO, |bytes| {
                attribute(bytes, 1, kind.as_bytes());
                nested(bytes, 2, data);
            });
        })
    }
}

/// `ifinfomsg`.
pub(crate) fn link_header(bytes: &mut Vec<u8>, index: u32, up: bool) {
    let flags = if up { libc::IFF_UP as u32 } else { 0 };
    bytes.extend([0; 4]);
    bytes.extend(index.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes()); // the flags to change: only those that are set
}
