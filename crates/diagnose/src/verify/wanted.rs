//! What is asked, what should hold by it, and why that cannot be said.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use netsys::netlink;
use netsys::probe::Addresses;
use netsys::rules::{Backend, Session};
use rules::intent::Place;
use rules::plan::Stack;
use rules::ruleset::Test;
use rules::{Facts, Family, Intent, Plan, Ruleset, asked};

use crate::place::Shell;

/// What is to be verified.
#[derive(Clone, Debug)]
pub struct Question {
    /// What was asked for; without it, what the rules keep of it.
    pub intent: Option<Intent>,
    /// Whether no proxy is meant to run yet, so that its absence is no finding.
    pub before_proxy: bool,
    /// How long the proxy may take to answer; the kernel is given less.
    pub patience: Duration,
    /// How what is printed to be run gets into the namespace.
    pub shell: Shell,
}

/// Why nothing could be verified.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody says what should hold.
    #[error(
        "nothing is captured here: there is no rule of Weir's in this namespace; to have it verified against flags of \
         weir init, give them after `--`: weir verify -- --sidecar"
    )]
    NothingInstalled,
    /// The rules do not say what they are for.
    #[error(
        "Weir's rules are here, but what they were made from is not, or was written by another version; give the flags \
         of weir init after `--`: weir verify -- --sidecar"
    )]
    NothingAsked,
    /// The flags ask for nothing.
    #[error("nothing is to be captured by these flags, so there is nothing to verify")]
    NothingWanted,
    /// It cannot be done here.
    #[error("{0}")]
    Mistaken(String),
    /// The rules could not be read.
    #[error("cannot read the rules")]
    Rules(#[from] netsys::rules::Error),
    /// The wire could not be laid.
    #[error(
        "cannot lay the probes' wire: that needs CAP_NET_ADMIN and CAP_NET_RAW here (securityContext.capabilities.add: \
         [NET_ADMIN, NET_RAW]), and a kernel with veth"
    )]
    Wire(#[from] netlink::Error),
    /// A socket failed.
    #[error("cannot send or see packets: that needs CAP_NET_ADMIN and CAP_NET_RAW")]
    Socket(#[from] io::Error),
}

/// What should hold here.
pub(super) struct Wanted {
    pub(super) intent: Intent,
    pub(super) plan: Plan,
    /// A rule for each member of a list, whatever the back-end.
    pub(super) rules: Vec<Ruleset>,
    /// Those that the namespace speaks.
    pub(super) families: Vec<Family>,
    pub(super) asked: String,
    pub(super) asked_by: String,
    /// What puts it back, to be pasted.
    pub(super) remedy: String,
    pub(super) notes: Vec<String>,
}

impl Wanted {
    pub(super) fn find(question: &Question, session: &Session) -> Result<Self, Error> {
        let mut notes = vec![];
        let (mut intent, asked_by) = match &question.intent {
            Some(intent) => (intent.clone(), "by the flags given here".to_owned()),
            None => (kept(session, &mut notes)?, "kept with the rules".to_owned()),
        };
        let asked = asked::words(&intent).unwrap_or_default();
        // It is looked at and not changed.
        intent.place = Place::Host;
        if intent.captures_nothing() {
            return Err(Error::NothingWanted);
        }
        let facts = Facts {
            cgroups: netsys::cgroups::facts(&intent),
            ..session.facts(&intent)?
        };
        let plan = rules::plan(&intent, &facts).map_err(|mistakes| {
            let all: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
            Error::Mistaken(all.join("; "))
        })?;
        let speaks = |family: &&Family| **family == Family::V4 || facts.ipv6 != Stack::Off;
        let families = plan.families.iter().filter(speaks).copied().collect();
        notes.extend(plan.notes.iter().cloned());
        Ok(Self {
            rules: rules::render(&plan),
            remedy: asked::command(&asked, &question.shell),
            asked,
            intent,
            plan,
            families,
            asked_by,
            notes,
        })
    }

    pub(super) fn rules(&self, family: Family) -> Option<&Ruleset> {
        self.rules.iter().find(|ruleset| ruleset.family == family)
    }

    /// Addresses for the wire that the flags do not leave alone.
    pub(super) fn addresses(&self) -> Addresses {
        let excluded = &self.intent.outbound.exclude_cidrs;
        let is_plain = |addresses: &Addresses| {
            Family::ALL.iter().all(|family| {
                let ends = [
                    addresses.near(*family),
                    addresses.far(*family),
                    addresses.elsewhere(*family),
                ];
                let sources = &self.intent.inbound.exclude_sources;
                let mut nets = excluded.iter().chain(sources);
                !nets.any(|net| ends.iter().any(|ip| net.contains(ip)))
            })
        };
        let mut choices = Addresses::CHOICES.into_iter();
        choices.find(is_plain).unwrap_or(Addresses::CHOICES[0])
    }
}

/// What was asked for when the rules were written.
fn kept(session: &Session, notes: &mut Vec<String>) -> Result<Intent, Error> {
    let own = session.own();
    if own.rules.is_empty() {
        return Err(Error::NothingInstalled);
    }
    let words = own.rules.iter().find_map(|(_, ruleset)| asked::kept(ruleset));
    let (flags, has_services) = words
        .as_deref()
        .and_then(asked::flags)
        .ok_or(Error::NothingAsked)?;
    let mut intent = flags.intent().map_err(|_| Error::NothingAsked)?;
    if has_services {
        intent.outbound.services = Some(services(&own.rules));
        notes.push(
            "which services are captured is taken from the rules themselves, as the flags do not say"
                .to_owned(),
        );
    }
    Ok(intent)
}

/// The services that rules capture exactly.
fn services(own: &[(Backend, Ruleset)]) -> Vec<SocketAddr> {
    let tables = own.iter().flat_map(|(_, ruleset)| &ruleset.tables);
    let rules = tables
        .flat_map(|table| &table.chains)
        .flat_map(|chain| &chain.rules);
    let tests = rules.flat_map(|rule| &rule.matches);
    let services = tests.filter_map(|found| match &found.test {
        Test::DestinationServices(services) => Some(services),
        _ => None,
    });
    services.flatten().copied().collect()
}
