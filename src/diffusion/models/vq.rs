//! The autoencoder whose decoder knows a codebook of latents only (van den Oord et al., 2017; Esser et al., 2021), diffusers' `VQModel`.

use serde::Deserialize;
use serde_json::Value;
use tch::{Kind, Tensor};

use super::{
    attention::canonical_name,
    config::VaeConfig,
    vae::{Decoder, Encoder},
};
use crate::diffusion::{
    device::Placement,
    error::LoadError,
    files::ModelFiles,
    layers::{Activation, Conv2d, ConvShape, Result, channels_last},
    weights::Scope,
};

/// `config.json` of a `VQModel`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(in crate::diffusion) struct VqConfig {
    block_out_channels: Vec<i64>,
    layers_per_block: i64,
    act_fn: Activation,
    latent_channels: i64,
    norm_num_groups: i64,
    num_vq_embeddings: i64,
    vq_embed_dim: Option<i64>,
    scaling_factor: f64,
    mid_block_add_attention: bool,
}

impl Default for VqConfig {
    fn default() -> Self {
        Self {
            block_out_channels: vec![64],
            layers_per_block: 1,
            act_fn: Activation::Silu,
            latent_channels: 3,
            norm_num_groups: 32,
            num_vq_embeddings: 256,
            vq_embed_dim: None,
            scaling_factor: 0.18215,
            mid_block_add_attention: true,
        }
    }
}

impl VqConfig {
    /// Reads the `config.json` of a part.
    pub(in crate::diffusion) fn read(files: &ModelFiles, part: &str) -> std::result::Result<Self, LoadError> {
        let config: Self = files.config(
            part,
            &[
                ("in_channels", &[Value::from(3)]),
                ("out_channels", &[Value::from(3)]),
                ("norm_type", &[Value::from("group")]),
                ("lookup_from_codebook", &[Value::Null, Value::Bool(false)]),
            ],
        )?;
        config.halves().check().map_err(|problem| files.invalid_config(part, problem))?;
        Ok(config)
    }

    /// Channels of the latents that the UNet moves.
    pub(in crate::diffusion) fn channels(&self) -> i64 {
        self.vq_embed_dim.unwrap_or(self.latent_channels)
    }

    /// The UNet's scale of latents.
    pub(in crate::diffusion) fn scaling_factor(&self) -> f64 {
        self.scaling_factor
    }

    /// What encoder and decoder are built from: the same parts as those of an `AutoencoderKL`.
    pub(in crate::diffusion) fn halves(&self) -> VaeConfig {
        VaeConfig {
            block_out_channels: self.block_out_channels.clone(),
            layers_per_block: self.layers_per_block,
            act_fn: self.act_fn,
            latent_channels: self.latent_channels,
            norm_num_groups: self.norm_num_groups,
            scaling_factor: self.scaling_factor,
            mid_block_add_attention: self.mid_block_add_attention,
            ..VaeConfig::default()
        }
    }
}

/// Encodes pixels to latents and decodes latents, drawn to the nearest entries of its codebook, to pixels.
pub(in crate::diffusion) struct VqModel {
    config: VqConfig,
    placement: Placement,
    encoder: Encoder,
    quant_conv: Conv2d,
    codebook: Tensor, // [entries, channels]
    post_quant_conv: Conv2d,
    decoder: Decoder,
}

impl VqModel {
    /// Loads the config and the weights of a part.
    pub(in crate::diffusion) fn load(files: &ModelFiles, part: &str, placement: Placement) -> std::result::Result<Self, LoadError> {
        let config = VqConfig::read(files, part)?;
        let weights = files.weights(part, canonical_name, placement)?;
        let model = Self::build(&weights.root(), config)?;
        weights.finish()?;
        Ok(model)
    }

    fn build(vs: &Scope, config: VqConfig) -> std::result::Result<Self, LoadError> {
        let (halves, latents, channels) = (config.halves(), config.latent_channels, config.channels());
        Ok(Self {
            placement: vs.placement(),
            encoder: Encoder::load(&(vs / "encoder"), latents, &halves)?,
            quant_conv: Conv2d::load(&(vs / "quant_conv"), ConvShape::pointwise(latents, channels))?,
            codebook: (vs / "quantize" / "embedding").tensor("weight", &[config.num_vq_embeddings, channels])?,
            post_quant_conv: Conv2d::load(&(vs / "post_quant_conv"), ConvShape::pointwise(channels, latents))?,
            decoder: Decoder::load(&(vs / "decoder"), &halves)?,
            config,
        })
    }

    /// pixels `[1, 3, H, W]` in −1..1 → latents `[1, C, h, w]` in the UNet's scale, float32, not yet drawn to the codebook
    pub(in crate::diffusion) fn encode(&self, pixels: &Tensor) -> Result<Tensor> {
        let hidden = self.encoder.forward(&channels_last(&pixels.f_to_kind(self.placement.kind)?)?)?;
        self.quant_conv.forward(&hidden)?.f_to_kind(Kind::Float)?.f_mul_scalar(self.config.scaling_factor)
    }

    /// latents `[B, C, h, w]` in the UNet's scale → pixels `[B, 3, H, W]`, float32 in about −1..1.
    pub(in crate::diffusion) fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let latents = latents.f_div_scalar(self.config.scaling_factor)?;
        let quantized = self.quantize(&latents)?.f_to_kind(self.placement.kind)?;
        self.decoder.forward(&self.post_quant_conv.forward(&channels_last(&quantized)?)?)?.f_to_kind(Kind::Float)
    }

    /// diffusers' `VectorQuantizer`: every cell becomes the nearest entry of the codebook.
    fn quantize(&self, latents: &Tensor) -> Result<Tensor> {
        let (batch, channels, height, width) = latents.size4()?;
        let codebook = self.codebook.f_to_kind(Kind::Float)?;
        let cells = latents.f_permute([0, 2, 3, 1])?.f_reshape([-1, channels])?; // [B·h·w, C]
        let nearest = Tensor::f_cdist(&cells, &codebook, 2.0, None)?.f_argmin(1, false)?;
        let cells = codebook.f_index_select(0, &nearest)?.f_reshape([batch, height, width, channels])?;
        cells.f_permute([0, 3, 1, 2])?.f_contiguous()
    }
}
