//! The text encoders' names: OpenAI's CLIP is in transformers' own, OpenCLIP has others, and keeps three projections in one tensor.

use super::names::{Inner, Names, count};
use crate::diffusion::files::stored::Tensors;

const LAYER: Inner = &[
    ("ln_1.", "layer_norm1."),
    ("ln_2.", "layer_norm2."),
    ("mlp.c_fc.", "mlp.fc1."),
    ("mlp.c_proj.", "mlp.fc2."),
    ("attn.", "self_attn."),
];
/// What stands beside a text encoder in a checkpoint and is none of its weights.
const OTHERS: [&str; 5] = ["logit_scale", "attn_mask", "visual", "vision_model.", "logit_bias"];

/// Layers of the text encoder that Stable Diffusion 2 was trained with.
const SD2_LAYERS: u64 = 24;

/// transformers' tensors of a CLIP, without what is no weight.
pub(in crate::diffusion::files) fn clip_to_diffusers(tensors: Tensors) -> Tensors {
    let is_weight = |key: &str| !OTHERS.iter().any(|other| key.starts_with(other)) && !key.ends_with("position_ids");
    tensors.into_iter().filter(|(key, _)| is_weight(key)).collect()
}

/// OpenCLIP's tensors under transformers' names; `in_proj` is split in three, and the text projection turned.
///
/// # Errors
/// When an `in_proj` cannot be split.
pub(in crate::diffusion::files) fn open_clip_to_diffusers(tensors: Tensors) -> Result<Tensors, String> {
    let names = open_clip_names(count(tensors.keys().map(String::as_str), "transformer.resblocks."));
    let mut found = Tensors::new();
    for (key, tensor) in clip_to_diffusers(tensors) {
        if key == "text_projection" {
            found
                .insert("text_projection.weight".to_owned(), tensor.transposed().ok_or("the tensor text_projection is no matrix")?);
        } else if let Some((layer, kind)) = key.split_once(".attn.in_proj_") {
            let third = |place| {
                tensor.third(place).ok_or_else(|| format!("the tensor {key} cannot be split in three: {:?}", tensor.shape()))
            };
            for (place, name) in ["q_proj", "k_proj", "v_proj"].into_iter().enumerate() {
                found.insert(names.to_diffusers(&format!("{layer}.attn.{name}.{kind}")), third(place)?);
            }
        } else {
            found.insert(names.to_diffusers(&key), tensor);
        }
    }
    Ok(found)
}

/// OpenCLIP's names of an encoder with this many layers.
pub(in crate::diffusion::files) fn open_clip_names(layers: usize) -> Names {
    let mut names = Names::default();
    names.add("token_embedding.", "text_model.embeddings.token_embedding.");
    names.add("positional_embedding", "text_model.embeddings.position_embedding.weight");
    names.add("ln_final.", "text_model.final_layer_norm.");
    for layer in 0..layers {
        names.add_module(format!("transformer.resblocks.{layer}."), format!("text_model.encoder.layers.{layer}."), LAYER);
    }
    names
}

/// Stable Diffusion 2's encoder without what it does not use: the projection, and the last of its 24 layers (it was trained with the last but
/// one, and diffusers leaves that one out). `layers` is how many are kept where a config says so.
pub(in crate::diffusion::files) fn without_unused(mut tensors: Tensors, layers: Option<u64>) -> Tensors {
    const LAYERS: &str = "text_model.encoder.layers.";
    let last = format!("{LAYERS}{}.", SD2_LAYERS - 1);
    let kept = layers.or_else(|| tensors.keys().any(|key| key.starts_with(&last)).then_some(SD2_LAYERS - 1));
    let layer = |key: &str| key.strip_prefix(LAYERS).and_then(|rest| rest.split('.').next()?.parse::<u64>().ok());
    tensors.retain(|key, _| key != "text_projection.weight" && layer(key).zip(kept).is_none_or(|(layer, kept)| layer < kept));
    tensors
}
