//! What stands against a plan.

use model::ErrorName;

use super::Family;
use crate::intent::{Intent, Proxy, SocketMark, Tproxy, Tracking};

/// Something that cannot be done as asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{flag}: {problem}")]
pub struct Mistake {
    /// Which kind it is.
    pub name: ErrorName,
    /// The flag, as people write it, or the fact that stands against it.
    pub flag: String,
    /// What is wrong and what to do.
    pub problem: String,
}

impl Mistake {
    pub(crate) fn new(flag: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::of(ErrorName::Setting, flag, problem)
    }

    /// One that has a name of its own.
    pub(crate) fn of(name: ErrorName, flag: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            name,
            flag: flag.into(),
            problem: problem.into(),
        }
    }
}

/// Marks that would be taken for each other.
pub(super) fn tproxy_mistakes(intent: &Intent) -> Option<Mistake> {
    let tproxy = intent.inbound.tproxy()?;
    let Proxy::Inside(signs) = &intent.proxy else {
        return Some(Mistake::of(
            ErrorName::CaptureMode,
            "TPROXY",
            "needs the proxy inside the namespace",
        ));
    };
    let used = [tproxy.mark, Tproxy::SELF_CALL, Tproxy::CLIENT];
    let used = &used[..if tproxy.tracking == Tracking::On { 2 } else { 3 }];
    let same = |sign: &&SocketMark| used.iter().any(|mark| sign.matches(mark.value));
    signs.marks.iter().find(same).map(|sign| {
        let used: Vec<_> = used.iter().map(SocketMark::to_string).collect();
        Mistake::of(
            ErrorName::MarkClash,
            "--proxy-mark",
            format!(
                "{sign} matches one of {}, which TPROXY puts on other packets; give another one, or none",
                used.join(", ")
            ),
        )
    })
}

pub(super) fn physical(devices: &[String]) -> Mistake {
    Mistake::of(
        ErrorName::HostNetwork,
        "--host",
        format!(
            "this network namespace holds a machine's own network device ({}), and capturing a machine's traffic \
             can cut you off from it. Give --netns to name another namespace, or --host if you mean this one \
             (then the change is undone after a minute unless you confirm it)",
            devices.join(", ")
        ),
    )
}

pub(super) fn uncapturable(family: Family, why: &str) -> Mistake {
    let off = match family {
        Family::V4 => "",
        Family::V6 => {
            ", or switch IPv6 off in the namespace (sysctl -w net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1)"
        }
    };
    Mistake::of(
        ErrorName::FamilyHole,
        family.to_string(),
        format!(
            "is on in this namespace but cannot be captured: {why}. Traffic would escape, so nothing was changed; mend that{off}"
        ),
    )
}
