//! What becomes of a query: an answer of ours where its name is one of the mesh, else the resolvers' one. Comes
//! in: the bytes of a query from `serve`. Goes out: the bytes of an answer, or none; each is reported.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;

use model::ErrorName;
use registry::lookup::{self, End};
use registry::{Record, Snapshot};
use tokio::sync::watch;

use crate::Config;
use crate::forward::{Asked, By, Forwarder};
use crate::message::{
    Answer, CLASS_IN, Question, Received, asks_for_transfer, code, encode_name, error, is_truncated, kind,
    kind_name, number, query_for, read, rewritten, sections,
};
use crate::report::{Clock, Done, Reports};
use crate::told::Told;

/// Answers queries. Of one thread.
pub(crate) struct Answerer {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    ttl: Option<u32>,
    reports: Reports,
    forwarder: Forwarder,
    /// Which of its addresses an answer begins with: who takes the first one is spread over all.
    rotation: Cell<usize>,
    told: Told,
}

/// What can be said of a query at once.
pub(crate) enum AtOnce {
    /// All of it: the answer, or that there is none to be given.
    Answered(Option<Vec<u8>>),
    /// Not all: a resolver has to be asked.
    Asks(Asks),
}

/// What a resolver has to be asked for.
pub(crate) struct Asks {
    what: Unsaid,
    clock: Clock,
}

enum Unsaid {
    /// Everything; of a query of that type, as metrics name it.
    All(&'static str),
    /// Where an alias of ours leads to; and for how many seconds ours may be kept.
    AliasEnd(lookup::Answer, u32),
}

impl Answerer {
    pub(crate) fn new(config: Config) -> Self {
        let resolvers = crate::resolvers::Resolvers::new(config.resolv_conf);
        Self {
            snapshots: config.snapshots,
            ttl: config.ttl,
            forwarder: Forwarder::new(resolvers, config.mark, config.reports.upstream.clone()),
            reports: config.reports,
            rotation: Cell::new(0),
            told: Told::default(),
        }
    }

    /// What can be said of these bytes without asking anybody, which is all of most names of ours: for that nobody
    /// waits.
    pub(crate) fn at_once(&self, query: &[u8], by: By) -> AtOnce {
        let clock = self.reports.clock();
        let what = match read(query) {
            Received::Noise => return AtOnce::Answered(None),
            Received::Malformed => {
                let message = error(query, code::FORMAT_ERROR);
                return self.answered(query, Done::of("other", "malformed", message), clock);
            }
            Received::Foreign | Received::Question(_) if by == By::Stream && asks_for_transfer(query) => {
                let message = error(query, code::REFUSED);
                return self.answered(query, Done::of("other", "failed", message), clock);
            }
            Received::Foreign => Unsaid::All("other"),
            Received::Question(question) => match self.look_up(&question) {
                None => Unsaid::All(kind_name(question.kind)),
                Some((found, ttl))
                    if matches!(found.end, End::Outside(_)) && !question.is_of_unknown_version() =>
                {
                    Unsaid::AliasEnd(found, ttl)
                }
                Some((found, ttl)) => {
                    return self.answered(query, self.own(&question, found, ttl, by), clock);
                }
            },
        };
        AtOnce::Asks(Asks { what, clock })
    }

    /// The answer that takes a resolver.
    pub(crate) async fn ask(&self, query: &[u8], client: SocketAddr, by: By, asks: Asks) -> Option<Vec<u8>> {
        let done = match (asks.what, read(query)) {
            (Unsaid::All(kind), _) if self.forwarder.is_own(query, client) => {
                Done::of(kind, "failed", error(query, code::SERVER_FAILURE))
            }
            (Unsaid::AliasEnd(found, ttl), Received::Question(question)) => {
                self.with_alias_end(&question, found, ttl, by).await
            }
            (Unsaid::All(kind), _) => self.forward(query, by, kind).await,
            (Unsaid::AliasEnd(..), _) => return None,
        };
        self.reports.done(query, &done, asks.clock);
        done.message
    }

