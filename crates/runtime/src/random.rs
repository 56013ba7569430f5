//! Random bits for balancing, jitter and request ids: fast, one source per worker, not for secrets.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// SplitMix64 (Steele, Lea and Flood, 2014): every seed gives the full period of 2^64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Seeded by the operating system.
    #[must_use]
    pub fn from_system() -> Self {
        // The standard library seeds its hasher from getrandom(2), and differs from call to call.
        Self(RandomState::new().hash_one(0u8))
    }

    /// The same seed yields the same numbers.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_and_distinct_seeds() {
        // The first outputs for seed 0, as every implementation of SplitMix64 gives them.
        let mut random = Random::from_seed(0);
        assert_eq!(random.bits(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.bits(), 0x6e78_9e6a_a1b9_65f4);
        assert_ne!(Random::from_system().bits(), Random::from_system().bits());
    }
}
