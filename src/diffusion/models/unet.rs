//! The UNet that predicts the noise (Rombach et al., 2022), diffusers' `UNet2DConditionModel`.

use std::path::Path;

use tch::{Kind, Tensor};

use super::{
    attention::TransformerSettings,
    config::{DownBlockType, UNetConfig, UpBlockType},
    resnet::{Resample, ResnetSettings, TimeScaleShift},
    unet_blocks::{AttentionSettings, BlockSettings, Conditioning, DownBlock, MidBlock, Resampling, UpBlock, load_down, load_up},
};
use crate::diffusion::{
    device::Placement,
    error::LoadError,
    layers::{Conv2d, ConvShape, GroupNorm, Linear, Result},
    weights::{Scope, Weights},
};

/// The largest period of the sinusoidal time embedding; diffusers' `get_timestep_embedding`.
const MAX_PERIOD: f64 = 10_000.0;

/// Predicts the noise (or what the model was trained to predict) in latents.
pub(in crate::diffusion) struct UNet2DConditionModel {
    config: UNetConfig,
    placement: Placement,
    linear_1: Linear,
    linear_2: Linear,
    conv_in: Conv2d,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl UNet2DConditionModel {
    /// Loads the folder's config and weights.
    pub(in crate::diffusion) fn load(folder: &Path, placement: Placement) -> std::result::Result<Self, LoadError> {
        let config = UNetConfig::read(&folder.join("config.json"))?;
        let weights = Weights::open(folder, "diffusion_pytorch_model", |key| Some(key.to_owned()), placement)?;
        let model = Self::build(&weights.root(), config)?;
        weights.finish()?;
        Ok(model)
    }

    fn build(vs: &Scope, config: UNetConfig) -> std::result::Result<Self, LoadError> {
        let first = config.block_out_channels.first().copied().unwrap_or_default();
        let last = config.block_out_channels.last().copied().unwrap_or_default();
        let kernel = |inputs, outputs, kernel| ConvShape { inputs, outputs, kernel, stride: 1, padding: (kernel - 1) / 2 };
        let blocks = BlockBuilder { config: &config, temb_channels: config.time_embedding_dim.unwrap_or(4 * first) };
        let (down_blocks, skips) = load_down(vs, first, &blocks.down())?;
        let time_embedding = vs / "time_embedding";
        Ok(Self {
            placement: vs.placement(),
            linear_1: Linear::load(&(&time_embedding / "linear_1"), first, blocks.temb_channels)?,
            linear_2: Linear::load(&(&time_embedding / "linear_2"), blocks.temb_channels, blocks.temb_channels)?,
            conv_in: Conv2d::load(&(vs / "conv_in"), kernel(config.in_channels, first, config.conv_in_kernel))?,
            mid_block: MidBlock::load(&(vs / "mid_block"), last, blocks.mid_resnet(), Some(blocks.mid_attention()))?,
            up_blocks: load_up(vs, last, skips, &blocks.up())?,
            down_blocks,
            conv_norm_out: GroupNorm::load(&(vs / "conv_norm_out"), config.norm_num_groups, first, config.norm_eps)?,
            conv_out: Conv2d::load(&(vs / "conv_out"), kernel(first, config.out_channels, config.conv_out_kernel))?,
            config,
        })
    }

    /// sample `[B, in, h, w]`, timesteps `[B]` (may be fractional), encoder_hidden_states `[B, L, cross_attention_dim]`
    /// → model output `[B, out, h, w]`
    pub(in crate::diffusion) fn forward(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        encoder_hidden_states: &Tensor,
    ) -> Result<Tensor> {
        let sample = match self.config.center_input_sample {
            true => sample.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?,
            false => sample.shallow_clone(),
        };
        let temb = self.time_embedding(timesteps)?;
        let cond = Conditioning { temb: Some(&temb), encoder_hidden_states: Some(encoder_hidden_states) };
        let mut hidden = self.conv_in.forward(&sample)?;
        let mut skips = vec![hidden.shallow_clone()];
        for block in &self.down_blocks {
            hidden = block.forward(hidden, cond, &mut skips)?;
        }
        hidden = self.mid_block.forward(&hidden, cond)?;
        for block in &self.up_blocks {
            hidden = block.forward(hidden, cond, &mut skips)?;
        }
        let hidden = self.config.act_fn.forward(&self.conv_norm_out.forward(&hidden)?, self.placement)?;
        self.conv_out.forward(&hidden)
    }

    /// The embedding of `[B]` timesteps with the blocks' activation already applied: `[B, temb]`.
    fn time_embedding(&self, timesteps: &Tensor) -> Result<Tensor> {
        let embedding = self.linear_1.forward(&self.sinusoids(timesteps)?)?;
        let embedding = self.linear_2.forward(&self.config.act_fn.forward(&embedding, self.placement)?)?;
        self.config.act_fn.forward(&embedding, self.placement)
    }

    /// diffusers' `get_timestep_embedding`: `[B] → [B, block_out_channels[0]]`.
    fn sinusoids(&self, timesteps: &Tensor) -> Result<Tensor> {
        let width = self.config.block_out_channels.first().copied().unwrap_or_default();
        let half = width / 2;
        let scale = -MAX_PERIOD.ln() / (half as f64 - self.config.freq_shift);
        let frequencies = Tensor::f_arange(half, (Kind::Float, timesteps.device()))?.f_mul_scalar(scale)?.f_exp()?;
        let angles = timesteps.f_to_kind(Kind::Float)?.f_unsqueeze(1)?.f_mul(&frequencies.f_unsqueeze(0)?)?; // [B, half]
        let (sin, cos) = (angles.f_sin()?, angles.f_cos()?);
        let pair = if self.config.flip_sin_to_cos { [cos, sin] } else { [sin, cos] };
        Tensor::f_cat(&pair, 1)?.f_constant_pad_nd([0, width % 2])?.f_to_kind(self.placement.kind)
    }
}

/// The blocks' shapes, from the config.
struct BlockBuilder<'a> {
    config: &'a UNetConfig,
    temb_channels: i64,
}