    fn answered(&self, query: &[u8], done: Done, clock: Clock) -> AtOnce {
        self.reports.done(query, &done, clock);
        AtOnce::Answered(done.message)
    }

    /// Resolves when it is known whom to ask.
    pub(crate) async fn has_resolvers(&self) {
        self.forwarder.has_resolvers().await;
    }

    /// Counts queries that never came here.
    pub(crate) fn count_lost(&self, count: u32) {
        self.reports.lost.inc_by(count.into());
    }

    /// Counts a query that was not looked at: there were too many.
    pub(crate) fn count_dropped(&self) {
        self.reports.count("other", "dropped");
    }

    /// What the mesh says, and for how many seconds.
    fn look_up(&self, question: &Question<'_>) -> Option<(lookup::Answer, u32)> {
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let mut found = snapshot.look_up(&question.name, question.wanted())?;
        self.rotate(&mut found.records);
        Some((found, crate::ttl(self.ttl, &snapshot.settings)))
    }

    fn rotate(&self, records: &mut [Record]) {
        let is_address = |record: &Record| matches!(record, Record::Address(_));
        let aliases = records.iter().take_while(|record| !is_address(record)).count();
        let addresses = &mut records[aliases..];
        if addresses.len() > 1 {
            let turn = self.rotation.get();
            self.rotation.set(turn.wrapping_add(1));
            addresses.rotate_left(turn % addresses.len());
        }
    }

    async fn forward(&self, query: &[u8], by: By, kind: &'static str) -> Done {
        let asked = self.forwarder.ask(query, by).await;
        let result = if asked.is_some() { "forwarded" } else { "failed" };
        let (message, resolver) = asked.map(|asked| (asked.answer, asked.resolver)).unzip();
        Done {
            resolver,
            ..Done::of(
                kind,
                result,
                message.or_else(|| error(query, code::SERVER_FAILURE)),
            )
        }
    }

    /// An alias of ours, and what the resolvers say of where it leads.
    async fn with_alias_end(&self, question: &Question<'_>, found: lookup::Answer, ttl: u32, by: By) -> Done {
        let mut answer = Answer::new(question, limit(question, by));
        add(&mut answer, &found.records, ttl);
        let resolver = match &found.end {
            End::Outside(name) => self.take_over(&mut answer, question, name).await,
            _ => None,
        };
        Done {
            service: found.service,
            resolver,
            ..finished(answer, question)
        }
    }

    /// Adds what the resolvers say of the name that an alias leads to. Gives which of them did.
    async fn take_over(
        &self,
        answer: &mut Answer<'_, '_>,
        question: &Question<'_>,
        name: &str,
    ) -> Option<SocketAddr> {
        let asked = self.ask_for(question, name).await;
        let Some((asked, (list, authority))) =
            asked.and_then(|asked| sections(&asked.answer).map(|sections| (asked, sections)))
        else {
            if self.told.is_due(&question.name) {
                tracing::warn!(
                    see = %ErrorName::Resolvers,
                    name = question.name,
                    "no resolver answers for what its externalName names"
                );
            }
            answer.code = code::SERVER_FAILURE;
            return None;
        };
        let message = asked.answer;
        answer.code = number(&message, 2).unwrap_or(0) & 0xf;
        for (owner, record) in list {
            if record.class == CLASS_IN
                && let Some(data) = rewritten(&message, record.kind, record.data)
            {
                answer.add_record(&owner, record.kind, CLASS_IN, record.ttl, &data);
            }
        }
        // By which clients know how long there is no such thing.
        for (owner, record) in authority {
            if record.kind == kind::SOA
                && let Some(data) = rewritten(&message, record.kind, record.data)
            {
                answer.add_authority(&owner, record.kind, record.ttl, &data);
            }
        }
        if is_truncated(&message) {
            answer.truncate();
        }
        Some(asked.resolver)
    }

