//! Why a connection goes where it goes: each decision from the packet to the endpoint, by the functions that make
//! them, joined with what was seen of the namespace. Comes in: a question, what was seen, what the proxy knows.
//! Goes out: an [`Explanation`], as text or as JSON. Caller: `weir explain`.

mod captured;
mod client;
mod commands;
mod endpoints;
mod leg;
mod names;
mod network;
mod onward;
mod probe;
mod proxy;
mod reason;
mod rule;
#[cfg(test)]
mod tests;
mod text;
mod trace;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use model::Direction;
use registry::Snapshot;
use rules::Installed;
use rules::cgroup::Membership;
use rules::ruleset::IpProtocol;
use serde::Serialize;

pub use commands::commands_by;
pub use names::{Named, named};
pub use network::{Assumed, Live, Network};
pub use rule::{AskedRule, RuleStep};
pub use text::{Detail, headline, nameless, text};
pub use trace::{Compared, add_trace};

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// As the client would write it: `web.shop`.
    pub host: String,
    /// The address that the client would connect to.
    pub to: SocketAddr,
    /// TCP or UDP.
    pub protocol: IpProtocol,
    /// Made in the namespace, or coming into it.
    pub direction: Direction,
    /// Whose socket it is.
    pub client: Client,
}

/// Who connects.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Client {
    /// User id of the process.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
    /// Mark of its socket.
    pub mark: u32,
    /// The cgroups that it is in.
    pub cgroups: Membership,
    /// Its address; without one, what routing gives it.
    pub source: Option<IpAddr>,
    /// Where all this is from, for people: `process 4711 (curl)`; empty where it is assumed.
    pub who: String,
}

/// The rules of a namespace, or of a file.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// What is installed.
    pub installed: Installed,
    /// What is there and could not be read: a reason each.
    pub hidden: Vec<String>,
    /// Why none could be read, where that is so.
    pub unread: Option<String>,
}

/// What the proxy knows, or why that is not known.
#[derive(Clone, Debug)]
pub enum Mesh {
    /// The registry, at `now` on the clock of its endpoints.
    Known {
        /// What it decides by.
        snapshot: Arc<Snapshot>,
        /// For [`registry::Cluster::standing`].
        now: u64,
        /// From where: `the proxy 4711`, `the manifests in shop/`.
        from: String,
    },
    /// Nobody tells.
    Unknown {
        /// Why.
        why: String,
        /// What to give instead.
        fix: &'static str,
    },
    /// The proxy of the namespace takes a connection to this admin address, and says nothing.
    Silent(String),
}

/// Everything about one connection.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Explanation {
    /// What it comes to.
    pub outcome: Outcome,
    /// That in one sentence.
    pub headline: String,
    /// Who asks for what.
    pub client: String,
    /// What is in the way, where something is.
    pub finding: Option<Finding>,
    /// What is worth knowing besides.
    pub remarks: Vec<String>,
    /// The decisions, in order.
    pub steps: Vec<Step>,
    /// The rule that decided about the client's packet; none where none did.
    pub rule: Option<RuleStep>,
    /// Where chance decides, each way that it may go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ways: Vec<Way>,
    /// Rules that would have decided otherwise, had one test held.
    pub near_misses: Vec<AskedRule>,
    /// Every rule that the client's packet was asked about.
    pub asked: Vec<AskedRule>,
    /// Endpoints that the choice is among, and those that lost.
    pub endpoints: Vec<Candidate>,
    /// What the kernel did, where one was made and watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<Compared>,
}

impl Explanation {
    /// Whether the same is in the way of both.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let what = |told: &Self| {
            told.finding
                .as_ref()
                .map(|finding| (finding.side, finding.fix.clone()))
        };
        self.outcome == other.outcome && what(self) == what(other)
    }
}

/// What it comes to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It would work, by the proxy.
    Works,
    /// It leaves as it is, and nothing is known of that the mesh owns it.
    Passes,
    /// It cannot be said.
    Unknown,
    /// The mesh owns the destination, and the proxy would not see the connection.
    Bypasses,
    /// It would fail.
    Fails,
}

