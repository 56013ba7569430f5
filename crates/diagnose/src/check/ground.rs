//! What the areas have in common: what is to be captured, and what the namespace holds of rules.

use netsys::route_to::{Question as To, route_to};
use netsys::rules::{Choice, Seen, Session, look, may_read};
use netsys::{cgroups, links};
use rules::intent::{Place, Proxy, Signs};
use rules::plan::{Stack, TproxyFacts};
use rules::{Facts, Family, Flags, Installed, Intent, asked};

use super::processes::Processes;
use super::{Question, Report};

/// The namespace and what is wanted of it.
pub(super) struct Ground {
    /// What is to be captured.
    pub(super) intent: Intent,
    /// Whether Weir's rules are there already.
    pub(super) has_rules: bool,
    /// What a plan has to know of the namespace; assumed where it could not be read.
    pub(super) facts: Facts,
    /// What would write the rules, a family each; none where that could not be told.
    pub(super) choices: Vec<Choice>,
    /// All that the packet filter holds; none where it could not be read.
    pub(super) installed: Option<Installed>,
    /// What is there and cannot be shown.
    pub(super) hidden: Vec<String>,
    /// Where what leaves the namespace goes, of each family that has a way out.
    pub(super) ways: Vec<Way>,
    /// Who runs in the namespace.
    pub(super) processes: Processes,
}

/// How packets of a family leave the namespace, and so come in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Way {
    /// The namespace's own address.
    pub(super) own: std::net::IpAddr,
    /// The device.
    pub(super) device: String,
}

/// Somewhere far away, of each family (documentation addresses: RFC 5737, RFC 3849).
pub(super) fn elsewhere(family: Family) -> std::net::IpAddr {
    match family {
        Family::V4 => std::net::Ipv4Addr::new(192, 0, 2, 1).into(),
        Family::V6 => std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    }
}

impl Ground {
    pub(super) fn find(question: &Question, report: &mut Report) -> Self {
        let session = may_read().and_then(|()| Session::open(question.backend));
        let kept = session.as_ref().ok().and_then(kept);
        let has_rules = kept.is_some();
        let (intent, by) = match (&question.intent, kept) {
            (Some(intent), _) => (intent.clone(), "the flags that were given"),
            (None, Some(intent)) => (intent, "what Weir's rules here were made from"),
            (None, None) => (everything(), "nothing said otherwise: as weir init --sidecar"),
        };
        report.looked("what is wanted", format!("{by}: {}", words(&intent)));
        let mut ground = Self {
            facts: assumed(&intent),
            intent,
            has_rules,
            choices: vec![],
            installed: None,
            hidden: vec![],
            ways: ways(),
            processes: Processes::find(report),
        };
        match session.and_then(|session| ground.read(&session)) {
            Ok(()) => {}
            Err(error) => report.skipped(
                "the rules in the namespace, and what would write them",
                format!("{}; run as root, or with CAP_NET_ADMIN", chain(&error)),
            ),
        }
        ground
    }

    fn read(&mut self, session: &Session) -> Result<(), netsys::rules::Error> {
        let cgroups = cgroups::facts(&self.intent);
        self.facts = Facts {
            cgroups,
            ..session.facts(&self.intent)?
        };
        let families = self.families();
        // A back-end that cannot be had is a mistake of the plan's, and told by it.
        self.choices = session.choices(&families).unwrap_or_default();
        let Seen { installed, hidden } = look()?;
        self.installed = Some(installed);
        self.hidden = hidden;
        Ok(())
    }

    /// Those that are to be captured.
    pub(super) fn families(&self) -> Vec<Family> {
        let stacks = [(Family::V4, &self.facts.ipv4), (Family::V6, &self.facts.ipv6)];
        let on = stacks.into_iter().filter(|(_, stack)| **stack != Stack::Off);
        on.map(|(family, _)| family).collect()
    }

    /// How the proxy is recognised, where it runs in the namespace.
    pub(super) fn signs(&self) -> Option<&Signs> {
        match &self.intent.proxy {
            Proxy::Inside(signs) => Some(signs),
            Proxy::Outside { .. } => None,
        }
    }
}

/// What the rules that are there keep of what they were made from.
fn kept(session: &Session) -> Option<Intent> {
    let words = session
        .installed()
        .find_map(|(_, ruleset)| asked::kept(ruleset))?;
    let (flags, _services) = asked::flags(&words)?;
    flags.intent().ok()
}

/// As most people want it; on a machine's own network as well.
fn everything() -> Intent {
    let flags = Flags {
        sidecar: true,
        host: true,
        ..Flags::default()
    };
    // The preset has no value that could be wrong.
    let mut intent = flags.intent().unwrap_or_else(|_| Intent::contained(vec![], None));
    intent.place = Place::Host;
    intent
}

fn words(intent: &Intent) -> String {
    asked::words(intent).unwrap_or_default()
}

/// What can be told without any right.
fn assumed(intent: &Intent) -> Facts {
    Facts {
        ipv4: Stack::On,
        ipv6: match links::ipv6_is_on() {
            Ok(true) => Stack::On,
            _ => Stack::Off,
        },
        physical_devices: links::physical_devices().unwrap_or_default(),
        cgroups: cgroups::facts(intent),
        tproxy: TproxyFacts::default(),
    }
}

/// Those of the calling thread's namespace.
pub(super) fn ways() -> Vec<Way> {
    Family::ALL.into_iter().filter_map(way).collect()
}

fn way(family: Family) -> Option<Way> {
    let to = To {
        to: elsewhere(family),
        mark: 0,
        uid: 0,
    };
    let route = route_to(to).ok()?;
    Some(Way {
        own: route.source?,
        device: route.device,
    })
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
