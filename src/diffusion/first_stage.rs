//! The first stage of a model: between pixels and what its UNet moves, which are latents or, in the oldest models, the pixels themselves.

use std::sync::Arc;

use image::RgbImage;
use tch::{Device, Tensor};

use super::{
    autoencoder::{Autoencoder, VaePolicy},
    device::Placement,
    error::LoadError,
    files::ModelFiles,
    layers::Result,
    models::{
        config::VaeConfig,
        vae::Posterior,
        vq::{VqConfig, VqModel},
    },
    pixels::{to_grey_tensor, to_tensor},
    unet::Samples,
};
use crate::{dispatch::ports::EngineError, domain::luma_of};

/// Where a model's first stage is, and of which class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstStageParts {
    /// An `AutoencoderKL` in this folder.
    Kl(&'static str),
    /// A `VQModel` in this folder.
    Vq(&'static str),
    /// None: the UNet moves pixels.
    Pixels,
}

/// What a first stage says of what the UNet moves. Models whose latents are the same can go on with each other's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Latents {
    /// None where any number does: the UNet's own.
    pub(super) channels: Option<i64>,
    /// Pixels a latent cell, in each direction.
    pub(super) factor: u32,
    pub(super) scaling_factor: f64,
}

impl FirstStageParts {
    /// The part that it is, if it is one.
    pub(super) fn part(self) -> Option<&'static str> {
        match self {
            Self::Kl(part) | Self::Vq(part) => Some(part),
            Self::Pixels => None,
        }
    }

    /// Reads its config.
    pub(super) fn latents(self, files: &ModelFiles) -> std::result::Result<Latents, LoadError> {
        Ok(match self {
            Self::Kl(part) => {
                let config = VaeConfig::read(files, part)?;
                let (channels, factor) = (Some(config.latent_channels), config.factor());
                Latents { channels, factor, scaling_factor: config.scaling_factor }
            }
            Self::Vq(part) => {
                let config = VqConfig::read(files, part)?;
                let (channels, factor) = (Some(config.channels()), config.halves().factor());
                Latents { channels, factor, scaling_factor: config.scaling_factor() }
            }
            Self::Pixels => Latents { channels: None, factor: 1, scaling_factor: 1.0 },
        })
    }
}

/// Encodes pictures to what the UNet moves, and decodes that to pixels.
pub(super) struct FirstStage {
    codec: Codec,
    factor: u32,
    device: Device,
}

enum Codec {
    Kl(Box<Autoencoder>),
    Vq(Box<VqModel>),
    /// One channel (grey) or three.
    Pixels {
        channels: i64,
    },
}

impl FirstStage {
    /// Loads it, for a UNet that moves such latents.
    pub(super) fn load(
        files: &Arc<ModelFiles>,
        parts: FirstStageParts,
        (latents, samples): (Latents, Samples),
        placement: Placement,
        vae_policy: VaePolicy,
    ) -> std::result::Result<Self, LoadError> {
        let codec = match parts {
            FirstStageParts::Kl(part) => {
                Autoencoder::load(Arc::clone(files), part, placement, vae_policy).map(Box::new).map(Codec::Kl)
            }
            FirstStageParts::Vq(part) => VqModel::load(files, part, placement).map(Box::new).map(Codec::Vq),
            FirstStageParts::Pixels => Ok(Codec::Pixels { channels: samples.out_channels }),
        };
        Ok(Self { codec: codec?, factor: latents.factor, device: placement.device })
    }

    /// Where it is.
    pub(super) fn device(&self) -> Device {
        self.device
    }

    /// Pixels a latent cell, in each direction.
    pub(super) fn factor(&self) -> u32 {
        self.factor
    }

    /// A picture as the encoder takes it: `[1, 3, H, W]` float32 in −1..1, of a model of grey pictures `[1, 1, H, W]`.
    pub(super) fn pixels(&self, picture: &RgbImage) -> Result<Tensor> {
        match self.codec {
            Codec::Pixels { channels: 1 } => to_grey_tensor(&luma_of(picture), self.device),
            _ => to_tensor(picture, self.device),
        }
    }

    /// What [`Self::pixels`] gave, as the UNet knows it.
    ///
    /// # Errors
    /// When the device fails, or an `AutoencoderKL` makes no numbers of it in float32 either.
    pub(super) fn encode(&self, pixels: &Tensor) -> std::result::Result<Encoded, EngineError> {
        Ok(match &self.codec {
            Codec::Kl(vae) => Encoded::Posterior(vae.encode(pixels)?),
            Codec::Vq(vq) => Encoded::Exact(vq.encode(pixels)?),
            Codec::Pixels { .. } => Encoded::Exact(pixels.shallow_clone()),
        })
    }

    /// What the UNet moved, `[1, C, h, w]`, → pixels `[3, H, W]` in about −1..1.
    ///
    /// # Errors
    /// When the device fails, or an `AutoencoderKL` makes no numbers of it in float32 either.
    pub(super) fn decode(&self, latents: &Tensor) -> std::result::Result<Tensor, EngineError> {
        Ok(match &self.codec {
            Codec::Kl(vae) => vae.decode(latents)?.f_squeeze_dim(0)?,
            Codec::Vq(vq) => vq.decode(latents)?.f_squeeze_dim(0)?,
            Codec::Pixels { .. } => in_colour(latents)?,
        })
    }
}

/// Samples that are pixels: `[1, 1 or 3, H, W] → [3, H, W]`.
pub(super) fn in_colour(sample: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = sample.size4()?;
    sample.f_squeeze_dim(0)?.f_expand([3, height, width], false)
}

/// A picture as the UNet knows it.
pub(super) enum Encoded {
    /// What an `AutoencoderKL` knows of it: a distribution.
    Posterior(Posterior),
    /// `[1, C, h, w]`
    Exact(Tensor),
}

impl Encoded {
    /// `[1, C, h, w]` in the UNet's scale. Noise of that shape is only drawn where the picture is a distribution.
    pub(super) fn sample(&self, noise: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        match self {
            Self::Posterior(posterior) => posterior.sample(&noise()?),
            Self::Exact(latents) => Ok(latents.shallow_clone()),
        }
    }

    /// `[1, C, h, w]`, the likeliest, as an `AutoencoderKL` gives them.
    pub(super) fn mode(&self) -> Tensor {
        match self {
            Self::Posterior(posterior) => posterior.mode(),
            Self::Exact(latents) => latents.shallow_clone(),
        }
    }
}