impl BlockBuilder<'_> {
    fn blocks(&self) -> usize {
        self.config.block_out_channels.len()
    }

    fn resnet(&self, output_scale_factor: f64) -> ResnetSettings {
        let UNetConfig { norm_num_groups, norm_eps, act_fn, .. } = *self.config;
        ResnetSettings {
            groups: norm_num_groups,
            eps: norm_eps,
            act_fn,
            temb_channels: Some(self.temb_channels),
            output_scale_factor,
            time_scale_shift: TimeScaleShift::Default,
            resample: Resample::None,
        }
    }

    fn mid_resnet(&self) -> ResnetSettings {
        self.resnet(self.config.mid_block_scale_factor)
    }

    fn mid_attention(&self) -> AttentionSettings {
        AttentionSettings::Cross(TransformerSettings { only_cross_attention: false, ..self.transformer(self.blocks() - 1) })
    }

    fn transformer(&self, index: usize) -> TransformerSettings {
        let config = self.config;
        TransformerSettings {
            heads: config.heads(index),
            layers: config.transformer_layers_per_block.at(index).unwrap_or(1),
            cross_attention_dim: config.cross_attention_dim.at(index).unwrap_or_default(),
            groups: config.norm_num_groups,
            use_linear_projection: config.use_linear_projection,
            only_cross_attention: config.only_cross_attention.at(index).unwrap_or(false),
        }
    }

    /// The settings of the block at level `index`, counted from the top of the U.
    fn block(&self, index: usize, attends: bool, resamples: bool) -> BlockSettings {
        BlockSettings {
            outputs: self.config.block_out_channels[index],
            layers: self.config.layers_per_block.at(index).unwrap_or_default(),
            resnet: self.resnet(1.0),
            attention: attends.then(|| AttentionSettings::Cross(self.transformer(index))),
            resampling: if resamples { Resampling::Conv } else { Resampling::None },
            downsample_padding: self.config.downsample_padding,
        }
    }

    fn down(&self) -> Vec<BlockSettings> {
        let block = |(index, kind): (usize, &DownBlockType)| {
            self.block(index, *kind == DownBlockType::CrossAttnDownBlock2D, index + 1 < self.blocks())
        };
        self.config.down_block_types.iter().enumerate().map(block).collect()
    }

    /// From the bottom up.
    fn up(&self) -> Vec<BlockSettings> {
        let block = |(index, kind): (usize, &UpBlockType)| {
            let level = self.blocks() - 1 - index;
            self.block(level, *kind == UpBlockType::CrossAttnUpBlock2D, index + 1 < self.blocks())
        };
        self.config.up_block_types.iter().enumerate().map(block).collect()
    }
}
