//! Values by key, bounded in bytes: the least recently used leaves first.

use std::hash::Hash;

use lru::LruCache;

/// Values that together take no more than so many bytes.
#[derive(Debug)]
pub(super) struct ByteLru<K: Hash + Eq, V> {
    entries: LruCache<K, (V, u64)>,
    /// Of all entries.
    bytes: u64,
    bound: u64,
}

impl<K: Hash + Eq, V> ByteLru<K, V> {
    /// Without any yet.
    pub(super) fn new(bound: u64) -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0, bound }
    }

    /// A value, which is the most recently used one from now on.
    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }

    /// Keeps a value of so many bytes, unless it is larger than the bound by itself.
    pub(super) fn put(&mut self, key: K, value: V, bytes: u64) {
        if bytes > self.bound {
            return;
        }
        let replaced = self.entries.put(key, (value, bytes));
        self.bytes = self.bytes - replaced.map_or(0, |(_, bytes)| bytes) + bytes;
        while self.bytes > self.bound
            && let Some((_, (_, bytes))) = self.entries.pop_lru()
        {
            self.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(cache: &ByteLru<&'static str, u64>) -> Vec<&'static str> {
        cache.entries.iter().map(|(key, _)| *key).collect()
    }

    #[test]
    fn the_least_recently_used_leaves_first_and_no_more_than_must() {
        let mut cache = ByteLru::new(10);
        for key in ["a", "b", "c"] {
            cache.put(key, 0, 3);
        }
        assert_eq!(cache.get(&"a"), Some(&0));
        cache.put("d", 0, 4);
        assert_eq!((kept(&cache), cache.bytes), (vec!["d", "a", "c"], 10));
        cache.put("e", 0, 1);
        assert_eq!((kept(&cache), cache.bytes), (vec!["e", "d", "a"], 8));
    }

    #[test]
    fn what_is_larger_than_the_bound_is_not_kept_and_makes_nobody_leave() {
        let mut cache = ByteLru::new(10);
        cache.put("a", 0, 10);
        cache.put("b", 0, 11);
        assert_eq!(kept(&cache), ["a"]);
        let mut off = ByteLru::new(0);
        off.put("a", 0, 1);
        assert_eq!(kept(&off), [""; 0]);
    }

    proptest! {
        #[test]
        fn the_bound_holds_and_the_sum_is_that_of_what_is_kept(puts in prop::collection::vec((0..6_u8, 0..40_u64), 0..60), bound in 0..100_u64) {
            let mut cache = ByteLru::new(bound);
            for (key, bytes) in puts {
                cache.put(key, (), bytes);
                prop_assert!(cache.bytes <= bound);
                prop_assert_eq!(cache.entries.iter().map(|(_, (_, bytes))| bytes).sum::<u64>(), cache.bytes);
            }
        }
    }
}
