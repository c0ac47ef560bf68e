//! The variational autoencoder between pixels and latents (Kingma and Welling, 2013; Rombach et al., 2022), diffusers'
//! `AutoencoderKL`.

use tch::{Kind, Tensor};

use super::{
    attention::{AttentionBlockSettings, canonical_name},
    config::VaeConfig,
    resnet::{Downsample2D, Resample, ResnetBlock2D, ResnetSettings, TimeScaleShift, Upsample2D},
    tiling::TileSize,
    unet_blocks::{AttentionSettings, Conditioning, MidBlock, MidRest},
};
use crate::diffusion::{
    autoencoder::is_finite,
    device::Placement,
    error::LoadError,
    files::ModelFiles,
    layers::{Activation, Conv2d, ConvShape, GroupNorm, Result, channels_last},
    weights::Scope,
};

/// diffusers' fixed epsilon of the VAE's group norms; no config names it.
const EPS: f64 = 1e-6;
/// diffusers' `DiagonalGaussianDistribution` keeps the logarithm of the variance in this range.
const LOGVAR_RANGE: (f64, f64) = (-30.0, 20.0);

/// Encodes pixels to latents and decodes latents to pixels.
pub(in crate::diffusion) struct AutoencoderKL {
    config: VaeConfig,
    placement: Placement,
    encoder: Encoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    decoder: Decoder,
}

impl AutoencoderKL {
    /// Loads the config and the weights of the part `vae`.
    pub(in crate::diffusion) fn load(files: &ModelFiles, part: &str, placement: Placement) -> std::result::Result<Self, LoadError> {
        let config = VaeConfig::read(files, part)?;
        // float16 overflows in the VAEs whose config asks to be upcast.
        let kind = if config.force_upcast && placement.kind == Kind::Half { Kind::Float } else { placement.kind };
        let weights = files.weights(part, canonical_name, Placement { kind, ..placement })?;
        let model = Self::build(&weights.root(), config)?;
        weights.finish()?;
        Ok(model)
    }

    fn build(vs: &Scope, config: VaeConfig) -> std::result::Result<Self, LoadError> {
        let latents = config.latent_channels;
        let quant = |name, channels| Conv2d::load(&(vs / name), ConvShape::pointwise(channels, channels));
        Ok(Self {
            placement: vs.placement(),
            // Mean and logarithm of the variance.
            encoder: Encoder::load(&(vs / "encoder"), 2 * latents, &config)?,
            quant_conv: config.use_quant_conv.then(|| quant("quant_conv", 2 * latents)).transpose()?,
            post_quant_conv: config.use_post_quant_conv.then(|| quant("post_quant_conv", latents)).transpose()?,
            decoder: Decoder::load(&(vs / "decoder"), &config)?,
            config,
        })
    }

    /// Where and in which dtype it works.
    pub(in crate::diffusion) fn placement(&self) -> Placement {
        self.placement
    }

    /// Bytes that a decode takes for each pixel, at its worst: the convolutions at full size with the most channels hold four feature maps,
    /// which are what goes in and what comes out, each in its own and in oneDNN's order. (Measured on the CPU in float32: 3.98 kB with 256
    /// channels, where this says 4.10 kB.)
    pub(in crate::diffusion) fn decode_bytes_per_pixel(&self) -> i64 {
        let channels = &self.config.block_out_channels;
        let most = channels.get(1).or(channels.first()).copied().unwrap_or_default();
        4 * most * self.placement.kind.elt_size_in_bytes() as i64
    }

    /// As [`Self::decode_bytes_per_pixel`]: an encode holds five feature maps of its first block's channels. (2.56 kB with 128.)
    pub(in crate::diffusion) fn encode_bytes_per_pixel(&self) -> i64 {
        let first = self.config.block_out_channels.first().copied().unwrap_or_default();
        5 * first * self.placement.kind.elt_size_in_bytes() as i64
    }

    /// Its config.
    pub(in crate::diffusion) fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// pixels `[1, 3, H, W]` in −1..1 → what the encoder knows of their latents; in tiles of this size where one is given and smaller
    pub(in crate::diffusion) fn encode(&self, pixels: &Tensor, tiles: Option<TileSize>) -> Result<Posterior> {
        let moments = match tiles {
            Some(tiles) => tiles.encode(pixels, |tile| self.moments(tile))?,
            None => self.moments(pixels)?,
        };
        let channels = self.config.latent_channels;
        let (mean, logvar) = (moments.f_narrow(1, 0, channels)?, moments.f_narrow(1, channels, channels)?);
        let std = logvar.f_clamp(LOGVAR_RANGE.0, LOGVAR_RANGE.1)?.f_mul_scalar(0.5)?.f_exp()?;
        Ok(Posterior { mean, std, scaling_factor: self.config.scaling_factor })
    }

