//! Cheap small pictures of what a canvas will be.

use tch::{Device, Tensor};

use super::{
    error::LoadError,
    files::ModelFiles,
    first_stage::{FirstStageParts, in_colour},
    latent_rgb::LatentRgb,
    layers::Result,
};

/// The longest side of a preview of a model that moves pixels; the others have the size of their latents.
const LONGEST_SIDE: i64 = 64;

/// How a model's samples become a small picture.
pub(super) enum Previewer {
    Latents(LatentRgb),
    Pixels,
}

impl Previewer {
    /// `None` for latents whose colours are not known. `(scaling_factor, channels)` are those of the latents.
    pub(super) fn load(
        files: &ModelFiles,
        first_stage: FirstStageParts,
        (scaling_factor, channels): (f64, i64),
        device: Device,
    ) -> std::result::Result<Option<Self>, LoadError> {
        if first_stage == FirstStageParts::Pixels {
            return Ok(Some(Self::Pixels));
        }
        Ok(LatentRgb::load(files, scaling_factor, channels, device)?.map(Self::Latents))
    }

    /// What the UNet moves, `[1, C, h, w]`, → `[3, H, W]` in about −1..1
    pub(super) fn apply(&self, sample: &Tensor) -> Result<Tensor> {
        match self {
            Self::Latents(latent_rgb) => latent_rgb.apply(sample),
            Self::Pixels => in_colour(&shrink(sample)?),
        }
    }
}

/// Each cell becomes the mean of those that it takes the place of.
fn shrink(sample: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = sample.size4()?;
    let times = (height.max(width) + LONGEST_SIDE - 1) / LONGEST_SIDE;
    sample.f_adaptive_avg_pool2d([(height / times).max(1), (width / times).max(1)])
}
