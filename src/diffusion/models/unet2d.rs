//! The UNet of models without text (Ho et al., 2020; Dhariwal and Nichol, 2021), diffusers' `UNet2DModel`.

use std::f64::consts::PI;

use tch::{Kind, Tensor};

use super::{
    attention::{AttentionBlockSettings, canonical_name},
    resnet::{Resample, ResnetSettings},
    time_embedding::{TimestepEmbedding, Timesteps},
    unet_blocks::{
        AttentionSettings, BlockSettings, Conditioning, DownBlock, MidBlock, MidRest, Resampling, UpBlock, load_down, load_up,
    },
    unet2d_config::{DownBlockType, MidBlockType, ResampleType, TimeEmbeddingType, UNet2DConfig, UpBlockType},
};
use crate::diffusion::{
    device::Placement,
    error::LoadError,
    files::ModelFiles,
    layers::{Activation, Conv2d, ConvShape, GroupNorm, Result, channels_last},
    weights::Scope,
};

/// Predicts the noise (or what the model was trained to predict) in pixels or latents, from the timestep alone.
pub(in crate::diffusion) struct UNet2DModel {
    config: UNet2DConfig,
    placement: Placement,
    time_proj: TimeProjection,
    time_embedding: TimestepEmbedding,
    conv_in: Conv2d,
    down_blocks: Vec<DownBlock>,
    mid_block: Option<MidBlock>,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

/// The timestep as a row of waves.
enum TimeProjection {
    Positional(Timesteps),
    /// diffusers' `GaussianFourierProjection`: the frequencies.
    Fourier(Tensor),
}

impl UNet2DModel {
    /// Loads the config and the weights of the part `unet`.
    pub(in crate::diffusion) fn load(files: &ModelFiles, placement: Placement) -> std::result::Result<Self, LoadError> {
        let config = UNet2DConfig::read(files)?;
        let weights = files.weights("unet", canonical_name, placement)?;
        let model = Self::build(&weights.root(), config)?;
        weights.finish()?;
        Ok(model)
    }

    fn build(vs: &Scope, config: UNet2DConfig) -> std::result::Result<Self, LoadError> {
        let first = config.block_out_channels.first().copied().unwrap_or_default();
        let last = config.block_out_channels.last().copied().unwrap_or_default();
        let blocks = BlockBuilder { config: &config, temb_channels: config.time_embedding_dim.unwrap_or(4 * first) };
        let (down_blocks, skips) = load_down(vs, first, &blocks.down())?;
        let (time_proj, waves) = TimeProjection::load(vs, &config, first)?;
        let mid_block = || {
            MidBlock::load(
                &(vs / "mid_block"),
                last,
                blocks.resnet(config.mid_block_scale_factor),
                MidRest::Resnet(blocks.mid_attention(last)),
            )
        };
        Ok(Self {
            placement: vs.placement(),
            time_proj,
            time_embedding: TimestepEmbedding::load(&(vs / "time_embedding"), waves, blocks.temb_channels, Activation::Silu)?,
            conv_in: Conv2d::load(&(vs / "conv_in"), ConvShape::same(config.in_channels, first))?,
            mid_block: (config.mid_block_type != MidBlockType::None).then(mid_block).transpose()?,
            up_blocks: load_up(vs, last, skips, &blocks.up())?,
            down_blocks,
            conv_norm_out: GroupNorm::load(&(vs / "conv_norm_out"), config.norm_num_groups, first, config.norm_eps)?,
            conv_out: Conv2d::load(&(vs / "conv_out"), ConvShape::same(first, config.out_channels))?,
            config,
        })
    }

    /// sample `[B, in, h, w]` whose sides are multiples of the grid, timesteps `[B]` (may be fractional)
    /// → model output `[B, out, h, w]`
    pub(in crate::diffusion) fn forward(&self, sample: &Tensor, timesteps: &Tensor) -> Result<Tensor> {
        let sample = match self.config.center_input_sample {
            true => sample.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?,
            false => sample.shallow_clone(),
        };
        let temb = self.embed_time(timesteps)?;
        let cond = Conditioning { temb: Some(&temb), ..Conditioning::default() };
        let mut hidden = self.conv_in.forward(&channels_last(&sample)?)?;
        let mut skips = vec![hidden.shallow_clone()];
        for block in &self.down_blocks {
            hidden = block.forward(hidden, cond, &mut skips)?;
        }
        if let Some(mid_block) = &self.mid_block {
            hidden = mid_block.forward(&hidden, cond)?;
        }
        for block in &self.up_blocks {
            hidden = block.forward(hidden, cond, &mut skips)?;
        }
        // diffusers has SiLU here whatever `act_fn` says.
        let hidden = self.conv_norm_out.forward_then(&hidden, Activation::Silu)?;
        let output = self.conv_out.forward(&hidden)?;
        match self.time_proj {
            TimeProjection::Positional(_) => Ok(output),
            TimeProjection::Fourier(_) => output.f_div(&timesteps.f_to_kind(output.kind())?.f_reshape([-1, 1, 1, 1])?),
        }
    }

