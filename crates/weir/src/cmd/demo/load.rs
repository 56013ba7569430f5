//! A steady load, and the account of it: every request is either answered with 200 by a known pod or lost.

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use model::ErrorName;
use netsys::netns::Netns;
use rules::Family;

use super::client::Client;
use crate::errors::OrNamed;

/// What became of one request.
struct Request {
    /// When it was sent, counted from the start.
    sent: Duration,
    took: Duration,
    /// The pod that answered; none where it was lost.
    by: Option<String>,
}

/// All requests.
pub(super) struct Account(Vec<Request>);

/// Calls from inside a namespace, `rate` times a second, until `length` after `start`. A request that is late
/// makes the next ones late; none is left out.
pub(super) fn steady(
    netns: &Netns,
    family: Family,
    rate: u32,
    start: Instant,
    length: Duration,
) -> Result<Account> {
    let count = rate * u32::try_from(length.as_secs()).unwrap_or(1);
    let call_all = || {
        let mut client = None;
        let requests = (0..count).map(|number| {
            let due = start + Duration::from_secs(1) * number / rate;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            call(&mut client, family, start)
        });
        Account(requests.collect())
    };
    netns
        .run(call_all)
        .or_named(ErrorName::Namespace, "cannot enter a client's namespace")
}

/// One request; a connection that failed is made anew for the next one, by name.
fn call(client: &mut Option<Client>, family: Family, start: Instant) -> Request {
    let begun = Instant::now();
    let mut attempt = || {
        let mut connected = match client.take() {
            Some(connected) => connected,
            None => Client::connect(family)?,
        };
        let answer = connected.get("/")?;
        *client = Some(connected);
        std::io::Result::Ok(answer)
    };
    let by = attempt()
        .ok()
        .filter(|answer| answer.status == 200)
        .map(|answer| answer.pod());
    Request {
        sent: begun.duration_since(start),
        took: begun.elapsed(),
        by: by.filter(|pod| !pod.is_empty()),
    }
}

impl Account {
    /// Several as one.
    pub(super) fn of(accounts: Vec<Self>) -> Self {
        Self(accounts.into_iter().flat_map(|account| account.0).collect())
    }

    pub(super) fn sent(&self) -> usize {
        self.0.len()
    }

    pub(super) fn lost(&self) -> usize {
        self.lost_in(Duration::ZERO..Duration::MAX)
    }

    /// Those lost that were sent in a time.
    pub(super) fn lost_in(&self, time: Range<Duration>) -> usize {
        self.within(time).filter(|request| request.by.is_none()).count()
    }

    /// Those that a pod answered, sent in a time.
    pub(super) fn served(&self, pod: &str, time: Range<Duration>) -> u64 {
        self.within(time)
            .filter(|request| request.by.as_deref() == Some(pod))
            .count() as u64
    }

    /// The latency that a share of the requests sent in a time stayed within.
    pub(super) fn latency(&self, share: f64, time: Range<Duration>) -> Option<Duration> {
        let mut all: Vec<Duration> = self.within(time).map(|request| request.took).collect();
        all.sort_unstable();
        let rank = (share * all.len() as f64).ceil() as usize;
        all.get(rank.saturating_sub(1)).copied()
    }

    fn within(&self, time: Range<Duration>) -> impl Iterator<Item = &Request> {
        self.0.iter().filter(move |request| time.contains(&request.sent))
    }
}
