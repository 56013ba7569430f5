//! Virtual addresses for services whose manifests have none yet. They come from ranges that are reserved
//! and routed nowhere (240.240.0.0/16 of RFC 1112's class E; 2001:2::/48 of RFC 5180), which is also where
//! Istio takes them for its own services without an address.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::ObjectName;

use crate::parse::Family;

/// Which addresses are taken. The place of a service is a hash of its name, so that it keeps its address
/// over restarts; where two meet, the later one gets the next.
#[derive(Debug, Default)]
pub(super) struct VirtualAddresses {
    taken: BTreeMap<u16, ObjectName>,
    places: HashMap<ObjectName, u16>,
}

impl VirtualAddresses {
    /// One address for each family, IPv4 where none is given. None where all are taken.
    pub(super) fn take(&mut self, service: &ObjectName, families: &[Family]) -> Vec<IpAddr> {
        let Some(place) = self.place(service) else {
            return Vec::new();
        };
        let families = if families.is_empty() {
            &[Family::V4]
        } else {
            families
        };
        let address = |family: &Family| match family {
            Family::V4 => Ipv4Addr::from_bits(0xf0f0_0000 | u32::from(place)).into(),
            Family::V6 => Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, place).into(),
        };
        families.iter().map(address).collect()
    }

    /// Gives back what a service has taken, if anything.
    pub(super) fn release(&mut self, service: &ObjectName) {
        if let Some(place) = self.places.remove(service) {
            self.taken.remove(&place);
        }
    }

    fn place(&mut self, service: &ObjectName) -> Option<u16> {
        if let Some(place) = self.places.get(service) {
            return Some(*place);
        }
        let mut hasher = DefaultHasher::new();
        service.hash(&mut hasher);
        // The first and the last address of the range stay free.
        const PLACES: u64 = 65_534;
        let first = hasher.finish() % PLACES;
        let place = (0..PLACES)
            .filter_map(|step| u16::try_from((first + step) % PLACES + 1).ok())
            .find(|place| !self.taken.contains_key(place))?;
        self.taken.insert(place, service.clone());
        self.places.insert(service.clone(), place);
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_distinct_and_kept() {
        let mut all = VirtualAddresses::default();
        let name = |i: u32| ObjectName::new("a", format!("s{i}"));
        let mut seen = std::collections::BTreeSet::new();
        for i in 0..2000 {
            let given = all.take(&name(i), &[Family::V4, Family::V6]);
            assert_eq!(given.len(), 2);
            assert!(given.iter().all(|ip| seen.insert(*ip)));
            assert_eq!(all.take(&name(i), &[Family::V4, Family::V6]), given);
        }
        let before = all.take(&name(7), &[]);
        all.release(&name(7));
        assert_eq!(all.take(&name(7), &[]), before);
    }
}