    /// The embedding of `[B]` timesteps with the blocks' activation already applied: `[B, temb]`.
    fn embed_time(&self, timesteps: &Tensor) -> Result<Tensor> {
        let waves = self.time_proj.forward(timesteps, self.placement)?;
        self.config.act_fn.forward(&self.time_embedding.forward(&waves, None)?, self.placement)
    }
}

impl TimeProjection {
    /// With the number of its waves.
    fn load(vs: &Scope, config: &UNet2DConfig, channels: i64) -> std::result::Result<(Self, i64), LoadError> {
        let UNet2DConfig { flip_sin_to_cos, freq_shift, .. } = *config;
        Ok(match config.time_embedding_type {
            TimeEmbeddingType::Positional => (Self::Positional(Timesteps { channels, flip_sin_to_cos, freq_shift }), channels),
            TimeEmbeddingType::Fourier => (Self::Fourier((vs / "time_proj").tensor("weight", &[channels])?), 2 * channels),
        })
    }

    /// `[B] → [B, waves]` in the placement's dtype
    fn forward(&self, timesteps: &Tensor, placement: Placement) -> Result<Tensor> {
        let frequencies = match self {
            Self::Positional(timesteps_of) => return timesteps_of.forward(timesteps, placement),
            Self::Fourier(frequencies) => frequencies.f_to_kind(Kind::Float)?,
        };
        let deviations = timesteps.f_to_kind(Kind::Float)?.f_log()?.f_unsqueeze(1)?;
        let angles = deviations.f_mul(&frequencies.f_unsqueeze(0)?)?.f_mul_scalar(2.0)?.f_mul_scalar(PI)?; // [B, C]
        Tensor::f_cat(&[angles.f_sin()?, angles.f_cos()?], 1)?.f_to_kind(placement.kind)
    }
}

/// The blocks' shapes, from the config.
struct BlockBuilder<'a> {
    config: &'a UNet2DConfig,
    temb_channels: i64,
}

impl BlockBuilder<'_> {
    fn resnet(&self, output_scale_factor: f64) -> ResnetSettings {
        let UNet2DConfig { norm_num_groups, norm_eps, act_fn, resnet_time_scale_shift, .. } = *self.config;
        ResnetSettings {
            groups: norm_num_groups,
            eps: norm_eps,
            act_fn,
            temb_channels: Some(self.temb_channels),
            output_scale_factor,
            time_scale_shift: resnet_time_scale_shift,
            resample: Resample::None,
        }
    }

    fn mid_attention(&self, channels: i64) -> Option<AttentionSettings> {
        let UNet2DConfig { norm_eps, mid_block_scale_factor, add_attention, .. } = *self.config;
        add_attention.then(|| {
            AttentionSettings::Own(AttentionBlockSettings {
                heads: self.config.heads(channels),
                groups: self.config.mid_groups(),
                eps: norm_eps,
                rescale_output_factor: mid_block_scale_factor,
            })
        })
    }

    /// The settings of the block at level `index`, counted from the top of the U; `resampling` unless it is the last.
    fn block(&self, index: usize, attends: bool, resampling: Option<ResampleType>) -> BlockSettings {
        let UNet2DConfig { norm_num_groups, norm_eps, .. } = *self.config;
        let outputs = self.config.block_out_channels[index];
        let attention = || {
            let (heads, groups) = (self.config.heads(outputs), Some(norm_num_groups));
            AttentionSettings::Own(AttentionBlockSettings { heads, groups, eps: norm_eps, rescale_output_factor: 1.0 })
        };
        BlockSettings {
            outputs,
            layers: self.config.layers_per_block,
            resnet: self.resnet(1.0),
            attentions: vec![attends.then(attention); self.config.layers_per_block as usize + 1],
            resampling: match resampling {
                None => Resampling::None,
                Some(ResampleType::Resnet) if attends => Resampling::Resnet,
                Some(_) => Resampling::Conv,
            },
            downsample_padding: self.config.downsample_padding,
        }
    }

    fn down(&self) -> Vec<BlockSettings> {
        let types = &self.config.down_block_types;
        let block = |(index, kind): (usize, &DownBlockType)| {
            let resampling = (index + 1 < types.len()).then_some(self.config.downsample_type);
            self.block(index, *kind == DownBlockType::AttnDownBlock2D, resampling)
        };
        types.iter().enumerate().map(block).collect()
    }

    /// From the bottom up.
    fn up(&self) -> Vec<BlockSettings> {
        let types = &self.config.up_block_types;
        let block = |(index, kind): (usize, &UpBlockType)| {
            let resampling = (index + 1 < types.len()).then_some(self.config.upsample_type);
            self.block(types.len() - 1 - index, *kind == UpBlockType::AttnUpBlock2D, resampling)
        };
        types.iter().enumerate().map(block).collect()
    }
}
