//! Forwarding: a query goes to the resolvers as it came but for its id, and their answer comes back as it came
//! but for its id. Where one is silent, the next is asked while its answer is still waited for; the client's own
//! patience bounds it all.

mod one;
mod own;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::hash_map::RandomState;
use std::future::poll_fn;
use std::hash::BuildHasher;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

pub(crate) use self::one::{read_framed, write_framed};
use self::own::OwnQueries;
use crate::message::{code, number};
use crate::report::Upstream;
use crate::resolvers::{Resolvers, Turn};
use crate::told::Told;

/// How often it is looked whether resolvers are known.
const LOOK: Duration = Duration::from_secs(1);

/// How a resolver is asked: as the client asked us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    Datagram,
    Stream,
}

/// Asks resolvers. Of one thread.
pub(crate) struct Forwarder {
    resolvers: Resolvers,
    /// Its keys are secret and its hashes not to be told from chance (SipHash), so that the hash of a count
    /// makes an id that nobody can guess.
    ids: RandomState,
    count: Cell<u64>,
    /// What every answer is received into: on one thread one is enough.
    buffer: RefCell<Vec<u8>>,
    mark: Option<u32>,
    own: OwnQueries,
    told: Told,
    reports: Upstream,
}

/// What was answered, and by whom.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) answer: Vec<u8>,
    pub(crate) resolver: SocketAddr,
}

/// A resolver that has been asked.
struct Try<'a> {
    resolver: SocketAddr,
    since: Instant,
    /// Whether it has let the time pass after which the next one is asked.
    is_late: bool,
    asking: Pin<Box<dyn Future<Output = io::Result<Vec<u8>>> + 'a>>,
}

impl Forwarder {
    pub(crate) fn new(resolvers: Resolvers, mark: Option<u32>, reports: Upstream) -> Self {
        Self {
            resolvers,
            ids: RandomState::new(),
            count: Cell::new(0),
            buffer: RefCell::new(vec![0; 64 * 1024]),
            mark,
            own: OwnQueries::default(),
            told: Told::default(),
            reports,
        }
    }

    /// Resolves when it is known whom to ask.
    pub(crate) async fn has_resolvers(&self) {
        while self.resolvers.now().is_none() {
            sleep(LOOK).await;
        }
    }

    /// Whether this is a query of ours that the rules have led back here.
    pub(crate) fn is_own(&self, query: &[u8], client: SocketAddr) -> bool {
        let is_own = self.own.has(client, query);
        if is_own && self.told.is_due("own queries") {
            self.own.tell();
        }
        is_own
    }

    /// The answer of the first resolver that has one. One that fails or refuses is an answer only where none
    /// of the others does better, as for the C library.
    pub(crate) async fn ask(&self, query: &[u8], by: By) -> Option<Asked> {
        let id = query.get(..2)?;
        let asked = match self.resolvers.now() {
            Some(turn) => self.ask_in(&turn, query, by).await,
            None => None,
        };
        self.told.asked(asked.is_some());
        let mut asked = asked?;
        asked.answer[..2].copy_from_slice(id);
        Some(asked)
    }

    async fn ask_in(&self, turn: &Turn, query: &[u8], by: By) -> Option<Asked> {
        let end = Instant::now() + turn.patience;
        // So that the last one has as long as any.
        let early = turn.patience / (turn.order.len() as u32 + 1);
        let mut waiting = turn.order.iter().copied().peekable();
        let mut tries: Vec<Try<'_>> = Vec::with_capacity(1);
        let mut next_at = end;
        let mut poor = None;
        loop {
            if let Some(resolver) = waiting.next() {
                tries.push(self.begin(resolver, turn, query, by));
                next_at = (Instant::now() + early).min(end);
            } else if tries.is_empty() {
                return poor;
            }
            let until = if waiting.peek().is_some() || poor.is_some() {
                next_at
            } else {
                end
            };
            match timeout_at(until, first_done(&mut tries)).await {
                Ok((one, Ok(answer))) => {
                    self.reports.durations.observe(one.since.elapsed());
                    self.resolvers.heard(one.resolver);
                    let is_poor = is_poor(&answer);
                    let asked = Asked {
                        answer,
                        resolver: one.resolver,
                    };
                    if !is_poor {
                        return Some(asked);
                    }
                    self.reports.fail("refused");
                    poor = Some(asked);
                }
                Ok((one, Err(error))) => {
                    tracing::debug!(%error, to = %one.resolver, "asking a resolver");
                    self.reports.fail("unreachable");
                }
                Err(_) => {
                    self.note_late(&mut tries);
                    // Its client asks again where it wants to.
                    if until == end || waiting.peek().is_none() {
                        return poor;
                    }
                }
            }
        }
    }

    fn begin<'a>(&'a self, resolver: SocketAddr, turn: &Turn, query: &'a [u8], by: By) -> Try<'a> {
        let again = turn.patience / turn.attempts;
        Try {
            resolver,
            since: Instant::now(),
            is_late: false,
            asking: Box::pin(self.ask_one(resolver, query, by, again)),
        }
    }

    fn note_late(&self, tries: &mut [Try<'_>]) {
        for one in tries.iter_mut().filter(|one| !one.is_late) {
            one.is_late = true;
            self.reports.fail("silent");
            self.resolvers.silent(one.resolver, one.since);
        }
    }

    fn id(&self) -> u16 {
        let count = self.count.get().wrapping_add(1);
        self.count.set(count);
        self.ids.hash_one(count) as u16
    }
}

/// The first that is done, taken out of the list, and what came of it.
async fn first_done<'a>(tries: &mut Vec<Try<'a>>) -> (Try<'a>, io::Result<Vec<u8>>) {
    poll_fn(|context| {
        for place in 0..tries.len() {
            if let Poll::Ready(result) = tries[place].asking.as_mut().poll(context) {
                return Poll::Ready((tries.swap_remove(place), result));
            }
        }
        Poll::Pending
    })
    .await
}

/// Whether another resolver may do better.
fn is_poor(answer: &[u8]) -> bool {
    let code = number(answer, 2).unwrap_or(0) & 0xf;
    [code::SERVER_FAILURE, code::NOT_IMPLEMENTED, code::REFUSED].contains(&code)
}
