//! What the text encoders made of the chunks of earlier prompts: bounded in bytes, the least recently used leaves first.
//!
//! An encoder's answer depends on the tokens alone, so that a picture has the same bits with and without.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tch::Tensor;

use crate::diffusion::{
    byte_lru::ByteLru,
    layers::Result,
    models::clip::{HiddenLayer, TextOutput},
};
use crate::dispatch::ports::PromptLookups;

/// How much of it a model keeps, and who counts.
#[derive(Debug, Clone, Default)]
pub(in crate::diffusion) struct PromptCachePolicy {
    /// The most bytes of hidden states, of each model; 0 keeps nothing.
    pub(in crate::diffusion) bytes: u64,
    /// The most bytes of the UNet's keys and values, of each model; 0 keeps nothing.
    pub(in crate::diffusion) kv_bytes: u64,
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
