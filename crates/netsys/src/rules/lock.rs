//! One writer at a time in a network namespace. No lock is common to the variants of iptables, to nft
//! and to containers; an abstract unix socket belongs to the namespace, needs no file, and goes with its holders:
//! this process, and the programs that it started, which may outlive it and then are still writing.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::Error;

const NAME: &[u8] = b"weir-rules";
const PATIENCE: Duration = Duration::from_secs(30);

/// Held while rules are read, compared and written.
#[derive(Debug)]
pub struct Lock {
    _listener: Arc<UnixListener>,
}

/// Those that threads of this process hold, of whatever namespaces.
static HELD: Mutex<Vec<Weak<UnixListener>>> = Mutex::new(vec![]);

/// The locks as descriptors that a program inherits which is started before they are dropped.
pub(super) fn for_programs() -> Vec<OwnedFd> {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let held = held.iter().filter_map(Weak::upgrade);
    // Where there is no descriptor left for it, the program will not start either.
    held.filter_map(|listener| rustix::io::dup(&*listener).ok())
        .collect()
}

impl Lock {
    fn of(listener: UnixListener) -> Self {
        let listener = Arc::new(listener);
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|held| held.strong_count() > 0);
        held.push(Arc::downgrade(&listener));
        Self { _listener: listener }
    }

    /// Waits for the lock of the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Busy`] after 30 s.
    pub fn take() -> Result<Self, Error> {
        let address = SocketAddr::from_abstract_name(NAME).map_err(Error::Lock)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match UnixListener::bind_addr(&address) {
                Ok(listener) => return Ok(Self::of(listener)),
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
