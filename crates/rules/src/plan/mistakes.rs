//! What stands against a plan.

use model::ErrorName;

use crate::cgroup;
use crate::family::Family;
use crate::intent::{Intent, Proxy, Signs, SocketMark, Tproxy, Tracking};
use crate::mistake::Mistake;

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

/// Signs that would never be seen.
pub(super) fn cgroup_mistakes(signs: &Signs, facts: &cgroup::Facts) -> Vec<Mistake> {
    let without_classes = facts.without_classes.as_ref();
    let classes = without_classes.filter(|_| !signs.class_ids.is_empty());
    let missing = signs.cgroups.iter().filter_map(|sign| {
        let why = match facts.ids.get(&sign.path) {
            Some(Ok(_)) => return None,
            Some(Err(why)) => why,
            None => "nobody has looked whether it is there",
        };
        Some(Mistake::new(cgroup::PATH_FLAG, format!("{}: {why}", sign.path)))
    });
    classes
        .map(|why| Mistake::new(cgroup::CLASS_FLAG, why))
        .into_iter()
        .chain(missing)
        .collect()
}

/// The signs, with the numbers of their cgroups.
pub(super) fn with_ids(signs: &Signs, facts: &cgroup::Facts) -> Signs {
    let mut signs = signs.clone();
    for cgroup in &mut signs.cgroups {
        cgroup.id = facts.ids.get(&cgroup.path).and_then(|id| id.clone().ok());
    }
    signs
}
