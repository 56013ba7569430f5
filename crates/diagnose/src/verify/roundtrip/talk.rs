//! What every side of such a connection does: wait for the other one, and read what it sends.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use netsys::sock;

/// What is sent, and has to come back. To a proxy it is no protocol that it knows.
pub(super) const WORD: &[u8; 17] = b"\x00weir probes this";
/// How long is waited for each next thing to happen.
pub(super) const PAUSE: Duration = Duration::from_millis(5);

/// Accepts, until it is done; the sockets that come are left blocking.
pub(super) fn accept(listener: &TcpListener, done: &AtomicBool) -> Option<(TcpStream, SocketAddr)> {
    listener.set_nonblocking(true).ok()?;
    while !done.load(Ordering::Acquire) {
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(false).ok()?;
                let _ = sock::reset_on_close(&stream);
                return Some((stream, peer));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(PAUSE / 5),
            Err(_) => return None,
        }
    }
    None
}

/// Reads all of it, or gives up when it is done.
pub(super) fn read_until(stream: &mut TcpStream, word: &mut [u8], done: &AtomicBool) -> Option<()> {
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

pub(super) fn wait_for_end(stream: &mut TcpStream, done: &AtomicBool) {
    let mut rest = [0; 1];
    let _ = read_until(stream, &mut rest, done);
}
