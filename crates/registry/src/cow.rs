//! A map that is cheap to copy: a copy shares everything, and a write to one copy duplicates one shard of
//! many. [`crate::Table`] writes to its own, each [`crate::Snapshot`] holds a copy.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hash};
use std::sync::Arc;

/// Keys come from the cluster's administrator, so a hasher with fixed keys is no risk.
type Hasher = BuildHasherDefault<DefaultHasher>;
type Shard<K, V> = Arc<HashMap<K, V, Hasher>>;

/// With 10,000 entries a shard holds about 40: what one write duplicates.
const SHARDS: usize = 256;

/// A map whose copies share what neither has changed since.
pub struct CowMap<K, V> {
    shards: Arc<[Shard<K, V>]>,
    len: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> CowMap<K, V> {
    /// The value of a key.
    #[must_use]
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shards.get(shard_of(key))?.get(key)
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// All values, in no particular order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        let shard = self.shard_mut(&key);
        if shard.insert(key, value).is_none() {
            self.len += 1;
        }
    }

    pub(crate) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        if self.get(key).is_some() {
            self.shard_mut(key).remove(key);
            self.len -= 1;
        }
    }

    fn shard_mut<Q: Hash + ?Sized>(&mut self, key: &Q) -> &mut HashMap<K, V, Hasher> {
        let shards = Arc::make_mut(&mut self.shards);
        Arc::make_mut(&mut shards[shard_of(key)])
    }
}

/// From the middle of the hash: within a shard the map itself uses both ends.
fn shard_of<Q: Hash + ?Sized>(key: &Q) -> usize {
    (Hasher::default().hash_one(key) >> 32) as usize % SHARDS
}

impl<K, V> Default for CowMap<K, V> {
    fn default() -> Self {
        let empty: Shard<K, V> = Arc::default();
        Self {
            shards: (0..SHARDS).map(|_| Arc::clone(&empty)).collect(),
            len: 0,
        }
    }
}

impl<K, V> Clone for CowMap<K, V> {
    fn clone(&self) -> Self {
        Self {
            shards: Arc::clone(&self.shards),
            len: self.len,
        }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for CowMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.shards.iter().flat_map(|shard| shard.iter()))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_not_changed_by_later_writes() {
        let mut map = CowMap::default();
        for n in 0..1000_u32 {
            map.insert(n, n);
        }
        let copy = map.clone();
        for n in 0..500 {
            map.remove(&n);
            map.insert(n + 500, 0);
            map.insert(n + 5000, 1);
        }
        map.remove(&77_777);
        assert_eq!((map.len(), copy.len()), (1000, 1000));
        assert!((0..1000).all(|n| copy.get(&n) == Some(&n)));
        assert!((0..500).all(|n| map.get(&n).is_none() && map.get(&(n + 500)) == Some(&0)));
        assert_eq!(map.iter().count(), 1000);
    }
}