impl Outcome {
    /// The word of the headline.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Works => "WORKS",
            Self::Passes => "PASSES",
            Self::Unknown => "UNKNOWN",
            Self::Bypasses => "BYPASSES",
            Self::Fails => "FAILS",
        }
    }
}

/// Who is to be looked at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Side {
    Client,
    Rules,
    Proxy,
    Registry,
    Endpoint,
}

impl Side {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Rules => "rules",
            Self::Proxy => "proxy",
            Self::Registry => "registry",
            Self::Endpoint => "endpoint",
        }
    }
}

/// Something in the way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// Whose it is.
    pub side: Side,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
}

impl Finding {
    fn new(side: Side, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            side,
            what: what.into(),
            fix: fix.into(),
        }
    }
}

/// One decision.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Step {
    /// What decides: `rule`, `proxy`, `cluster`.
    pub stage: &'static str,
    /// What it says.
    pub says: String,
}

/// One of several ways between which chance decides.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Way {
    /// How many of all connections take it, from 0 to 1.
    pub share: f64,
    /// What it comes to.
    pub outcome: Outcome,
    /// That in one sentence.
    pub headline: String,
    /// The rule that decides then.
    pub rule: Option<RuleStep>,
}

/// An endpoint of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Candidate {
    /// Its address.
    pub address: SocketAddr,
    /// The pod behind it, where known.
    pub workload: Option<String>,
    /// Why it loses; none where it may be chosen.
    pub lost: Option<String>,
    /// What came of a connection to it, where one was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

/// Follows the connection as far as anything is known.
#[must_use]
pub fn explain(question: &Question, rules: &Rules, network: &dyn Network, mesh: &Mesh) -> Explanation {
    let mut story = Story {
        question,
        rules,
        network,
        mesh,
        told: Explanation {
            outcome: Outcome::Unknown,
            headline: String::new(),
            client: String::new(),
            finding: None,
            remarks: vec![],
            steps: vec![],
            rule: None,
            ways: vec![],
            near_misses: vec![],
            asked: vec![],
            endpoints: vec![],
            trace: None,
        },
    };
    story.told.remarks.extend(rules.hidden.iter().cloned());
    let end = story.client_leg();
    let mut told = story.told;
    (told.outcome, told.headline, told.finding) = end.parts();
    // What could not be read may hold anything.
    if told.finding.is_none() && !rules.hidden.is_empty() {
        told.outcome = Outcome::Unknown;
    }
    told
}

/// An explanation that is being made.
struct Story<'a> {
    question: &'a Question,
    rules: &'a Rules,
    network: &'a dyn Network,
    mesh: &'a Mesh,
    told: Explanation,
}

/// How a connection's way ends.
enum End {
    Works(String),
    Passes(String),
    Stops(Outcome, String, Finding),
}

impl End {
    fn parts(self) -> (Outcome, String, Option<Finding>) {
        match self {
            Self::Works(headline) => (Outcome::Works, headline, None),
            Self::Passes(headline) => (Outcome::Passes, headline, None),
            Self::Stops(outcome, headline, finding) => (outcome, headline, Some(finding)),
        }
    }

    fn fails(headline: impl Into<String>, finding: Finding) -> Self {
        Self::Stops(Outcome::Fails, headline.into(), finding)
    }
}

impl<'a> Story<'a> {
    fn step(&mut self, stage: &'static str, says: impl Into<String>) {
        let says = says.into();
        self.told.steps.push(Step { stage, says });
    }

    fn remark(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.told.remarks.contains(&text) {
            self.told.remarks.push(text);
        }
    }

    fn snapshot(&self) -> Option<&'a Snapshot> {
        match self.mesh {
            Mesh::Known { snapshot, .. } => Some(snapshot),
            Mesh::Unknown { .. } | Mesh::Silent(_) => None,
        }
    }
}