    /// pixels `[1, 3, H, W]` → mean and log-variance `[1, 2C, h, w]`, float32
    fn moments(&self, pixels: &Tensor) -> Result<Tensor> {
        let hidden = self.encoder.forward(&channels_last(&pixels.f_to_kind(self.placement.kind)?)?)?;
        let moments = match &self.quant_conv {
            Some(conv) => conv.forward(&hidden)?,
            None => hidden,
        };
        moments.f_to_kind(Kind::Float)
    }

    /// latents `[1, C, h, w]` in the UNet's scale → pixels `[1, 3, H, W]`, float32 in about −1..1; in tiles of this size where one is
    /// given and smaller
    pub(in crate::diffusion) fn decode(&self, latents: &Tensor, tiles: Option<TileSize>) -> Result<Tensor> {
        let latents = latents.f_div_scalar(self.config.scaling_factor)?;
        match tiles {
            Some(tiles) => tiles.decode(&latents, |tile| self.pixels(tile)),
            None => self.pixels(&latents),
        }
    }

    /// latents `[1, C, h, w]` in the decoder's scale → pixels `[1, 3, H, W]`, float32
    fn pixels(&self, latents: &Tensor) -> Result<Tensor> {
        let latents = channels_last(&latents.f_to_kind(self.placement.kind)?)?;
        let hidden = match &self.post_quant_conv {
            Some(conv) => conv.forward(&latents)?,
            None => latents,
        };
        self.decoder.forward(&hidden)?.f_to_kind(Kind::Float)
    }
}

/// A picture's latents, each a normal distribution; diffusers' `DiagonalGaussianDistribution`.
pub(in crate::diffusion) struct Posterior {
    mean: Tensor,
    std: Tensor,
    scaling_factor: f64,
}

impl Posterior {
    /// Whether mean and standard deviation are numbers.
    pub(in crate::diffusion) fn is_finite(&self) -> Result<bool> {
        Ok(is_finite(&self.mean)? && is_finite(&self.std)?)
    }

    /// The likeliest latents as the encoder gives them: not in the UNet's scale, for instruct-pix2pix is trained with that.
    pub(in crate::diffusion) fn mode(&self) -> Tensor {
        self.mean.shallow_clone()
    }

    /// Latents drawn with `[1, C, h, w]` of noise, in the UNet's scale.
    pub(in crate::diffusion) fn sample(&self, noise: &Tensor) -> Result<Tensor> {
        self.mean.f_add(&self.std.f_mul(noise)?)?.f_mul_scalar(self.scaling_factor)
    }
}

/// The tail of both halves: norm, activation, convolution.
struct Head {
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    act_fn: Activation,
}

impl Head {
    fn load(vs: &Scope, inputs: i64, outputs: i64, config: &VaeConfig) -> std::result::Result<Self, LoadError> {
        Ok(Self {
            conv_norm_out: GroupNorm::load(&(vs / "conv_norm_out"), config.norm_num_groups, inputs, EPS)?,
            conv_out: Conv2d::load(&(vs / "conv_out"), ConvShape::same(inputs, outputs))?,
            act_fn: config.act_fn,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.conv_out.forward(&self.conv_norm_out.forward_then(x, self.act_fn)?)
    }
}

/// The half that makes latents of pixels; diffusers' `Encoder`.
pub(super) struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<(Vec<ResnetBlock2D>, Option<Downsample2D>)>,
    mid_block: MidBlock,
    head: Head,
}

impl Encoder {
    /// `outputs`: the channels that it gives, which differ with what is made of them.
    pub(super) fn load(vs: &Scope, outputs: i64, config: &VaeConfig) -> std::result::Result<Self, LoadError> {
        let channels = &config.block_out_channels;
        let mut inputs = channels[0];
        let conv_in = Conv2d::load(&(vs / "conv_in"), ConvShape::same(config.in_channels, inputs))?;
        let mut down_blocks = Vec::new();
        for (index, &width) in channels.iter().enumerate() {
            let block = vs / "down_blocks" / index;
            let resnets = load_resnets(&block, inputs, width, config.layers_per_block, config)?;
            let downsampler = || Downsample2D::load(&(&block / "downsamplers" / 0), width, 0);
            down_blocks.push((resnets, (index + 1 < channels.len()).then(downsampler).transpose()?));
            inputs = width;
        }
        let mid_block = load_mid_block(vs, inputs, config)?;
        Ok(Self { conv_in, down_blocks, mid_block, head: Head::load(vs, inputs, outputs, config)? })
    }

