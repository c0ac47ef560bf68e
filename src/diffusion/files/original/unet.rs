//! The UNet's names: the original numbers its blocks through, diffusers groups them by resolution.

use super::names::{Inner, Names, count};

const RESNET: Inner = &[
    ("in_layers.0.", "norm1."),
    ("in_layers.2.", "conv1."),
    ("out_layers.0.", "norm2."),
    ("out_layers.3.", "conv2."),
    ("emb_layers.1.", "time_emb_proj."),
    ("skip_connection.", "conv_shortcut."),
];

/// One resolution of the U, from the top.
struct Level {
    /// Residual blocks on the way down; one more stands on the way up.
    layers: usize,
    /// Whether the block on the way up has transformers, which push its upsampler one place on.
    up_attends: bool,
}

/// The names of a UNet whose original keys (without the prefix) these are.
pub(in crate::diffusion::files) fn unet_names_of_original<'a>(keys: impl Iterator<Item = &'a str> + Clone) -> Names {
    let blocks = count(keys.clone(), "input_blocks.");
    let is_downsampler = |block: usize| keys.clone().any(|key| key.starts_with(&format!("input_blocks.{block}.0.op.")));
    // The first block is the convolution into the network.
    let mut layers = vec![0];
    for block in 1..blocks {
        match is_downsampler(block) {
            true => layers.push(0),
            false => *layers.last_mut().unwrap_or(&mut 0) += 1,
        }
    }
    let mut end = 0;
    let mut attends: Vec<bool> = Vec::new();
    for layers in layers.iter().rev() {
        // The first block of a level always tells: only its last one has the upsampler.
        attends.push(keys.clone().any(|key| key.starts_with(&format!("output_blocks.{end}.1.")) && !key.contains(".conv.")));
        end += layers + 1;
    }
    let levels = layers.into_iter().zip(attends.into_iter().rev());
    names(&levels.map(|(layers, up_attends)| Level { layers, up_attends }).collect::<Vec<_>>())
}

/// The names of a UNet whose keys in diffusers these are.
pub(in crate::diffusion::files) fn unet_names_of_diffusers<'a>(keys: impl Iterator<Item = &'a str> + Clone) -> Names {
    let blocks = count(keys.clone(), "down_blocks.");
    let level = |block: usize| Level {
        layers: count(keys.clone(), &format!("down_blocks.{block}.resnets.")),
        up_attends: keys.clone().any(|key| key.starts_with(&format!("up_blocks.{}.attentions.", blocks - 1 - block))),
    };
    names(&(0..blocks).map(level).collect::<Vec<_>>())
}

fn names(levels: &[Level]) -> Names {
    let mut names = Names::default();
    for (original, diffusers) in [
        ("time_embed.0.", "time_embedding.linear_1."),
        ("time_embed.2.", "time_embedding.linear_2."),
        ("label_emb.0.0.", "add_embedding.linear_1."),
        ("label_emb.0.2.", "add_embedding.linear_2."),
        ("input_blocks.0.0.", "conv_in."),
        ("out.0.", "conv_norm_out."),
        ("out.2.", "conv_out."),
        ("middle_block.1.", "mid_block.attentions.0."),
    ] {
        names.add(original, diffusers);
    }
    names.add_module("middle_block.0.", "mid_block.resnets.0.", RESNET);
    names.add_module("middle_block.2.", "mid_block.resnets.1.", RESNET);
    down(&mut names, levels);
    up(&mut names, levels);
    names
}

fn down(names: &mut Names, levels: &[Level]) {
    let mut input = 1;
    for (block, level) in levels.iter().enumerate() {
        for layer in 0..level.layers {
            names.add_module(format!("input_blocks.{input}.0."), format!("down_blocks.{block}.resnets.{layer}."), RESNET);
            names.add(format!("input_blocks.{input}.1."), format!("down_blocks.{block}.attentions.{layer}."));
            input += 1;
        }
        if block + 1 < levels.len() {
            names.add(format!("input_blocks.{input}.0.op."), format!("down_blocks.{block}.downsamplers.0.conv."));
            input += 1;
        }
    }
}

fn up(names: &mut Names, levels: &[Level]) {
    let mut output = 0;
    for (block, level) in levels.iter().rev().enumerate() {
        for layer in 0..=level.layers {
            names.add_module(format!("output_blocks.{output}.0."), format!("up_blocks.{block}.resnets.{layer}."), RESNET);
            if level.up_attends {
                names.add(format!("output_blocks.{output}.1."), format!("up_blocks.{block}.attentions.{layer}."));
            }
            if layer == level.layers && block + 1 < levels.len() {
                let place = 1 + usize::from(level.up_attends);
                names.add(format!("output_blocks.{output}.{place}.conv."), format!("up_blocks.{block}.upsamplers.0.conv."));
            }
            output += 1;
        }
    }
}
