//! A steady load of idempotent requests, and an account of how each of them ended.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crate::http::{Client, Failure};
use crate::net::Pod;

/// Connections of [`steady`].
const CONNECTIONS: u32 = 8;

/// How the requests of a load ended.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Account {
    /// Answered 200, by body.
    pub answered: BTreeMap<String, u64>,
    /// Failed before the first byte of an answer, or answered with another status: what was seen.
    pub failed: Vec<String>,
    /// Cut after the first byte of the answer.
    pub cut: u64,
}

impl Account {
    /// How many requests were sent.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.answered.values().sum::<u64>() + self.failed.len() as u64 + self.cut
    }

    fn add(&mut self, other: Self) {
        for (body, count) in other.answered {
            *self.answered.entry(body).or_default() += count;
        }
        self.failed.extend(other.failed);
        self.cut += other.cut;
    }
}

/// Sends `rate` requests a second from inside the pod on eight kept connections while `during` runs, and
/// gives back what became of them together with what `during` returned. Where answers are late, so are the
/// requests after them.
pub fn steady<T>(
    pod: &Pod,
    to: SocketAddr,
    path: &str,
    rate: u32,
    during: impl FnOnce() -> T,
) -> (Account, T) {
    steady_over(CONNECTIONS, pod, to, path, rate, during)
}

/// The same on so many connections: with enough of them requests go on coming while others wait.
pub fn steady_over<T>(
    connections: u32,
    pod: &Pod,
    to: SocketAddr,
    path: &str,
    rate: u32,
    during: impl FnOnce() -> T,
) -> (Account, T) {
    let stop = AtomicBool::new(false);
    let pause = Duration::from_secs(1) * connections / rate;
    let start = Instant::now();
    thread::scope(|scope| {
        let stop = &stop;
        let senders: Vec<ScopedJoinHandle<'_, Account>> = (0..connections)
            .map(|number| {
                let first = start + pause * number / connections;
                scope.spawn(move || send(pod, to, path, (first, pause), stop))
            })
            .collect();
        // Even where `during` panics the senders must end, or the scope waits for them for ever.
        let _stop = StopOnDrop(stop);
        let value = during();
        stop.store(true, Ordering::Relaxed);
        let mut account = Account::default();
        for sender in senders {
            match sender.join() {
                Ok(part) => account.add(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        (account, value)
    })
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn send(
    pod: &Pod,
    to: SocketAddr,
    path: &str,
    (first, pause): (Instant, Duration),
    stop: &AtomicBool,
) -> Account {
    let host = to.to_string();
    let mut account = Account::default();
    let mut connection = None;
    let mut next = first;
    loop {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        next += pause;
        if stop.load(Ordering::Relaxed) {
            return account;
        }
        let client = match connection.take() {
            Some(client) => Ok(client),
            None => Client::connect(pod, to),
        };
        let mut client = match client {
            Ok(client) => client,
            Err(error) => {
                account.failed.push(format!("connect: {error}"));
                continue;
            }
        };
        match client.get(&host, path) {
            Ok(answer) if answer.status == 200 => {
                let closes = answer.header("connection") == Some("close");
                *account.answered.entry(answer.body).or_default() += 1;
                connection = (!closes).then_some(client);
            }
            Ok(answer) => {
                account.failed.push(format!("{} {}", answer.status, answer.body));
            }
            Err(Failure::Unanswered(error)) => account.failed.push(error.to_string()),
            Err(Failure::Cut(_)) => account.cut += 1,
        }
    }
}
