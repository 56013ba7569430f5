//! Messages with descriptors between two processes of ours, over a sequenced-packet socket pair:
//! each message arrives whole, with what was sent along.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// Descriptors that fit in one message.
pub const DESCRIPTORS_MAX: usize = 32;
/// Bytes that fit in one message.
const BYTES_MAX: usize = 128 * 1024;

/// One end of the pair. Closing it is seen by the other end as [`Channel::receive`] answering `None`.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// Makes both ends, close-on-exec.
///
/// # Errors
/// Where descriptors are used up.
pub fn pair() -> io::Result<(Channel, Channel)> {
    let (a, b) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    Ok((Channel(a), Channel(b)))
}

impl Channel {
    /// Sends one message.
    ///
    /// # Errors
    /// Where the other end is closed (`EPIPE`), or the message is too long.
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::from(io::ErrorKind::ArgumentListTooLong));
        }
        rustix::net::sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Waits for the next message; `None` when the other end is closed. An empty message reads like a
    /// closed end: nobody sends one.
    ///
    /// # Errors
    /// Where receiving fails.
    pub fn receive(&self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            match rustix::net::recvmsg(&self.0, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
                // A peer that left without reading all is told of once, before what it said last.
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
                other => break other?,
            }
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        bytes.truncate(received.bytes);
        let descriptors = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        Ok(Some((bytes, descriptors)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_a_peer_that_did_not_listen_is_heard() {
        let (here, there) = pair().unwrap();
        here.send(b"unread", &[]).unwrap();
        there.send(b"why", &[]).unwrap();
        drop(there);
        assert_eq!(here.receive().unwrap().unwrap().0, b"why");
        assert!(here.receive().unwrap().is_none());
    }

    #[test]
    fn a_message_arrives_whole_with_its_descriptors() {
        let (here, there) = pair().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        here.send(b"one", &[listener.as_fd()]).unwrap();
        here.send(b"two", &[]).unwrap();
        drop(here);
        let (bytes, mut descriptors) = there.receive().unwrap().unwrap();
        assert_eq!((&bytes[..], descriptors.len()), (&b"one"[..], 1));
        let received = std::net::TcpListener::from(descriptors.remove(0));
        assert_eq!(received.local_addr().unwrap(), listener.local_addr().unwrap());
        assert_eq!(there.receive().unwrap().unwrap().0, b"two");
        assert!(there.receive().unwrap().is_none());
    }
}
