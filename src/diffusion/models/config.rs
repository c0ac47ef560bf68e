//! The networks' configs, as diffusers and transformers write them, with their defaults.
//!
//! A known key with a value that cannot be honoured is an error that names both: a picture that is quietly wrong is worse. Keys that
//! diffusers does not know either are passed over, as diffusers does.

use serde::Deserialize;
use serde_json::Value;

use super::per_block::{PerBlock, TransformerLayers};
use crate::diffusion::{error::LoadError, files::ModelFiles, layers::Activation};

/// `unet/config.json` of a `UNet2DConditionModel`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(in crate::diffusion) struct UNetConfig {
    pub(in crate::diffusion) sample_size: i64,
    pub(in crate::diffusion) in_channels: i64,
    pub(in crate::diffusion) out_channels: i64,
    pub(in crate::diffusion) center_input_sample: bool,
    pub(in crate::diffusion) flip_sin_to_cos: bool,
    pub(in crate::diffusion) freq_shift: f64,
    pub(in crate::diffusion) down_block_types: Vec<DownBlockType>,
    pub(in crate::diffusion) up_block_types: Vec<UpBlockType>,
    pub(in crate::diffusion) only_cross_attention: PerBlock<bool>,
    pub(in crate::diffusion) block_out_channels: Vec<i64>,
    pub(in crate::diffusion) layers_per_block: PerBlock<i64>,
    pub(in crate::diffusion) downsample_padding: i64,
    pub(in crate::diffusion) mid_block_scale_factor: f64,
    pub(in crate::diffusion) act_fn: Activation,
    pub(in crate::diffusion) norm_num_groups: i64,
    pub(in crate::diffusion) norm_eps: f64,
    pub(in crate::diffusion) cross_attention_dim: PerBlock<i64>,
    /// A number a block, or a list with one a layer of the block.
    pub(in crate::diffusion) transformer_layers_per_block: TransformerLayers,
    /// The same for the way up, in its order, where the U is not symmetric.
    pub(in crate::diffusion) reverse_transformer_layers_per_block: Option<Vec<PerBlock<i64>>>,
    pub(in crate::diffusion) mid_block_type: MidBlockType,
    /// Despite its name the number of heads (diffusers issue 2011).
    pub(in crate::diffusion) attention_head_dim: PerBlock<i64>,
    pub(in crate::diffusion) use_linear_projection: bool,
    pub(in crate::diffusion) time_embedding_dim: Option<i64>,
    /// Channels of the guidance scale's embedding, of models that were distilled with it (LCM).
    pub(in crate::diffusion) time_cond_proj_dim: Option<i64>,
    pub(in crate::diffusion) addition_embed_type: Option<AdditionEmbedType>,
    /// Sinusoids of each of the time ids.
    pub(in crate::diffusion) addition_time_embed_dim: i64,
    /// Pooled prompt and the sinusoids of all time ids.
    pub(in crate::diffusion) projection_class_embeddings_input_dim: i64,
    pub(in crate::diffusion) conv_in_kernel: i64,
    pub(in crate::diffusion) conv_out_kernel: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(in crate::diffusion) enum DownBlockType {
    CrossAttnDownBlock2D,
    DownBlock2D,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(in crate::diffusion) enum UpBlockType {
    CrossAttnUpBlock2D,
    UpBlock2D,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(in crate::diffusion) enum MidBlockType {
    UNetMidBlock2DCrossAttn,
    /// One residual block.
    UNetMidBlock2D,
    /// No block, as in models that were made small.
    None,
}

/// What is added to the timestep's embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::diffusion) enum AdditionEmbedType {
    /// The pooled prompt and the time ids, as in Stable Diffusion XL.
    TextTime,
}

impl Default for UNetConfig {
    fn default() -> Self {
        use {DownBlockType::*, UpBlockType::*};
        Self {
            sample_size: 64,
            in_channels: 4,
            out_channels: 4,
            center_input_sample: false,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: vec![CrossAttnDownBlock2D, CrossAttnDownBlock2D, CrossAttnDownBlock2D, DownBlock2D],
            up_block_types: vec![UpBlock2D, CrossAttnUpBlock2D, CrossAttnUpBlock2D, CrossAttnUpBlock2D],
            only_cross_attention: PerBlock::All(false),
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: PerBlock::All(2),
            downsample_padding: 1,
            mid_block_scale_factor: 1.0,
            act_fn: Activation::Silu,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: PerBlock::All(1280),
            transformer_layers_per_block: TransformerLayers::All(1),
            reverse_transformer_layers_per_block: None,
            mid_block_type: MidBlockType::UNetMidBlock2DCrossAttn,
            attention_head_dim: PerBlock::All(8),
            use_linear_projection: false,
            time_embedding_dim: None,
            time_cond_proj_dim: None,
            addition_embed_type: None,
            addition_time_embed_dim: 0,
            projection_class_embeddings_input_dim: 0,
            conv_in_kernel: 3,
            conv_out_kernel: 3,
        }
    }
}

impl UNetConfig {
    /// Reads `unet/config.json`.
    pub(in crate::diffusion) fn read(files: &ModelFiles) -> Result<Self, LoadError> {
        let (null, no) = ([Value::Null], [Value::Null, Value::Bool(false)]);
        let (default, positional) = ([Value::from("default")], [Value::from("positional")]);
        let config: Self = files.config(
            "unet",
            &[
                ("addition_embed_type", &[Value::Null, Value::from("text_time")]),
                ("attention_type", &default),
                ("class_embed_type", &null),
                ("cross_attention_norm", &null),
                ("dual_cross_attention", &no),
                ("encoder_hid_dim", &null),
                ("encoder_hid_dim_type", &null),
                ("num_attention_heads", &null),
                ("num_class_embeds", &null),
                // diffusers hands it only to block types that are not supported here.
                ("resnet_out_scale_factor", &[Value::from(1.0), Value::from(1)]),
                ("resnet_skip_time_act", &no),
                ("resnet_time_scale_shift", &default),
                ("time_embedding_act_fn", &null),
                ("time_embedding_type", &positional),
                ("timestep_post_act", &null),
            ],
        )?;
        config.check().map_err(|problem| files.invalid_config("unet", problem))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let blocks = self.block_out_channels.len();
        if blocks == 0 || self.down_block_types.len() != blocks || self.up_block_types.len() != blocks {
            return Err("block_out_channels, down_block_types and up_block_types must be of one length, at least 1".to_owned());
        }
        for (key, covered) in [
            ("layers_per_block", self.layers_per_block.covers(blocks)),
            ("cross_attention_dim", self.cross_attention_dim.covers(blocks)),
            ("transformer_layers_per_block", self.transformer_layers_per_block.covers(blocks)),
            ("attention_head_dim", self.attention_head_dim.covers(blocks)),
            ("only_cross_attention", self.only_cross_attention.covers(blocks)),
        ] {
            if !covered {
                return Err(format!("{key} must be one value or a list of {blocks}"));
            }
        }
        let up = self.reverse_transformer_layers_per_block.as_ref();
        if up.is_some_and(|up| up.len() != blocks) {
            return Err(format!("reverse_transformer_layers_per_block must be a list of {blocks}"));
        }
        self.layers_per_block.values().try_for_each(check_layers_per_block)?;
        let widths = [self.addition_time_embed_dim, self.projection_class_embeddings_input_dim];
        if self.addition_embed_type.is_some() && widths.iter().any(|&width| width < 2) {
            return Err("addition_embed_type = text_time needs addition_time_embed_dim and projection_class_embeddings_input_dim"
                .to_owned());
        }
        for (index, &channels) in self.block_out_channels.iter().enumerate() {
            check_divides("norm_num_groups", self.norm_num_groups, channels)?;
            let attends = self.down_block_types[index] == DownBlockType::CrossAttnDownBlock2D
                || self.up_block_types[blocks - 1 - index] == UpBlockType::CrossAttnUpBlock2D
                || index + 1 == blocks;
            if attends {
                check_divides("attention_head_dim", self.heads(index), channels)?;
            }
        }
        Ok(())
    }

    /// Whether it is told the guidance scale, as distilled models are, and needs no unconditional row.
    pub(in crate::diffusion) fn embeds_guidance(&self) -> bool {
        self.time_cond_proj_dim.is_some()
    }

    /// Transformer layers behind residual layer `layer` of the block at level `index`, on the way down or up.
    pub(in crate::diffusion) fn transformer_layers(&self, index: usize, layer: usize, up: bool) -> i64 {
        let reversed = self.reverse_transformer_layers_per_block.as_ref().filter(|_| up);
        let of_block = match reversed {
            Some(counts) => counts.get(self.block_out_channels.len() - 1 - index).cloned(),
            None => self.transformer_layers_per_block.at(index),
        };
        of_block.and_then(|counts| counts.at(layer)).unwrap_or(1)
    }

    /// Heads of block `index`.
    pub(in crate::diffusion) fn heads(&self, index: usize) -> i64 {
        self.attention_head_dim.at(index).unwrap_or(1)
    }
}

/// No network comes near so many.
const MAX_LAYERS_PER_BLOCK: i64 = 64;

/// A block has a place for each of its layers before their weights are looked for.
pub(super) fn check_layers_per_block(layers: i64) -> Result<(), String> {
    match (0..=MAX_LAYERS_PER_BLOCK).contains(&layers) {
        true => Ok(()),
        false => Err(format!("layers_per_block must be from 0 to {MAX_LAYERS_PER_BLOCK}, got {layers}")),
    }
}

/// Groups and heads share a layer's channels evenly.
pub(super) fn check_divides(key: &str, parts: i64, channels: i64) -> Result<(), String> {
    if parts > 0 && channels % parts == 0 {
        return Ok(());
    }
    Err(format!("{key} = {parts} does not divide the {channels} channels of a layer"))
}

/// `vae/config.json` of an `AutoencoderKL`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(in crate::diffusion) struct VaeConfig {
    pub(in crate::diffusion) in_channels: i64,
    pub(in crate::diffusion) out_channels: i64,
    pub(in crate::diffusion) block_out_channels: Vec<i64>,
    pub(in crate::diffusion) layers_per_block: i64,
    pub(in crate::diffusion) act_fn: Activation,
    pub(in crate::diffusion) latent_channels: i64,
    pub(in crate::diffusion) norm_num_groups: i64,
    /// Pixels, or a list of height and width.
    pub(in crate::diffusion) sample_size: Option<Value>,
    pub(in crate::diffusion) scaling_factor: f64,
    pub(in crate::diffusion) force_upcast: bool,
    pub(in crate::diffusion) use_quant_conv: bool,
    pub(in crate::diffusion) use_post_quant_conv: bool,
    pub(in crate::diffusion) mid_block_add_attention: bool,
}

