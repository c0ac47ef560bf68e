//! The keys and values of prompts, which a UNet's cross-attentions look at in every call: made once for a text, and kept for the next
//! requests with the same one. Bounded in bytes; the least recently used leaves first.
//!
//! A text's own are made of it alone, in a call of one row, so that they do not depend on who shares the UNet's.

use std::cell::RefCell;

use tch::Tensor;

use super::{
    byte_lru::ByteLru,
    layers::Result,
    models::unet::UNet2DConditionModel,
    prompt::{TextEmbeds, TextKey},
};

/// A text that takes more than this part of the bound has its own made in each call: so few would leave those of a call no room.
const LARGEST_PART: u64 = 8;

/// The keys and values of one UNet. They leave the device with it.
#[derive(Debug)]
pub(super) struct PromptKvCache {
    known: RefCell<ByteLru<TextKey, Tensor>>,
    largest: u64,
}

impl PromptKvCache {
    /// Keeps so many bytes at most; 0 keeps nothing.
    pub(super) fn new(bytes: u64) -> Self {
        Self { known: RefCell::new(ByteLru::new(bytes)), largest: bytes / LARGEST_PART }
    }

    /// Whether texts like this one are kept. All rows of a call have the same length.
    pub(super) fn keeps(&self, unet: &UNet2DConditionModel, text: &TextEmbeds) -> bool {
        (1..=self.largest).contains(&bytes(unet, text))
    }

    /// A text's keys and values, `[1, 2, L, prompt_channels]`, now made or earlier.
    ///
    /// # Errors
    /// When the device fails; the next call makes them again.
    pub(super) fn of(&self, unet: &UNet2DConditionModel, text: &TextEmbeds) -> Result<Tensor> {
        if let Some(known) = self.known.borrow_mut().get(&text.key) {
            return Ok(known.shallow_clone());
        }
        let made = unet.keys_and_values(&text.encoder_hidden_states)?;
        self.known.borrow_mut().put(text.key.clone(), made.shallow_clone(), bytes(unet, text));
        Ok(made)
    }
}

fn bytes(unet: &UNet2DConditionModel, text: &TextEmbeds) -> u64 {
    let values = 2 * text.length() * unet.prompt_channels();
    values as u64 * text.encoder_hidden_states.kind().elt_size_in_bytes() as u64
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tch::{Device, Kind};

    use super::*;
    use crate::diffusion::{device::Placement, files::ModelFiles};

    fn unet() -> UNet2DConditionModel {
        let files = ModelFiles::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-sd1")).unwrap();
        UNet2DConditionModel::load(&files, Placement { device: Device::Cpu, kind: Kind::Float, batch_invariant: true }).unwrap()
    }

    fn text(length: i64) -> TextEmbeds {
        let encoder_hidden_states = Tensor::randn([1, length, 16], (Kind::Float, Device::Cpu));
        TextEmbeds { key: TextKey::Zeros(length), encoder_hidden_states, pooled: None }
    }

    #[test]
    fn a_text_has_its_keys_and_values_made_once_until_others_take_the_room() {
        let (unet, first, second) = (unet(), text(7), text(9));
        let cache = PromptKvCache::new(bytes(&unet, &second));
        let made = cache.of(&unet, &first).unwrap();
        assert_eq!(made.size(), [1, 2, 7, unet.prompt_channels()]);
        assert_eq!(made, unet.keys_and_values(&first.encoder_hidden_states).unwrap());
        assert_eq!((made.numel() * 4) as u64, bytes(&unet, &first), "what is counted is what is kept");
        assert_eq!(cache.of(&unet, &first).unwrap().data_ptr(), made.data_ptr());
        drop(cache.of(&unet, &second).unwrap());
        assert_ne!(cache.of(&unet, &first).unwrap().data_ptr(), made.data_ptr());
    }

    #[test]
    fn long_texts_and_texts_without_a_bound_for_them_are_not_kept() {
        let (unet, text) = (unet(), text(77));
        let bytes = bytes(&unet, &text);
        assert!(PromptKvCache::new(LARGEST_PART * bytes).keeps(&unet, &text));
        assert!(!PromptKvCache::new(LARGEST_PART * bytes - 1).keeps(&unet, &text));
        assert!(!PromptKvCache::new(0).keeps(&unet, &text));
    }
}
