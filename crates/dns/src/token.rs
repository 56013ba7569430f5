//! The sign of life that capture rules wait for ([`model::liveness`]): a datagram a second to the server's own
//! socket, from the proxy's own identity. The next one is sent only when the loop over the socket has received
//! something since the last: a process that is there and does not serve gives no sign. Capture rules of a family
//! see the sign of the socket of that family.

use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use model::ErrorName;
use model::liveness::{HELD_FOR, SENT_EVERY};
use netsys::sock;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// What the loop over a socket tells of it.
#[derive(Debug, Default)]
pub(crate) struct Received {
    from: Cell<Option<SocketAddr>>,
    told: Notify,
}

impl Received {
    /// Whether what has come is a sign of life, and no query.
    pub(crate) fn is_token(&self, client: SocketAddr) -> bool {
        self.told.notify_waiters();
        self.from.get() == Some(client)
    }
}

/// The rules count in ticks of the kernel, of 10 ms at most: one is begun at either end.
const TICKS: Duration = Duration::from_millis(20);

/// Gives signs of life by this socket until it is told to stop, and ends when the rules have forgotten the last one;
/// `mark` is how the rules know the proxy, where they know it by that.
pub(crate) async fn give(
    to: SocketAddr,
    mark: Option<u32>,
    received: Rc<Received>,
    mut stop: watch::Receiver<bool>,
) {
    let socket = match sock::datagram_to(to, mark) {
        Ok(socket) => socket,
        Err(error) => {
            return tracing::error!(see = %ErrorName::ListenerLost, %error, %to, "no sign of life can be given: captured look-ups go direct");
        }
    };
    received.from.set(socket.local_addr().ok());
    let last = Cell::new(None);
    let giving = async {
        loop {
            let next = Instant::now() + SENT_EVERY;
            let mut told = pin!(received.told.notified());
            // From now on, not from when it is waited for.
            told.as_mut().enable();
            match socket.send(&[]) {
                // It may be lost where queries fill the queue. They then tell as much.
                Ok(_) => {
                    last.set(Some(Instant::now()));
                    told.await;
                }
                Err(error) => {
                    tracing::debug!(%error, "giving a sign of life");
                    sleep(SENT_EVERY).await;
                }
            }
            sleep_until(next).await;
        }
    };
    let is_waited_for = tokio::select! {
        () = giving => false,
        // The sender's end is one too, after which nobody waits.
        is_told = async { stop.wait_for(|stop| *stop).await.is_ok() } => is_told,
    };
    if let Some(last) = last.get().filter(|_| is_waited_for) {
        sleep_until(last + HELD_FOR + TICKS).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// What has arrived.
    fn signs(own: &UdpSocket) -> Vec<SocketAddr> {
        std::iter::from_fn(|| own.recv_from(&mut [0; 8]).ok())
            .map(|(length, from)| {
                assert_eq!(length, 0, "it says nothing");
                from
            })
            .collect()
    }

    #[test]
    fn a_sign_is_given_only_where_the_one_before_was_received_and_none_after_the_stop() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let own = UdpSocket::bind("127.0.0.1:0").unwrap();
        own.set_nonblocking(true).unwrap();
        let somebody = "127.0.0.1:9".parse().unwrap();
        let long = || sleep(10 * SENT_EVERY);
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let received = Rc::new(Received::default());
            let (stop, stopped) = watch::channel(false);
            let giving = give(own.local_addr().unwrap(), None, Rc::clone(&received), stopped);
            let giving = tokio::task::spawn_local(giving);
            // What was received before one is given does not count for it.
            received.is_token(somebody);
            for _ in 0..3 {
                long().await;
                let signs = signs(&own);
                assert_eq!(signs.len(), 1, "{signs:?}");
                assert!(received.is_token(signs[0]));
            }
            long().await;
            assert_eq!(signs(&own).len(), 1);
            // A query tells that the loop lives, too.
            assert!(!received.is_token(somebody));
            long().await;
            assert_eq!(signs(&own).len(), 1);
            let stopped = Instant::now();
            stop.send_replace(true);
            // Its receiver goes when the rules have forgotten the last sign, which was long ago.
            stop.closed().await;
            assert_eq!(stopped.elapsed(), Duration::ZERO);
            giving.await.unwrap();
            received.is_token(somebody);
            long().await;
            assert_eq!(signs(&own), []);
        });
    }
    #[test]
    fn a_stop_is_over_when_the_rules_have_forgotten_the_last_sign() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let own = UdpSocket::bind("127.0.0.1:0").unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let (stop, stopped) = watch::channel(false);
            let to = own.local_addr().unwrap();
            tokio::task::spawn_local(give(to, None, Rc::default(), stopped));
            sleep(HELD_FOR / 2).await;
            let asked = Instant::now();
            stop.send_replace(true);
            stop.closed().await;
            assert_eq!(asked.elapsed(), HELD_FOR / 2 + TICKS);
        });
    }
}