impl Default for VaeConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            block_out_channels: vec![64],
            layers_per_block: 1,
            act_fn: Activation::Silu,
            latent_channels: 4,
            norm_num_groups: 32,
            sample_size: None,
            scaling_factor: 0.18215,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

/// Larger tiles than the largest pictures make no difference.
const MAX_SAMPLE_SIZE: i64 = 4096;

impl VaeConfig {
    /// Reads the `config.json` of the part `vae` or `vqvae`.
    pub(in crate::diffusion) fn read(files: &ModelFiles, part: &str) -> Result<Self, LoadError> {
        let config: Self = files.config(
            part,
            &[
                ("latents_mean", &[Value::Null]),
                ("latents_std", &[Value::Null]),
                ("shift_factor", &[Value::Null]),
                ("in_channels", &[Value::from(3)]),
                ("out_channels", &[Value::from(3)]),
            ],
        )?;
        config.check().map_err(|problem| files.invalid_config(part, problem))?;
        Ok(config)
    }

    pub(super) fn check(&self) -> Result<(), String> {
        // More blocks than this would make a latent cell of more pixels than a picture has.
        if !(1..=8).contains(&self.block_out_channels.len()) {
            return Err(format!("block_out_channels has {} entries, 1 to 8 are supported", self.block_out_channels.len()));
        }
        check_layers_per_block(self.layers_per_block)?;
        self.block_out_channels.iter().try_for_each(|&channels| check_divides("norm_num_groups", self.norm_num_groups, channels))
    }

