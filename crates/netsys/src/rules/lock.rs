//! One writer at a time in a network namespace. No lock is common to the variants of iptables, to nft
//! and to containers; an abstract unix socket belongs to the namespace, needs no file, and goes with its holder.

use std::io::{self, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use super::Error;

const NAME: &[u8] = b"weir-rules";
const PATIENCE: Duration = Duration::from_secs(30);

/// Held while rules are read, compared and written.
#[derive(Debug)]
pub struct Lock {
    _listener: UnixListener,
}

impl Lock {
    /// Waits for the lock of the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Busy`] after 30 s.
    pub fn take() -> Result<Self, Error> {
        let address = SocketAddr::from_abstract_name(NAME).map_err(Error::Lock)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match UnixListener::bind_addr(&address) {
                Ok(listener) => return Ok(Self { _listener: listener }),
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Err(Error::Lock(error)),
                Err(_) => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Busy {
                    seconds: PATIENCE.as_secs(),
                });
            }
            wait_for_holder(&address, left).map_err(Error::Lock)?;
        }
    }
}

/// The holder never accepts: a connection to it ends when it lets go.
fn wait_for_holder(address: &SocketAddr, at_most: Duration) -> io::Result<()> {
    match UnixStream::connect_addr(address) {
        Ok(mut stream) => {
            stream.set_read_timeout(Some(at_most))?;
            let _ = stream.read(&mut [0]);
            Ok(())
        }
        // It let go in between, or its queue is full of others who wait.
        Err(_) => {
            std::thread::sleep(Duration::from_millis(5));
            Ok(())
        }
    }
}
