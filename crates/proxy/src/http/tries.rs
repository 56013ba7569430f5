//! Tries: which endpoint a request is asked of, on which connection, and what is safe to try again.

use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use model::event::{Flags, Network, Step};
use netsys::sock;
use registry::{Lease, Retry, Target};
use smallvec::SmallVec;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::dial::{self, Dialed};
use crate::route::Towards;

use super::exchange::{Answer, Exchange, Uploading};
use super::failure::Failure;
use super::pool::Kept;

/// What the tries of one request have come to.
#[derive(Default)]
struct Tries {
    failed: SmallVec<[SocketAddr; 4]>,
    retries: u32,
    under_way: Option<Retry>,
}

/// What one try goes by.
enum Way {
    /// A connection that was dialled before the client spoke.
    There(Upstream),
    To(Choice),
}

/// A try that came to nothing.
struct Failed {
    target: Arc<Target>,
    failure: Failure,
}

/// The endpoint of one try.
struct Choice {
    target: Arc<Target>,
    /// Whether only a new connection will do: the endpoint was chosen before, and has not failed.
    anew: bool,
    /// Endpoints that could have been chosen.
    usable: usize,
}

/// A connection for one try.
struct Upstream {
    stream: TcpStream,
    lease: Lease,
    /// It had been unused for a while: that it ends at once says nothing of the endpoint.
    was_unused: bool,
    /// A large answer is likely.
    bulk: bool,
}

