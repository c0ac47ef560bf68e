//! The VAE's names. The original counts the decoder's blocks from the picture, diffusers from the latents.

use super::names::{Inner, Names, count};
use crate::diffusion::files::stored::StoredTensor;

/// More than any VAE has in a block; a name that is not used does no harm.
const LAYERS: usize = 8;
const RESNET: Inner = &[("nin_shortcut.", "conv_shortcut.")];
const ATTENTION: Inner = &[("norm.", "group_norm."), ("q.", "to_q."), ("k.", "to_k."), ("v.", "to_v."), ("proj_out.", "to_out.0.")];

/// The names of a VAE whose original keys (without a prefix) these are.
pub(in crate::diffusion::files) fn vae_names_of_original<'a>(keys: impl Iterator<Item = &'a str>) -> Names {
    names(count(keys, "decoder.up."))
}

/// The names of a VAE whose keys in diffusers these are.
pub(in crate::diffusion::files) fn vae_names_of_diffusers<'a>(keys: impl Iterator<Item = &'a str>) -> Names {
    names(count(keys, "decoder.up_blocks."))
}

fn names(blocks: usize) -> Names {
    let mut names = Names::default();
    for half in ["encoder", "decoder"] {
        names.add(format!("{half}.norm_out."), format!("{half}.conv_norm_out."));
        names.add_module(format!("{half}.mid.block_1."), format!("{half}.mid_block.resnets.0."), RESNET);
        names.add_module(format!("{half}.mid.block_2."), format!("{half}.mid_block.resnets.1."), RESNET);
        names.add_module(format!("{half}.mid.attn_1."), format!("{half}.mid_block.attentions.0."), ATTENTION);
    }
    for block in 0..blocks {
        let up = blocks - 1 - block;
        for layer in 0..LAYERS {
            names.add_module(
                format!("encoder.down.{block}.block.{layer}."),
                format!("encoder.down_blocks.{block}.resnets.{layer}."),
                RESNET,
            );
            names.add_module(
                format!("decoder.up.{up}.block.{layer}."),
                format!("decoder.up_blocks.{block}.resnets.{layer}."),
                RESNET,
            );
        }
        names.add(format!("encoder.down.{block}.downsample."), format!("encoder.down_blocks.{block}.downsamplers.0."));
        names.add(format!("decoder.up.{up}.upsample."), format!("decoder.up_blocks.{block}.upsamplers.0."));
    }
    names
}

/// A projection of the VAE's attention as a matrix: the original has them as 1 × 1 convolutions.
pub(in crate::diffusion::files) fn squeezed(name: &str, tensor: StoredTensor) -> StoredTensor {
    let [outputs, inputs, rest @ ..] = tensor.shape() else { return tensor };
    let is_projection = name.contains(".attentions.") && name.ends_with(".weight");
    if !is_projection || rest.is_empty() || rest.iter().any(|&side| side != 1) {
        return tensor;
    }
    let shape = vec![*outputs, *inputs];
    tensor.reshaped(shape)
}
