//! The cgroups that are signs of the proxy, and whether a probe can be sent from them.

use std::path::PathBuf;

use netsys::cgroups::{folder, folder_of_class};
use netsys::probe::in_cgroup;
use rules::Intent;
use rules::cgroup::Membership;
use rules::intent::Proxy;

/// A cgroup to send from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Seat {
    /// For people: `cgroup a/b`, `class id 0x100001`.
    pub(super) name: String,
    /// What rules see of it.
    pub(super) cgroups: Membership,
    /// Where it is.
    pub(super) folder: PathBuf,
}

/// Those that the flags name, and in words those that nothing can be sent from, each with the reason.
pub(super) fn find(intent: &Intent) -> (Vec<Seat>, Vec<String>) {
    let Proxy::Inside(signs) = &intent.proxy else {
        return (vec![], vec![]);
    };
    let classes = signs.class_ids.iter().map(|id| {
        let cgroups = Membership {
            class_id: Some(id.0),
            ..Membership::none()
        };
        (format!("class id {id}"), cgroups, folder_of_class(*id))
    });
    let paths = signs.cgroups.iter().map(|cgroup| {
        let cgroups = Membership {
            path: Some(format!("/{}", cgroup.path)),
            ..Membership::none()
        };
        (format!("cgroup {}", cgroup.path), cgroups, folder(&cgroup.path))
    });
    let (mut seats, mut lacking) = (vec![], vec![]);
    for (name, cgroups, folder) in classes.chain(paths) {
        let tried = folder.and_then(|folder| {
            let moved = in_cgroup(&folder, || Ok(()));
            let refused = |error| format!("no process can be moved to {}: {error}", folder.display());
            moved.map(|()| folder.clone()).map_err(refused)
        });
        match tried {
            Ok(folder) => seats.push(Seat {
                name,
                cgroups,
                folder,
            }),
            Err(why) => lacking.push(format!("what is sent from {name}, a sign of the proxy: {why}")),
        }
    }
    (seats, lacking)
}
