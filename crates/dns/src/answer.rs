//! What becomes of a query: an answer of ours where its name is one of the mesh, else the resolvers' one. Comes
//! in: the bytes of a query from `serve`. Goes out: the bytes of an answer, or none; each is reported.

use std::net::SocketAddr;
use std::sync::Arc;

use model::{ErrorName, ObjectName};
use registry::lookup::{self, End};
use registry::{Record, Snapshot};
use tokio::sync::watch;

use crate::Config;
use crate::forward::{Asked, By, Forwarder};
use crate::message::{
    Answer, CLASS_IN, Question, Received, answers, code, encode_name, error, kind_name, number, query_for,
    read, rewritten,
};
use crate::report::Reports;

/// Answers queries. Of one thread.
pub(crate) struct Answerer {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    ttl: Option<u32>,
    reports: Reports,
    forwarder: Forwarder,
}

/// What became of a query.
pub(crate) struct Done {
    pub(crate) message: Option<Vec<u8>>,
    /// The type asked for, as metrics name it.
    pub(crate) kind: &'static str,
    /// What became of it, as metrics name it.
    pub(crate) result: &'static str,
    /// Whose name it is, where it is one of ours.
    pub(crate) service: Option<ObjectName>,
    /// Who answered, if it was forwarded.
    pub(crate) resolver: Option<SocketAddr>,
}

impl Answerer {
    pub(crate) fn new(config: Config) -> Self {
        let resolvers = crate::resolvers::Resolvers::new(config.resolv_conf);
        Self {
            snapshots: config.snapshots,
            ttl: config.ttl,
            forwarder: Forwarder::new(resolvers, config.mark, config.reports.upstream.clone()),
            reports: config.reports,
        }
    }

    /// The answer to these bytes; `None` where there is none to be given.
    pub(crate) async fn answer(&self, query: &[u8], by: By) -> Option<Vec<u8>> {
        let clock = self.reports.clock();
        let done = match read(query) {
            Received::Noise => return None,
            Received::Malformed => Done {
                message: error(query, code::FORMAT_ERROR),
                kind: "other",
                result: "malformed",
                service: None,
                resolver: None,
            },
            Received::Foreign => self.forward(query, by, "other").await,
            Received::Question(question) => {
                let found = self.look_up(&question);
                match found {
                    None => self.forward(query, by, kind_name(question.kind)).await,
                    Some((found, ttl)) => self.own(&question, found, ttl, by).await,
                }
            }
        };
        self.reports.done(query, &done, clock);
        done.message
    }

    /// Counts a query that was not looked at: there were too many.
    pub(crate) fn count_dropped(&self) {
        self.reports.count("other", "dropped");
    }

    /// What the mesh says, and for how many seconds.
    fn look_up(&self, question: &Question<'_>) -> Option<(lookup::Answer, u32)> {
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let found = snapshot.look_up(&question.name, question.wanted())?;
        Some((found, crate::ttl(self.ttl, &snapshot.settings)))
    }

    async fn forward(&self, query: &[u8], by: By, kind: &'static str) -> Done {
        let asked = self.forwarder.ask(query, by).await;
        let result = if asked.is_some() { "forwarded" } else { "failed" };
        let (message, resolver) = asked.map(|asked| (asked.answer, asked.resolver)).unzip();
        Done {
            message: message.or_else(|| error(query, code::SERVER_FAILURE)),
            kind,
            result,
            service: None,
            resolver,
        }
    }

    async fn own(&self, question: &Question<'_>, found: lookup::Answer, ttl: u32, by: By) -> Done {
        let limit = match by {
            By::Datagram => question.limit(),
            By::Stream => usize::from(u16::MAX),
        };
        let mut answer = Answer::new(question, limit);
        let mut resolver = None;
        if question.is_of_unknown_version() {
            answer.code = code::BAD_VERSION;
        } else {
            add(&mut answer, &found.records, ttl);
            match found.end {
                End::Complete => {}
                End::Missing => answer.code = code::NO_SUCH_NAME,
                End::Outside(name) => resolver = self.take_over(&mut answer, question, &name).await,
                End::Nowhere => {
                    tracing::warn!(
                        name = question.name,
                        "its externalName leads nowhere: a circle, or no host name"
                    );
                    answer.code = code::SERVER_FAILURE;
                }
            }
        }
        let result = match answer.code {
            code::NO_SUCH_NAME => "missing",
            code::SERVER_FAILURE => "failed",
            _ => "answered",
        };
        Done {
            message: Some(answer.finish()),
            kind: kind_name(question.kind),
            result,
            service: found.service,
            resolver,
        }
    }

    /// Adds what the resolvers say of the name that an alias leads to. Gives which of them did.
    async fn take_over(
        &self,
        answer: &mut Answer<'_, '_>,
        question: &Question<'_>,
        name: &str,
    ) -> Option<SocketAddr> {
        let Some((asked, list)) = self.ask_for(question, name).await else {
            tracing::warn!(
                see = %ErrorName::Resolvers,
                name = question.name,
                "no resolver answers for what its externalName names"
            );
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
        Some(asked.resolver)
    }

    /// What the resolvers say of another name, whole.
    async fn ask_for(
        &self,
        question: &Question<'_>,
        name: &str,
    ) -> Option<(Asked, Vec<(Vec<u8>, crate::message::Record)>)> {
        let query = query_for(question, &encode_name(name)?);
        let mut asked = self.forwarder.ask(&query, By::Datagram).await?;
        if is_truncated(&asked.answer) {
            asked = self.forwarder.ask(&query, By::Stream).await?;
        }
        let list = answers(&asked.answer)?;
        Some((asked, list))
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

fn is_truncated(message: &[u8]) -> bool {
    number(message, 2).unwrap_or(0) & 0x0200 != 0
}
