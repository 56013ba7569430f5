//! Who owns an address. Several may claim one; the lowest owner has it, whatever the order in which the
//! claims came, so that the same manifests always give the same snapshot.

use std::collections::HashMap;
use std::hash::Hash;

use crate::cow::CowMap;

/// Claims on keys `K` by owners `O`, and the value that each key has by its lowest owner.
#[derive(Debug)]
pub(crate) struct Claims<K, O, V> {
    /// Each list sorted by owner, never empty.
    all: HashMap<K, Vec<(O, V)>>,
    won: CowMap<K, V>,
}

impl<K: Hash + Eq + Clone, O: Ord, V: Clone> Claims<K, O, V> {
    /// Claims a key, or replaces the owner's earlier claim on it.
    pub(crate) fn put(&mut self, key: K, owner: O, value: V) {
        let list = self.all.entry(key.clone()).or_default();
        match list.binary_search_by(|(other, _)| other.cmp(&owner)) {
            Ok(place) => list[place].1 = value,
            Err(place) => list.insert(place, (owner, value)),
        }
        if let Some((_, winner)) = list.first() {
            self.won.insert(key, winner.clone());
        }
    }

    /// Withdraws a claim, if there is one.
    pub(crate) fn withdraw(&mut self, key: &K, owner: &O) {
        let Some(list) = self.all.get_mut(key) else { return };
        let Ok(place) = list.binary_search_by(|(other, _)| other.cmp(owner)) else {
            return;
        };
        list.remove(place);
        match list.first() {
            Some((_, winner)) => self.won.insert(key.clone(), winner.clone()),
            None => {
                self.all.remove(key);
                self.won.remove(key);
            }
        }
    }

    /// The value of each claimed key.
    pub(crate) fn won(&self) -> &CowMap<K, V> {
        &self.won
    }
}

impl<K, O, V> Default for Claims<K, O, V> {
    fn default() -> Self {
        Self {
            all: HashMap::default(),
            won: CowMap::default(),
        }
    }
}
