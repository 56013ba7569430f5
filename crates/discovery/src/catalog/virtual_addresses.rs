//! Automatic addresses: virtual ones for services whose manifests have none. They come from ranges that are
//! reserved and routed nowhere (240.240.0.0/16 of RFC 1112's class E; 2001:2::/48 of RFC 5180), which is also
//! where Istio takes them for its own services without an address.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::ObjectName;

use crate::parse::Family;

/// How many places there are: the first and the last address of the range stay free.
const PLACES: u16 = 65_534;

/// Which addresses are taken. The place of a service is a hash of its name, so that every proxy gives it the
/// same, also after a restart. Where two meet, whoever has the place keeps it and the other gets the next free
/// one: traffic to an address never becomes another service's because a service was added.
#[derive(Debug, Default)]
pub(super) struct VirtualAddresses {
    taken: BTreeMap<u16, ObjectName>,
    places: HashMap<ObjectName, u16>,
}

impl VirtualAddresses {
    /// Gives a service a place, if it has none yet. None where all are taken; those of which an address
    /// `is_claimed` by a manifest are.
    pub(super) fn take(&mut self, service: &ObjectName, is_claimed: impl Fn(&IpAddr) -> bool) {
        if self.places.contains_key(service) {
            return;
        }
        let first = home(service);
        let mut ring = (first..=PLACES).chain(1..first);
        let is_free = |place: &u16| {
            let mut both = [Family::V4, Family::V6].into_iter();
            !self.taken.contains_key(place) && !both.any(|family| is_claimed(&address(family, *place)))
        };
        if let Some(place) = ring.find(is_free) {
            self.taken.insert(place, service.clone());
            self.places.insert(service.clone(), place);
        }
    }

    /// The addresses of a service: one for each family, IPv4 where none is given. None where it has no place.
    pub(super) fn of(&self, service: &ObjectName, families: &[Family]) -> Vec<IpAddr> {
        let Some(&place) = self.places.get(service) else {
            return Vec::new();
        };
        let families = if families.is_empty() {
            &[Family::V4]
        } else {
            families
        };
        families.iter().map(|&family| address(family, place)).collect()
    }

    /// Gives back what a service has taken, if anything.
    pub(super) fn release(&mut self, service: &ObjectName) {
        if let Some(place) = self.places.remove(service) {
            self.taken.remove(&place);
        }
    }
}

fn address(family: Family, place: u16) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(0xf0f0_0000 | u32::from(place)).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, place).into(),
    }
}

/// The place that a service has where it is alone, from 1 to `PLACES`. By FNV-1a, which stays what it is; the
/// standard library's hash may change with its next release.
fn home(service: &ObjectName) -> u16 {
    let ObjectName { namespace, name } = service;
    let bytes = namespace.bytes().chain([b'/']).chain(name.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The rest is below PLACES.
    1 + u16::try_from(hash % u64::from(PLACES)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Family; 2] = [Family::V4, Family::V6];

    fn name(i: u32) -> ObjectName {
        ObjectName::new("a", format!("s{i}"))
    }

    #[test]
    fn addresses_are_distinct_and_kept() {
        let mut all = VirtualAddresses::default();
        let mut seen = std::collections::BTreeSet::new();
        for i in 0..2000 {
            all.take(&name(i), |_| false);
            let given = all.of(&name(i), &BOTH);
            assert_eq!(given.len(), 2);
            assert!(given.iter().all(|ip| seen.insert(*ip)));
        }
        let before: Vec<_> = (0..2000).map(|i| all.of(&name(i), &BOTH)).collect();
        all.release(&name(7));
        assert!(all.of(&name(7), &[]).is_empty());
        all.take(&name(7), |_| false);
        for i in 0..2000 {
            all.take(&name(i), |_| false);
        }
        assert!((0..2000).all(|i| all.of(&name(i), &BOTH) == before[i as usize]));
    }

    #[test]
    fn a_name_alone_has_always_the_same() {
        for (namespace, service, expected) in [
            ("sidecar", "nginx", "240.240.184.102"),
            ("default", "db", "240.240.221.76"),
        ] {
            let mut all = VirtualAddresses::default();
            let name = ObjectName::new(namespace, service);
            all.take(&name, |_| false);
            assert_eq!(all.of(&name, &[])[0].to_string(), expected);
        }
    }

    #[test]
    fn who_comes_later_goes_round_whoever_is_there() {
        // Two whose hashes meet.
        let mut homes = HashMap::new();
        let (one, other) = (0..)
            .find_map(|i| {
                homes
                    .insert(home(&name(i)), i)
                    .map(|earlier| (name(earlier), name(i)))
            })
            .unwrap();
        let mut all = VirtualAddresses::default();
        all.take(&other, |_| false);
        let before = all.of(&other, &BOTH);
        all.take(&one, |_| false);
        assert_eq!(all.of(&other, &BOTH), before);
        assert_ne!(all.of(&one, &BOTH), before);
        all.release(&other);
        all.take(&other, |ip| before.contains(ip));
        assert!(
            !all.of(&other, &BOTH).iter().any(|ip| before.contains(ip)),
            "claimed"
        );
    }

    #[test]
    fn a_full_range_has_no_more() {
        let mut all = VirtualAddresses::default();
        for i in 0..=u32::from(PLACES) {
            all.take(&name(i), |_| false);
        }
        let without = (0..=u32::from(PLACES)).filter(|&i| all.of(&name(i), &[]).is_empty());
        assert_eq!(without.count(), 1);
    }
}
