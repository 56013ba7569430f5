//! Packets that a rule of somebody else's is about which asks for several things at once.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use netsys::probe::Owner;
use rules::Mentions;

use super::list::List;
use super::places::MOST;

/// Values of one kind that are tried of what one rule speaks of.
const FEW: usize = 3;

impl List<'_> {
    /// Packets of which everything is true that one rule asks for.
    pub(super) fn by_rule(&mut self) {
        for mentions in self.ground.by_rule.iter().take(MOST) {
            let mut ports: Vec<u16> = mentions.ports.iter().copied().take(FEW).collect();
            if ports.is_empty() {
                ports.push(self.ground.free[0]);
            }
            let mut to: Vec<IpAddr> = mentions
                .destinations
                .iter()
                .flat_map(|net| self.fit_of(*net))
                .collect();
            to.truncate(FEW);
            if to.is_empty() {
                to.extend([self.far(), self.near()]);
            }
            let mut from: Vec<IpAddr> = mentions
                .sources
                .iter()
                .flat_map(|net| self.fit_of(*net))
                .collect();
            from.retain(|ip| !ip.is_loopback() && !self.ground.own.contains(ip));
            from.truncate(FEW);
            if from.is_empty() {
                from.push(self.far());
            }
            let owners = self.owners_of(mentions);
            let devices = self.ground.devices.iter();
            let by: Vec<_> = devices
                .filter(|device| mentions.devices.contains(&device.asked))
                .collect();
            for to in to
                .iter()
                .flat_map(|ip| ports.iter().map(|port| SocketAddr::new(*ip, *port)))
            {
                let (stays, is_far) = (self.stays(to.ip()), to.ip() == self.far());
                for owner in owners.iter().filter(|owner| owner.mark == 0 || stays || is_far) {
                    self.add(true, self.made(*owner, to));
                }
                let is_called = stays && !to.ip().is_loopback();
                // What is answered to others from an address of its own would leave.
                let is_own = self.ground.own.contains(&to.ip()) && to.ip() != self.near();
                let far = self.far();
                for from in from.iter().filter(|from| is_called && (!is_own || **from == far)) {
                    self.add(true, self.remote(*from, to));
                }
                for device in &by {
                    let leaves = !stays && device.lets_leave(self.family);
                    for owner in owners.iter().filter(|owner| leaves && owner.mark == 0) {
                        self.add(true, self.leaving(device, *owner, to));
                    }
                    if is_called && device.lets_come(self.family) && from.contains(&far) {
                        self.add(true, self.coming(device, to));
                    }
                }
            }
        }
    }

    /// Whoever a rule could mean; the application where it means nobody.
    fn owners_of(&self, mentions: &Mentions) -> Vec<Owner> {
        let application = self.application();
        let mut all = vec![application];
        let or_own = |ids: Vec<u32>, own: u32| if ids.is_empty() { vec![own] } else { ids };
        let few = |ids: &BTreeSet<u32>| ids.iter().copied().take(FEW).collect::<Vec<_>>();
        for uid in or_own(few(&mentions.uids), application.uid) {
            for gid in or_own(few(&mentions.gids), application.gid) {
                for mark in or_own(few(&mentions.marks), 0) {
                    all.push(Owner { uid, gid, mark });
                }
            }
        }
        all.dedup();
        all.retain(|owner| (self.ground.can_be)(*owner));
        all
    }
}
