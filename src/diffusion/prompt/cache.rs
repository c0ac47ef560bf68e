//! What the text encoders made of the chunks of earlier prompts: bounded in bytes, the least recently used leaves first.
//!
//! An encoder's answer depends on the tokens alone, so that a picture has the same bits with and without.

use std::{
    cell::RefCell,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use lru::LruCache;
use tch::Tensor;

use crate::diffusion::{
    layers::Result,
    models::clip::{HiddenLayer, TextOutput},
};
use crate::dispatch::ports::PromptLookups;

/// How much of it a model keeps, and who counts.
#[derive(Debug, Clone, Default)]
pub(in crate::diffusion) struct PromptCachePolicy {
    /// The most bytes of hidden states, of each model; 0 keeps nothing.
    pub(in crate::diffusion) bytes: u64,
    /// Of all models.
    pub(in crate::diffusion) lookups: Arc<Lookups>,
}

/// Chunks that were looked for since somebody last took the numbers away.
#[derive(Debug, Default)]
pub(in crate::diffusion) struct Lookups {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Lookups {
    /// Takes the numbers away.
    pub(in crate::diffusion) fn take(&self) -> PromptLookups {
        PromptLookups { hits: self.hits.swap(0, Ordering::Relaxed), misses: self.misses.swap(0, Ordering::Relaxed) }
    }
}

/// All that a text encoder's answer depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ChunkKey {
    pub(super) tower: usize,
    pub(super) ids: Vec<i64>,
    pub(super) layer: HiddenLayer,
}

/// The answers of one model's text encoders. They leave the device with it.
pub(super) struct PromptCache {
    known: RefCell<ByteLru<ChunkKey, TextOutput>>,
    lookups: Arc<Lookups>,
}

impl PromptCache {
    pub(super) fn new(policy: PromptCachePolicy) -> Self {
        Self { known: RefCell::new(ByteLru::new(policy.bytes)), lookups: policy.lookups }
    }

    /// What the encoder made of the chunk, now or earlier.
    ///
    /// # Errors
    /// When the encoder fails; the next lookup asks it again.
    pub(super) fn output(&self, key: &ChunkKey, encode: impl FnOnce() -> Result<TextOutput>) -> Result<TextOutput> {
        if let Some(output) = self.known.borrow_mut().get(key) {
            self.lookups.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(output.shallow_clone());
        }
        self.lookups.misses.fetch_add(1, Ordering::Relaxed);
        let output = encode()?;
        let bytes = size_of_val(key.ids.as_slice()) as u64 + bytes_of(&output);
        self.known.borrow_mut().put(key.clone(), output.shallow_clone(), bytes);
        Ok(output)
    }
}

fn bytes_of(output: &TextOutput) -> u64 {
    let bytes = |tensor: &Tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64;
    bytes(&output.hidden) + output.pooled.as_ref().map_or(0, bytes)
}

/// Values that together take no more than so many bytes.
struct ByteLru<K, V> {
    entries: LruCache<K, (V, u64)>,
    /// Of all entries.
    bytes: u64,
    bound: u64,
}

impl<K: Hash + Eq, V> ByteLru<K, V> {
    fn new(bound: u64) -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0, bound }
    }

    /// A value, which is the most recently used one from now on.
    fn get(&mut self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }

    /// Keeps a value of so many bytes, unless it is larger than the bound by itself.
    fn put(&mut self, key: K, value: V, bytes: u64) {
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