impl Exchange<'_> {
    /// Asks endpoints until one answers, or trying again is not safe, not allowed or of no use.
    pub(super) async fn ask(&mut self) -> Result<Answer, Failure> {
        if !self.client.is_routed {
            return Err(Failure::NoRoute);
        }
        let mut tries = Tries::default();
        let dialed = self.client.early.take().and_then(|early| early.dialed);
        let mut way = match dialed.and_then(|dialed| self.adopt(dialed)) {
            Some(upstream) => Way::There(upstream),
            None => {
                let choice = self.choose(&[]).ok_or(Failure::NoEndpoint)?;
                self.tell_choice(&choice);
                Way::To(choice)
            }
        };
        loop {
            self.request.tries += 1;
            let (failed, answer) = match self.try_once(way).await {
                Ok(answer) if answer.head.status != 503 => {
                    answer.lease.target().state.succeeded();
                    return Ok(answer);
                }
                Ok(answer) => {
                    let target = Arc::clone(answer.lease.target());
                    let failure = Failure::Unavailable;
                    (Failed { target, failure }, Some(answer))
                }
                Err(failed) => (failed, None),
            };
            match self.choose_again(&mut tries, &failed) {
                Some(next) => way = Way::To(next),
                None => return answer.ok_or(failed.failure),
            }
        }
    }

    fn choose(&self, failed: &[SocketAddr]) -> Option<Choice> {
        let client = &self.client;
        let (target, usable) = match &client.route.towards {
            Towards::OriginalDst => return None,
            Towards::Target(_, target) => (Arc::clone(target), 1),
            Towards::Cluster(cluster) => {
                let pick = client.worker.pick(cluster, client.origin.source.ip(), failed)?;
                (pick.target, pick.usable)
            }
        };
        Some(Choice {
            target,
            anew: false,
            usable,
        })
    }

    fn tell_choice(&self, choice: &Choice) {
        let endpoint = choice.target.address;
        self.tell(|| Step::Chosen {
            endpoint,
            attempt: self.request.tries + 1,
            usable: choice.usable,
            of: self.client.route.of_family(endpoint),
            network: Network::Only,
        });
    }

    /// One try: an endpoint or a connection that is there already, and what it says.
    async fn try_once(&mut self, way: Way) -> Result<Answer, Failed> {
        let upstream = match way {
            Way::To(choice) => self.connect(choice).await?,
            Way::There(upstream) => upstream,
        };
        let Upstream {
            mut stream,
            lease,
            was_unused,
            bulk,
        } = upstream;
        let worker = Rc::clone(&self.client.worker);
        let mut buffer = if bulk {
            worker.spares.take_large()
        } else {
            worker.spares.take()
        };
        let failure = match self.converse(&mut stream, &mut buffer).await {
            Ok(head) => {
                return Ok(Answer {
                    head,
                    buffer,
                    stream,
                    lease,
                });
            }
            Err(Failure::Lost(_)) if was_unused && self.interim == 0 => Failure::Stale,
            Err(failure) => failure,
        };
        worker.spares.give(buffer);
        let target = Arc::clone(lease.target());
        if failure.is_of_the_way() {
            worker.pool.forget(self.client.side(), &target);
        }
        if matches!(
            failure,
            Failure::Lost(_) | Failure::Vanished | Failure::Silent | Failure::Partial | Failure::TryLate
        ) {
            self.client.note_failure(&target);
        }
        Err(Failed { target, failure })
    }

    /// A connection to the endpoint: the one used last, or a new one.
    async fn connect(&mut self, Choice { target, anew, .. }: Choice) -> Result<Upstream, Failed> {
        let endpoint = target.address;
        self.request.endpoint = Some(endpoint);
        self.request.connect = None;
        if !anew
            && let Some(Kept { stream, bulk }) = self.client.worker.pool.take(self.client.side(), &target)
            && self.may_use(&stream)
        {
            self.tell(|| Step::Connected { endpoint, took: None });
            return Ok(Upstream {
                stream,
                lease: Lease::new(target),
                was_unused: true,
                bulk,
            });
        }
        // Boxed, as it is rare.
        Box::pin(self.dial(target)).await
    }

    async fn dial(&mut self, target: Arc<Target>) -> Result<Upstream, Failed> {
        let endpoint = target.address;
        let worker = Rc::clone(&self.client.worker);
        let lease = Lease::new(Arc::clone(&target));
        let start = Instant::now();
        let origin = self.client.origin;
        let connecting = dial::connect(&worker, &origin, endpoint, self.client.policy().connect_timeout);
        let failure = match self.unless_ended(connecting).await {
            Ok(Ok(stream)) => {
                let took = Some(start.elapsed());
                self.request.connect = took;
                // Best effort: a connection that is gone already has nothing to be watched.
                let _ = sock::keep_watch(&stream);
                self.tell(|| Step::Connected { endpoint, took });
                return Ok(Upstream {
                    stream,
                    lease,
                    was_unused: false,
                    bulk: false,
                });
            }
            Ok(Err(error)) if dial::is_local(&error) => Failure::Local(error.to_string().into()),
            Ok(Err(error)) => {
                self.client.note_failure(&target);
                worker.pool.forget(self.client.side(), &target);
                Failure::Connect(error.to_string().into())
            }
            Err(ended) => ended,
        };
        Err(Failed { target, failure })
    }

    fn tell(&self, step: impl FnOnce() -> Step) {
        self.client.worker.reports.event(&self.client.origin, step);
    }

    /// The connection that was dialled before the client spoke.
    fn adopt(&mut self, dialed: Dialed) -> Option<Upstream> {
        let Dialed {
            stream,
            endpoint,
            took,
            lease,
        } = dialed;
        self.request.endpoint = Some(endpoint);
        self.request.connect = Some(took);
        lease.map(|lease| Upstream {
            stream,
            lease,
            was_unused: true,
            bulk: false,
        })
    }

    /// Whether an unused connection may carry this request. What cannot be asked twice is worth a system
    /// call, that it be not written to a connection whose end the reactor has not seen yet.
    fn may_use(&self, stream: &TcpStream) -> bool {
        self.request.asked.method.is_idempotent() || {
            let peeked = SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]);
            peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        }
    }

    /// The next choice after a failure, if there is one; the request is ready to be sent again then.
    fn choose_again(&mut self, tries: &mut Tries, failed: &Failed) -> Option<Choice> {
        let choice = self.next_choice(tries, failed);
        self.tell(|| Step::TryFailed {
            endpoint: failed.target.address,
            why: failed.failure.to_string().into(),
            retry: choice.is_some(),
        });
        if let Some(choice) = &choice {
            if !choice.anew {
                self.tell_choice(choice);
            }
            self.upload.rewind();
            self.uploading = Uploading::Going;
        }
        choice
    }

    fn next_choice(&mut self, tries: &mut Tries, Failed { target, failure }: &Failed) -> Option<Choice> {
        if !self.is_safe_after(failure) {
            return None;
        }
        if matches!(failure, Failure::Stale) {
            return Some(Choice {
                target: Arc::clone(target),
                anew: true,
                usable: 1,
            });
        }
        // What named its endpoint goes nowhere else.
        let Towards::Cluster(cluster) = &self.client.route.towards else {
            return None;
        };
        let policy = &cluster.policy;
        if policy.retries == 0 {
            return None;
        }
        if tries.retries >= policy.retries {
            self.request.flags.insert(Flags::RETRIES_EXHAUSTED);
            return None;
        }
        tries.failed.push(target.address);
        tries.under_way = None;
        // The budget holds back work done twice. A try that came to no endpoint was no work, and all that
        // were waiting for one that is cut off find that out at the same time.
        if !failure.reached_nobody() {
            tries.under_way = Retry::new(&cluster.state, policy.retry_budget_percent);
            if tries.under_way.is_none() {
                self.request.flags.insert(Flags::RETRY_BUDGET);
                return None;
            }
        }
        // Where all others failed too, one that refused will refuse again,
        // and one that vanished is not back yet.
        let choice = self
            .choose(&tries.failed)
            .filter(|choice| !tries.failed.contains(&choice.target.address) || !failure.is_of_the_way())?;
        tries.retries += 1;
        self.request.flags.insert(Flags::RETRIED);
        self.client.route.counters.retries.inc();
        Some(choice)
    }

    /// Whether the request may be asked again: it is still here, the endpoint did not begin to answer,
    /// and either it cannot have got the request or doing it twice is as doing it once.
    fn is_safe_after(&self, failure: &Failure) -> bool {
        let is_idempotent = self.request.asked.method.is_idempotent();
        let is_safe = match failure {
            Failure::Connect(_) => true,
            Failure::Stale => is_idempotent || !self.upload.has_begun(),
            Failure::Lost(_)
            | Failure::Vanished
            | Failure::Silent
            | Failure::TryLate
            | Failure::Unavailable => is_idempotent,
            _ => false,
        };
        is_safe && self.interim == 0 && self.upload.is_kept()
    }
}
