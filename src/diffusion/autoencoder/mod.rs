//! The VAE as the engine uses it: in tiles where a picture as a whole would take too much memory, and again in float32 where half
//! precision overflows.

#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tch::{Device, Kind, Tensor};
use tracing::warn;

use super::{
    device::Placement,
    error::LoadError,
    files::ModelFiles,
    layers::Result,
    models::{
        config::VaeConfig,
        tiling::TileSize,
        vae::{AutoencoderKL, Posterior},
    },
};
use crate::dispatch::ports::EngineError;

/// Tiles are not made smaller than this, in pixels: seams would show.
const SMALLEST_TILE: i64 = 256;

/// When pictures are encoded and decoded in tiles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VaeTiling {
    /// Where a picture as a whole would take more memory than there is for it.
    #[default]
    Auto,
    /// Where a picture is larger than a tile.
    Always,
    /// Never.
    Never,
}

/// How the VAE uses memory. A setting of the machine, never of what is free at the moment: a picture in tiles is a slightly different one, and
/// the same request must paint the same picture.
#[derive(Debug, Clone)]
pub(super) struct VaePolicy {
    pub(super) tiling: VaeTiling,
    /// Bytes for the feature maps of one encode or decode.
    pub(super) bytes: u64,
    /// What was repeated in float32 since somebody last took the number away.
    pub(super) float32_retries: Arc<AtomicU64>,
}

impl VaePolicy {
    /// The tiles for a picture of `pixels` (height, width) that takes `bytes_per_pixel`; none when it is to be done as a whole.
    fn tiles(&self, config: &VaeConfig, (height, width): (i64, i64), bytes_per_pixel: i64) -> Option<TileSize> {
        let fits = |pixels: i64| pixels.saturating_mul(bytes_per_pixel).cast_unsigned() <= self.bytes;
        let is_whole = match self.tiling {
            VaeTiling::Never => true,
            VaeTiling::Always => false,
            VaeTiling::Auto => fits(height.saturating_mul(width)),
        };
        if is_whole {
            return None;
        }
        let mut side = config.sample_size().max(SMALLEST_TILE);
        while !fits(side * side) && side / 2 >= SMALLEST_TILE {
            side /= 2;
        }
        Some(TileSize::of_pixels(side, i64::from(config.factor())))
    }
}

/// A VAE that can read itself again.
pub(super) struct Autoencoder {
    vae: AutoencoderKL,
    /// Its model's, to be read again.
    files: Arc<ModelFiles>,
    part: &'static str,
    policy: VaePolicy,
}

impl Autoencoder {
    /// Loads the config and the weights of a part.
    pub(super) fn load(
        files: Arc<ModelFiles>,
        part: &'static str,
        placement: Placement,
        policy: VaePolicy,
    ) -> std::result::Result<Self, LoadError> {
        Ok(Self { vae: AutoencoderKL::load(&files, part, placement)?, files, part, policy })
    }

    /// pixels `[1, 3, H, W]` in −1..1 → what the encoder knows of their latents
    ///
    /// # Errors
    /// When the device fails, or the latents are not finite in float32 either.
    pub(super) fn encode(&self, pixels: &Tensor) -> std::result::Result<Posterior, EngineError> {
        let encode = |vae: &AutoencoderKL| {
            let (_, _, height, width) = pixels.size4()?;
            let tiles = self.policy.tiles(vae.config(), (height, width), vae.encode_bytes_per_pixel());
            vae.encode(pixels, tiles)
        };
        self.until_finite(encode, Posterior::is_finite)
    }

    /// latents `[1, C, h, w]` in the UNet's scale → pixels `[1, 3, H, W]`, float32 in about −1..1
    ///
    /// On a GPU pixels in a dtype of float32's range are not looked at, for that would be waited for: whoever reads them does.
    ///
    /// # Errors
    /// When the device fails, or the pixels are not finite in float32 either.
    pub(super) fn decode(&self, latents: &Tensor) -> std::result::Result<Tensor, EngineError> {
        let decode = |vae: &AutoencoderKL| {
            let (_, _, height, width) = latents.size4()?;
            let factor = i64::from(vae.config().factor());
            let tiles = self.policy.tiles(vae.config(), (height * factor, width * factor), vae.decode_bytes_per_pixel());
            vae.decode(latents, tiles)
        };
        if self.vae.placement().device != Device::Cpu && self.vae.placement().kind != Kind::Half {
            return Ok(decode(&self.vae)?);
        }
        self.until_finite(decode, is_finite)
    }

    /// Runs the VAE; where it overflows in half precision, runs one with float32 weights, which are read again and dropped at once. Half
    /// precision comes first every time, so that no picture depends on those before it.
    fn until_finite<T>(
        &self,
        run: impl Fn(&AutoencoderKL) -> Result<T>,
        is_finite: impl Fn(&T) -> Result<bool>,
    ) -> std::result::Result<T, EngineError> {
        let checked = |vae: &AutoencoderKL| -> Result<Option<T>> {
            let output = run(vae)?;
            Ok(is_finite(&output)?.then_some(output))
        };
        let half = checked(&self.vae)?;
        let placement = self.vae.placement();
        if half.is_some() || placement.kind == Kind::Float {
            return half.ok_or(EngineError::PictureNotFinite);
        }
        warn!(dtype = ?placement.kind, "the VAE overflows; this picture goes through it in float32");
        self.policy.float32_retries.fetch_add(1, Ordering::Relaxed);
        let vae = AutoencoderKL::load(&self.files, self.part, Placement { kind: Kind::Float, ..placement })?;
        checked(&vae)?.ok_or(EngineError::PictureNotFinite)
    }
}

/// Whether a tensor holds numbers only.
pub(super) fn is_finite(tensor: &Tensor) -> Result<bool> {
    Ok(tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? != 0)
}