    /// `[B, 3, H, W] → [B, outputs, h, w]`
    pub(super) fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let mut hidden = self.conv_in.forward(pixels)?;
        for (resnets, downsampler) in &self.down_blocks {
            for resnet in resnets {
                hidden = resnet.forward(&hidden, None)?;
            }
            if let Some(downsampler) = downsampler {
                hidden = downsampler.forward(&hidden)?;
            }
        }
        self.head.forward(&self.mid_block.forward(&hidden, Conditioning::default())?)
    }
}

/// The half that makes pixels of latents; diffusers' `Decoder`.
pub(super) struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<(Vec<ResnetBlock2D>, Option<Upsample2D>)>,
    head: Head,
}

impl Decoder {
    pub(super) fn load(vs: &Scope, config: &VaeConfig) -> std::result::Result<Self, LoadError> {
        let channels: Vec<i64> = config.block_out_channels.iter().rev().copied().collect();
        let mut inputs = channels[0];
        let conv_in = Conv2d::load(&(vs / "conv_in"), ConvShape::same(config.latent_channels, inputs))?;
        let mid_block = load_mid_block(vs, inputs, config)?;
        let mut up_blocks = Vec::new();
        for (index, &outputs) in channels.iter().enumerate() {
            let block = vs / "up_blocks" / index;
            let resnets = load_resnets(&block, inputs, outputs, config.layers_per_block + 1, config)?;
            let upsampler = || Upsample2D::load(&(&block / "upsamplers" / 0), outputs);
            up_blocks.push((resnets, (index + 1 < channels.len()).then(upsampler).transpose()?));
            inputs = outputs;
        }
        Ok(Self { conv_in, mid_block, up_blocks, head: Head::load(vs, inputs, config.out_channels, config)? })
    }

    /// `[B, C, h, w] → [B, 3, H, W]`
    pub(super) fn forward(&self, latents: &Tensor) -> Result<Tensor> {
        let mut hidden = self.mid_block.forward(&self.conv_in.forward(latents)?, Conditioning::default())?;
        for (resnets, upsampler) in &self.up_blocks {
            for resnet in resnets {
                hidden = resnet.forward(&hidden, None)?;
            }
            if let Some(upsampler) = upsampler {
                let (_, _, height, width) = hidden.size4()?;
                hidden = upsampler.forward(&hidden, (2 * height, 2 * width))?;
            }
        }
        self.head.forward(&hidden)
    }
}

fn load_resnets(
    block: &Scope,
    inputs: i64,
    outputs: i64,
    count: i64,
    config: &VaeConfig,
) -> std::result::Result<Vec<ResnetBlock2D>, LoadError> {
    let inputs_of = |index| if index == 0 { inputs } else { outputs };
    (0..count)
        .map(|index| ResnetBlock2D::load(&(block / "resnets" / index), inputs_of(index), outputs, resnet_settings(config)))
        .collect()
}

fn resnet_settings(config: &VaeConfig) -> ResnetSettings {
    let VaeConfig { norm_num_groups, act_fn, .. } = *config;
    ResnetSettings {
        groups: norm_num_groups,
        eps: EPS,
        act_fn,
        temb_channels: None,
        output_scale_factor: 1.0,
        time_scale_shift: TimeScaleShift::Default,
        resample: Resample::None,
    }
}

/// diffusers' `UNetMidBlock2D`: all cells attend to each other between two residual blocks.
fn load_mid_block(vs: &Scope, channels: i64, config: &VaeConfig) -> std::result::Result<MidBlock, LoadError> {
    let groups = Some(config.norm_num_groups);
    let attention = AttentionBlockSettings { heads: 1, groups, eps: EPS, rescale_output_factor: 1.0 };
    let attention = config.mid_block_add_attention.then_some(AttentionSettings::Own(attention));
    MidBlock::load(&(vs / "mid_block"), channels, resnet_settings(config), MidRest::Resnet(attention))
}
