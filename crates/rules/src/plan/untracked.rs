//! TPROXY with and without conntrack: what each kind takes of a namespace, which one it is to be, and how the
//! rules remember what of the namespace was changed for it.

use model::ErrorName;

use crate::family::Family;
use crate::intent::TRACKING_FLAG;
use crate::intent::{Tproxy, Tracking};
use crate::mistake::Mistake;
use crate::ruleset::Ruleset;

/// A switch of the kernel's by which marks pass from packets to what answers them: without conntrack there is
/// nothing else that could bring the application's answers to the proxy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Switch {
    /// A socket takes over the mark of the packet that opened its connection.
    Accept,
    /// An answer that no socket gives, such as the refusal of a connection, takes over its packet's mark.
    Reflect(Family),
}

impl Switch {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Accept, Self::Reflect(Family::V4), Self::Reflect(Family::V6)];

    /// As sysctl(8) calls it. One of them is for both families, whatever its name says.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accept => "net.ipv4.tcp_fwmark_accept",
            Self::Reflect(Family::V4) => "net.ipv4.fwmark_reflect",
            Self::Reflect(Family::V6) => "net.ipv6.fwmark_reflect",
        }
    }
}

/// What TPROXY finds in a namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TproxyFacts {
    /// What the kernel lacks for it, if it lacks anything.
    pub lacks: Option<String>,
    /// The switches that are for Weir to set and to put back, or why conntrack cannot be kept out.
    pub untracked: Result<Vec<Switch>, String>,
    /// Whether the kernel may answer clients by SYN cookies where iptables holds the rules: see [`TproxyKind`].
    pub syn_cookies_by_iptables: bool,
}

impl Default for TproxyFacts {
    /// All is possible, and no switch is on.
    fn default() -> Self {
        Self {
            lacks: None,
            untracked: Ok(Switch::ALL.to_vec()),
            syn_cookies_by_iptables: false,
        }
    }
}

/// Which of the two kinds it is. Without conntrack, iptables cannot tell a connection's socket from one that listens
/// at its very address, so that it leaves a handshake that is kept in a SYN cookie to the latter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TproxyKind {
    /// Whether conntrack follows what is captured.
    pub is_tracked: bool,
    /// One clause for people.
    pub why: String,
}

/// Which kind it is to be here.
pub(super) fn kind(tproxy: Tproxy, facts: &TproxyFacts) -> Result<TproxyKind, Mistake> {
    if let Some(lack) = &facts.lacks {
        return Err(Mistake::of(
            ErrorName::CaptureMode,
            "-m (--istio-inbound-interception-mode)",
            format!("TPROXY is not possible here: {lack}"),
        ));
    }
    let of = |is_tracked, why: &str| {
        Ok(TproxyKind {
            is_tracked,
            why: why.to_owned(),
        })
    };
    match (tproxy.tracking, &facts.untracked) {
        (Tracking::On, _) => of(
            true,
            &format!("as with istio-iptables; {TRACKING_FLAG} off makes no entries"),
        ),
        (Tracking::Off, Ok(_)) => of(false, "asked for"),
        (Tracking::OffIfPossible, Ok(_)) => of(false, "possible here"),
        (Tracking::OffIfPossible, Err(why)) => of(true, &format!("it cannot be kept out here: {why}")),
        (Tracking::Off, Err(why)) => Err(Mistake::of(
            ErrorName::CaptureMode,
            TRACKING_FLAG,
            format!("off is not possible here: {why}. Mend that, or write auto or on"),
        )),
    }
}

/// The purposes that also remember who set a switch, for the clean-up: no file has to.
const ACCEPT_OURS: &str = "proxy to its clients; tcp_fwmark_accept set by weir";
const REFLECT_OURS: &str = "proxy and application; fwmark_reflect set by weir";

/// What the rule says that is about the mark of that switch.
pub(super) fn purpose(switch: Switch, is_ours: bool) -> &'static str {
    match (switch, is_ours) {
        (Switch::Accept, true) => ACCEPT_OURS,
        (Switch::Accept, false) => "proxy to its clients",
        (Switch::Reflect(_), true) => REFLECT_OURS,
        (Switch::Reflect(_), false) => "proxy and application",
    }
}

/// The switches that the rules say Weir has set.
#[must_use]
pub fn remembered(ruleset: &Ruleset) -> Vec<Switch> {
    let all = ruleset.purposes().filter_map(|purpose| match purpose {
        ACCEPT_OURS => Some(Switch::Accept),
        REFLECT_OURS => Some(Switch::Reflect(ruleset.family)),
        _ => None,
    });
    all.collect()
}
