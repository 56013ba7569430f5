//! Who sends: the application, the proxy by each of its signs, and everybody whom rules speak of.

use netsys::probe::Owner;
use rules::intent::{Proxy, Selection, Signs};

use super::super::seats::Seat;
use super::list::List;
use super::places::MOST;

impl<'a> List<'a> {
    pub(super) fn signs(&self) -> Signs {
        match &self.ground.intent.proxy {
            Proxy::Inside(signs) => signs.clone(),
            Proxy::Outside { mark, .. } => Signs {
                marks: mark.iter().copied().collect(),
                ..Signs::default()
            },
        }
    }

    /// One who is not the proxy, and whose connections are captured where groups decide about that.
    pub(super) fn application(&self) -> Owner {
        const IDS: [u32; 4] = [0, 65_534, 4_242, 4_243];
        let signs = self.signs();
        let outbound = &self.ground.intent.outbound;
        let uid = IDS.into_iter().find(|id| !signs.uids.contains(id));
        let gids = match &outbound.groups {
            Selection::Only(groups) => groups.clone(),
            Selection::All => IDS.to_vec(),
        };
        let of_another = |id: &u32| !signs.gids.contains(id) && !outbound.exclude_groups.contains(id);
        let gid = gids.into_iter().find(of_another);
        let owner = Owner {
            uid: uid.unwrap_or(IDS[3]),
            gid: gid.unwrap_or(IDS[3]),
            mark: 0,
        };
        if (self.ground.can_be)(owner) {
            owner
        } else {
            netsys::probe::myself()
        }
    }

    /// The proxy, by each of its signs.
    pub(super) fn proxies(&self) -> Vec<Owner> {
        let application = self.application();
        let Signs {
            uids, gids, marks, ..
        } = self.signs();
        let both = uids.first().zip(gids.first());
        let both = both.map(|(&uid, &gid)| Owner {
            uid,
            gid,
            ..application
        });
        let mut all: Vec<_> = both.into_iter().collect();
        all.extend(uids.iter().map(|&uid| Owner { uid, ..application }));
        all.extend(gids.iter().map(|&gid| Owner { gid, ..application }));
        all.extend(marks.iter().map(|mark| Owner {
            mark: mark.value,
            ..application
        }));
        all.retain(|owner| (self.ground.can_be)(*owner));
        all
    }

    /// Everybody that makes a difference, with the cgroup if that does. The first one is the application.
    pub(super) fn everybody(&self) -> Vec<(Owner, Option<&'a Seat>)> {
        let owners = self.owners().into_iter().map(|owner| (owner, None));
        let application = self.application();
        let seats = self.ground.seats.iter().map(|seat| (application, Some(seat)));
        owners.chain(seats).collect()
    }

    /// Every user, group and mark that makes a difference.
    fn owners(&self) -> Vec<Owner> {
        let application = self.application();
        let outbound = &self.ground.intent.outbound;
        let beyond = self.ground.beyond;
        let mut gids = outbound.exclude_groups.clone();
        if let Selection::Only(groups) = &outbound.groups {
            gids.extend(groups);
            // And somebody of none of them.
            gids.push(4_242);
        }
        gids.extend(beyond.gids.iter().take(MOST));
        let marks = beyond.marks.iter().copied().take(MOST);
        let mut all = vec![application];
        all.extend(self.proxies());
        all.extend(gids.into_iter().map(|gid| Owner { gid, ..application }));
        let uids = beyond.uids.iter().take(MOST);
        all.extend(uids.map(|&uid| Owner { uid, ..application }));
        all.extend(marks.map(|mark| Owner { mark, ..application }));
        all.retain(|owner| (self.ground.can_be)(*owner));
        all
    }

    pub(super) fn is_beyond(&self, owner: Owner) -> bool {
        let beyond = self.ground.beyond;
        beyond.uids.contains(&owner.uid)
            || beyond.gids.contains(&owner.gid)
            || (owner.mark != 0 && beyond.marks.contains(&owner.mark))
    }
}