    /// What the resolvers say of another name; whole, where one of them speaks TCP.
    async fn ask_for(&self, question: &Question<'_>, name: &str) -> Option<Asked> {
        let query = query_for(question, &encode_name(name)?);
        let asked = self.forwarder.ask(&query, By::Datagram).await?;
        if !is_truncated(&asked.answer) {
            return Some(asked);
        }
        self.forwarder.ask(&query, By::Stream).await.or(Some(asked))
    }

    /// What the mesh alone says.
    fn own(&self, question: &Question<'_>, found: lookup::Answer, ttl: u32, by: By) -> Done {
        let mut answer = Answer::new(question, limit(question, by));
        if question.is_of_unknown_version() {
            answer.code = code::BAD_VERSION;
        } else {
            add(&mut answer, &found.records, ttl);
            match found.end {
                End::Complete | End::Outside(_) => {}
                End::Missing => answer.code = code::NO_SUCH_NAME,
                End::Nowhere => {
                    if self.told.is_due(&question.name) {
                        tracing::warn!(
                            see = %ErrorName::AliasLoop,
                            name = question.name,
                            "its externalName leads nowhere: a circle, or no host name"
                        );
                    }
                    answer.code = code::SERVER_FAILURE;
                }
            }
            let is_empty = found.end == End::Missing
                || found.end == End::Complete && !ends_with_wanted(&found.records, question);
            if is_empty {
                add_start(&mut answer, &found.records, question, ttl);
            }
        }
        Done {
            service: found.service,
            ..finished(answer, question)
        }
    }
}

/// Whether there is a record of the type that was asked for: it comes last.
fn ends_with_wanted(records: &[Record], question: &Question<'_>) -> bool {
    let wanted = question.wanted();
    records.last().is_some_and(|record| wanted.wants(record.kind()))
}

/// Says for how long nothing more is there (RFC 2308): as the zone of a full name does, or for a short one that
/// name by itself.
fn add_start(answer: &mut Answer<'_, '_>, records: &[Record], question: &Question<'_>, ttl: u32) {
    const DOMAIN: &str = "cluster.local";
    let asked = records.iter().rev().find_map(|record| match record {
        Record::Alias(target) => Some(target.trim_end_matches('.')),
        _ => None,
    });
    let name = asked.unwrap_or(&question.name);
    let is_full = name.len() > DOMAIN.len() && name.to_ascii_lowercase().ends_with(".cluster.local");
    let zone = encode_name(if is_full { DOMAIN } else { name });
    let names = [
        encode_name("ns.dns.cluster.local"),
        encode_name("hostmaster.cluster.local"),
    ];
    if let (Some(zone), [Some(server), Some(mailbox)]) = (zone, names) {
        // Serial, refresh, retry, expire, minimum: of a zone that nobody transfers the last alone counts.
        let numbers = [1, 7200, 1800, 86_400, ttl].map(u32::to_be_bytes);
        let data = [server, mailbox, numbers.concat()].concat();
        answer.add_authority(&zone, kind::SOA, ttl, &data);
    }
}

fn finished(answer: Answer<'_, '_>, question: &Question<'_>) -> Done {
    let result = match answer.code {
        code::NO_SUCH_NAME => "missing",
        code::SERVER_FAILURE => "failed",
        _ => "answered",
    };
    Done::of(kind_name(question.kind), result, Some(answer.finish()))
}

fn limit(question: &Question<'_>, by: By) -> usize {
    match by {
        By::Datagram => question.limit(),
        By::Stream => usize::from(u16::MAX),
    }
}

/// Adds records of ours: what follows an alias is of the name that it leads to.
fn add(answer: &mut Answer<'_, '_>, records: &[Record], ttl: u32) {
    let mut owner: Option<Vec<u8>> = None;
    for record in records {
        answer.add(owner.as_deref(), ttl, record);
        if let Record::Alias(target) = record {
            owner = encode_name(target);
        }
    }
}

#[cfg(test)]
mod tests;