    /// Pixels a latent cell, in each direction: every block but the last halves the size.
    pub(in crate::diffusion) fn factor(&self) -> u32 {
        1 << (self.block_out_channels.len() - 1)
    }

    /// The pixels in each direction that the VAE was trained with, which only tells what a good tile is; 0 where the config does not say.
    pub(in crate::diffusion) fn sample_size(&self) -> i64 {
        let size = self.sample_size.as_ref();
        let first = size.and_then(|size| size.get(0)).or(size).and_then(Value::as_u64);
        first.and_then(|pixels| i64::try_from(pixels).ok()).unwrap_or_default().min(MAX_SAMPLE_SIZE)
    }
}

/// `text_encoder/config.json` of a `CLIPTextModel`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(in crate::diffusion) struct ClipTextConfig {
    pub(in crate::diffusion) vocab_size: i64,
    pub(in crate::diffusion) hidden_size: i64,
    pub(in crate::diffusion) intermediate_size: i64,
    pub(in crate::diffusion) num_hidden_layers: i64,
    pub(in crate::diffusion) num_attention_heads: i64,
    pub(in crate::diffusion) max_position_embeddings: i64,
    pub(in crate::diffusion) hidden_act: Activation,
    pub(in crate::diffusion) layer_norm_eps: f64,
    /// Of `CLIPTextModelWithProjection`.
    pub(in crate::diffusion) projection_dim: i64,
    pub(in crate::diffusion) eos_token_id: i64,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            projection_dim: 512,
            eos_token_id: 49407,
        }
    }
}

impl ClipTextConfig {
    /// Reads `config.json` of the part `text_encoder` or `text_encoder_2`.
    pub(in crate::diffusion) fn read(files: &ModelFiles, part: &str) -> Result<Self, LoadError> {
        let config: Self = files.config(part, &[])?;
        check_divides("num_attention_heads", config.num_attention_heads, config.hidden_size)
            .map_err(|problem| files.invalid_config(part, problem))?;
        Ok(config)
    }
}
