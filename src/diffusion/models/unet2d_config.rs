//! `unet/config.json` of a `UNet2DModel`, with diffusers' defaults.

use serde::Deserialize;
use serde_json::Value;

use super::{
    config::{check_divides, check_layers_per_block},
    resnet::TimeScaleShift,
};
use crate::diffusion::{error::LoadError, files::ModelFiles, layers::Activation};

/// The config of a UNet that is told the timestep and nothing else.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(in crate::diffusion) struct UNet2DConfig {
    pub(in crate::diffusion) sample_size: SampleSize,
    pub(in crate::diffusion) in_channels: i64,
    pub(in crate::diffusion) out_channels: i64,
    pub(in crate::diffusion) center_input_sample: bool,
    pub(in crate::diffusion) time_embedding_type: TimeEmbeddingType,
    pub(in crate::diffusion) time_embedding_dim: Option<i64>,
    pub(in crate::diffusion) freq_shift: f64,
    pub(in crate::diffusion) flip_sin_to_cos: bool,
    pub(in crate::diffusion) down_block_types: Vec<DownBlockType>,
    pub(in crate::diffusion) up_block_types: Vec<UpBlockType>,
    pub(in crate::diffusion) block_out_channels: Vec<i64>,
    pub(in crate::diffusion) layers_per_block: i64,
    pub(in crate::diffusion) mid_block_scale_factor: f64,
    pub(in crate::diffusion) downsample_padding: i64,
    /// Of the blocks with attention; the others have convolutions.
    pub(in crate::diffusion) downsample_type: ResampleType,
    /// Of the blocks with attention; the others have convolutions.
    pub(in crate::diffusion) upsample_type: ResampleType,
    pub(in crate::diffusion) act_fn: Activation,
    pub(in crate::diffusion) mid_block_type: MidBlockType,
    /// Channels of one head: here the name says what it is, unlike in a `UNet2DConditionModel`. None, which is not the default, is one head.
    attention_head_dim: Option<i64>,
    pub(in crate::diffusion) norm_num_groups: i64,
    attn_norm_num_groups: Option<i64>,
    pub(in crate::diffusion) norm_eps: f64,
    pub(in crate::diffusion) resnet_time_scale_shift: TimeScaleShift,
    pub(in crate::diffusion) add_attention: bool,
}

/// The size that the model was trained for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(in crate::diffusion) enum SampleSize {
    Square(u32),
    /// Height and width.
    Sides([u32; 2]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::diffusion) enum TimeEmbeddingType {
    /// Sinusoids of fixed frequencies.
    Positional,
    /// Sinusoids of random frequencies that come with the weights (Tancik et al., 2020), of the logarithm of the noise's deviation.
    Fourier,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(in crate::diffusion) enum DownBlockType {
    #[serde(alias = "UNetResDownBlock2D")]
    DownBlock2D,
    #[serde(alias = "UNetResAttnDownBlock2D")]
    AttnDownBlock2D,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(in crate::diffusion) enum UpBlockType {
    #[serde(alias = "UNetResUpBlock2D")]
    UpBlock2D,
    #[serde(alias = "UNetResAttnUpBlock2D")]
    AttnUpBlock2D,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(in crate::diffusion) enum MidBlockType {
    UNetMidBlock2D,
    /// A UNet without a middle.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::diffusion) enum ResampleType {
    Conv,
    Resnet,
}

impl Default for UNet2DConfig {
    fn default() -> Self {
        use {DownBlockType::*, UpBlockType::*};
        Self {
            sample_size: SampleSize::Square(0),
            in_channels: 3,
            out_channels: 3,
            center_input_sample: false,
            time_embedding_type: TimeEmbeddingType::Positional,
            time_embedding_dim: None,
            freq_shift: 0.0,
            flip_sin_to_cos: true,
            down_block_types: vec![DownBlock2D, AttnDownBlock2D, AttnDownBlock2D, AttnDownBlock2D],
            up_block_types: vec![AttnUpBlock2D, AttnUpBlock2D, AttnUpBlock2D, UpBlock2D],
            block_out_channels: vec![224, 448, 672, 896],
            layers_per_block: 2,
            mid_block_scale_factor: 1.0,
            downsample_padding: 1,
            downsample_type: ResampleType::Conv,
            upsample_type: ResampleType::Conv,
            act_fn: Activation::Silu,
            mid_block_type: MidBlockType::UNetMidBlock2D,
            attention_head_dim: Some(8),
            norm_num_groups: 32,
            attn_norm_num_groups: None,
            norm_eps: 1e-5,
            resnet_time_scale_shift: TimeScaleShift::Default,
            add_attention: true,
        }
    }
}

impl UNet2DConfig {
    /// Reads `unet/config.json`.
    pub(in crate::diffusion) fn read(files: &ModelFiles) -> Result<Self, LoadError> {
        // Class labels and learned timesteps: no request can name a class, and no scheduler here keeps to whole timesteps.
        let (null, timed) = ([Value::Null], [Value::from("positional"), Value::from("fourier")]);
        let config: Self =
            files.config("unet", &[("class_embed_type", &null), ("num_class_embeds", &null), ("time_embedding_type", &timed)])?;
        config.check().map_err(|problem| files.invalid_config("unet", problem))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let blocks = self.block_out_channels.len();
        if blocks == 0 || self.down_block_types.len() != blocks || self.up_block_types.len() != blocks {
            return Err("block_out_channels, down_block_types and up_block_types must be of one length, at least 1".to_owned());
        }
        check_layers_per_block(self.layers_per_block)?;
        for (index, &channels) in self.block_out_channels.iter().enumerate() {
            check_divides("norm_num_groups", self.norm_num_groups, channels)?;
            let attends = self.down_block_types[index] == DownBlockType::AttnDownBlock2D
                || self.up_block_types[blocks - 1 - index] == UpBlockType::AttnUpBlock2D
                || self.add_attention && index + 1 == blocks;
            if let Some(width) = self.attention_head_dim.filter(|_| attends) {
                check_divides("attention_head_dim", width, channels)?;
            }
        }
        let middle = self.block_out_channels.last().copied().unwrap_or_default();
        self.mid_groups().map_or(Ok(()), |groups| check_divides("attn_norm_num_groups", groups, middle))
    }

    /// Heads of an attention over `channels`.
    pub(in crate::diffusion) fn heads(&self, channels: i64) -> i64 {
        self.attention_head_dim.map_or(1, |width| channels / width)
    }

    /// Groups of the norm before the middle's attention; with a scaling time embedding there is none of its own.
    pub(in crate::diffusion) fn mid_groups(&self) -> Option<i64> {
        let usual = (self.resnet_time_scale_shift == TimeScaleShift::Default).then_some(self.norm_num_groups);
        self.attn_norm_num_groups.or(usual)
    }

    /// Samples must be multiples of this: every block but the last halves the size, and it must come back whole.
    pub(in crate::diffusion) fn grid(&self) -> u32 {
        1 << (self.block_out_channels.len() - 1)
    }

    /// Height and width that the model was trained for; 0 where the config does not say.
    pub(in crate::diffusion) fn size(&self) -> [u32; 2] {
        match self.sample_size {
            SampleSize::Square(side) => [side; 2],
            SampleSize::Sides(sides) => sides,
        }
    }
}
