//! What becomes of a query: an answer of ours where its name is one of the mesh, else the resolvers' one. Comes
//! in: the bytes of a query from `serve`. Goes out: the bytes of an answer, or none; each is counted.

use registry::Resolved;

use crate::forward::{By, Forwarder};
use crate::message::{
    Answer, CLASS_IN, Data, Question, Received, answers, code, encode_name, error, kind, kind_name, number,
    query_for, read, rewritten,
};
use crate::{Config, Reports};

/// Names that an alias may lead through.
const ALIASES_MAX: usize = 8;

/// Answers queries. Of one thread.
pub(crate) struct Answerer {
    names: crate::Names,
    ttl: u32,
    reports: Reports,
    forwarder: Forwarder,
}

/// Whose a name is, once its aliases are followed.
enum End {
    Ours(Resolved),
    /// Somebody else's, in wire form.
    Outside(Vec<u8>),
    /// Nowhere: aliases in a circle, or one that is no name.
    Nowhere,
}

impl Answerer {
    pub(crate) fn new(config: Config) -> Self {
        let resolvers = crate::resolvers::Resolvers::new(config.resolv_conf);
        Self {
            names: config.names,
            ttl: config.ttl,
            forwarder: Forwarder::new(resolvers, config.reports.upstream.clone()),
            reports: config.reports,
        }
    }

    /// The answer to these bytes; `None` where there is none to be given.
    pub(crate) async fn answer(&self, query: &[u8], by: By) -> Option<Vec<u8>> {
        match read(query) {
            Received::Noise => None,
            Received::Malformed => {
                self.count("other", "malformed");
                error(query, code::FORMAT_ERROR)
            }
            Received::Foreign => self.forward(query, by, "other").await,
            Received::Question(question) => match (self.names)(&question.name) {
                None => self.forward(query, by, kind_name(question.kind)).await,
                Some(found) => Some(self.own(&question, found, by).await),
            },
        }
    }

    /// Counts a query that was not looked at: there were too many.
    pub(crate) fn count_dropped(&self) {
        self.count("other", "dropped");
    }

    fn count(&self, kind: &str, result: &str) {
        self.reports.queries.with([kind, result]).inc();
    }

    async fn forward(&self, query: &[u8], by: By, kind: &str) -> Option<Vec<u8>> {
        let answer = self.forwarder.ask(query, by).await;
        let result = if answer.is_some() { "forwarded" } else { "failed" };
        self.count(kind, result);
        answer.or_else(|| error(query, code::SERVER_FAILURE))
    }

    async fn own(&self, question: &Question<'_>, found: Resolved, by: By) -> Vec<u8> {
        let limit = match by {
            By::Datagram => question.limit(),
            By::Stream => usize::from(u16::MAX),
        };
        let mut answer = Answer::new(question, limit);
        if question.is_of_unknown_version() {
            answer.code = code::BAD_VERSION;
        } else {
            self.fill(&mut answer, question, found).await;
        }
        let result = match answer.code {
            code::NO_SUCH_NAME => "missing",
            code::SERVER_FAILURE => "failed",
            _ => "answered",
        };
        self.count(kind_name(question.kind), result);
        answer.finish()
    }

    async fn fill(&self, answer: &mut Answer<'_, '_>, question: &Question<'_>, found: Resolved) {
        if let Resolved::Alias(target) = &found
            && question.wants(kind::CNAME)
        {
            match encode_name(target) {
                Some(target) => answer.add(self.ttl, &Data::Alias(target)),
                None => answer.code = code::SERVER_FAILURE,
            }
            return;
        }
        let (owner, end) = self.follow(answer, found);
        match end {
            End::Ours(Resolved::Missing) => answer.code = code::NO_SUCH_NAME,
            End::Ours(resolved) => {
                for data in records(resolved) {
                    if question.wants(data.kind()) {
                        answer.add_of(owner.as_deref(), self.ttl, &data);
                    }
                }
            }
            End::Outside(name) => self.take_over(answer, question, &name).await,
            End::Nowhere => {
                tracing::warn!(
                    name = question.name,
                    "its externalName leads nowhere: a circle, or no host name"
                );
                answer.code = code::SERVER_FAILURE;
            }
        }
    }

    /// Follows aliases, each of which becomes a record. Gives whose records come next (none: those of the name
    /// that was asked for), and what they are.
    fn follow(&self, answer: &mut Answer<'_, '_>, mut found: Resolved) -> (Option<Vec<u8>>, End) {
        let mut owner: Option<Vec<u8>> = None;
        for _ in 0..ALIASES_MAX {
            let Resolved::Alias(target) = &found else {
                return (owner, End::Ours(found));
            };
            let Some(wire) = encode_name(target) else {
                return (owner, End::Nowhere);
            };
            answer.add_of(owner.as_deref(), self.ttl, &Data::Alias(wire.clone()));
            let name = target.strip_suffix('.').unwrap_or(target).to_ascii_lowercase();
            match (self.names)(&name) {
                Some(next) => found = next,
                None => return (None, End::Outside(wire)),
            }
            owner = Some(wire);
        }
        (owner, End::Nowhere)
    }

    /// Adds what the resolvers say of the name that an alias leads to.
    async fn take_over(&self, answer: &mut Answer<'_, '_>, question: &Question<'_>, name: &[u8]) {
        let query = query_for(question, name);
        let mut found = self.forwarder.ask(&query, By::Datagram).await;
        if found.as_deref().is_some_and(is_truncated) {
            found = self.forwarder.ask(&query, By::Stream).await;
        }
        let Some((message, list)) = found.and_then(|message| {
            let list = answers(&message)?;
            Some((message, list))
        }) else {
            tracing::warn!(
                name = question.name,
                "no resolver answers for what its externalName names"
            );
            answer.code = code::SERVER_FAILURE;
            return;
        };
        answer.code = number(&message, 2).unwrap_or(0) & 0xf;
        for (owner, record) in list {
            if record.class == CLASS_IN
                && let Some(data) = rewritten(&message, record.kind, record.data)
            {
                answer.add_record(&owner, record.kind, CLASS_IN, record.ttl, &data);
            }
        }
    }
}

fn is_truncated(message: &[u8]) -> bool {
    number(message, 2).unwrap_or(0) & 0x0200 != 0
}

/// The records of a name of ours. A name that DNS cannot carry has none.
fn records(resolved: Resolved) -> Vec<Data> {
    match resolved {
        Resolved::Addresses(addresses) => addresses.into_iter().map(Data::Address).collect(),
        Resolved::Names(names) => names
            .iter()
            .filter_map(|name| encode_name(name))
            .map(Data::Pointer)
            .collect(),
        Resolved::Ports(places) => places
            .iter()
            .filter_map(|place| {
                Some(Data::Service {
                    port: place.port,
                    target: encode_name(&place.host)?,
                })
            })
            .collect(),
        Resolved::Alias(name) => encode_name(&name).map(Data::Alias).into_iter().collect(),
        Resolved::Missing => Vec::new(),
    }
}
