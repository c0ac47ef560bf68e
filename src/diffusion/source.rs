//! What a request's pictures become before the first step, in the order in which diffusers' pipelines draw noise for it.

use std::sync::Arc;

use tch::Tensor;

use super::{
    conditioning::RowPicture,
    first_stage::{Encoded, FirstStage},
    layers::Result,
    mask::{Mask, Underlay},
    models::unet_input::UNetInput,
    pixels::resized,
    schedulers::{NoiseMix, Plan},
};
use crate::{
    dispatch::ports::{EngineError, PaintOrder},
    domain::{GenerationRequest, NoiseSource},
};

/// A request's pictures, encoded once for all its canvases.
pub(super) struct Source {
    /// Of the picture, where the latents begin with it or stay by it.
    encoded: Option<Encoded>,
    begins_with_noise: bool,
    role: Role,
    underlay: Option<Arc<Underlay>>,
    noise_source: NoiseSource,
}

/// What the pictures are for, besides the beginning.
enum Role {
    Nothing,
    /// A mask on an ordinary model: its cells, `[1, 1, h, w]`, 1 where the picture is painted anew.
    Kept(Tensor),
    /// An inpainting model is shown the mask's cells and the picture without what is masked.
    Masked {
        cells: Tensor,
        encoded: Encoded,
    },
    /// An instruct-pix2pix model is shown the picture.
    Instructed(RowPicture),
}

/// What a canvas begins with.
pub(super) struct Beginning {
    pub(super) latents: Tensor, // [1, C, h, w] float32
    /// What the UNet sees beside them.
    pub(super) picture: RowPicture,
    pub(super) kept: Option<Kept>,
}

/// The picture that a mask on an ordinary model keeps: after each step, what is not masked is the picture again, noised as the latents
/// then are. As in diffusers' `StableDiffusionInpaintPipeline`.
#[derive(Debug)]
pub(super) struct Kept {
    cells: Tensor,         // [1, 1, h, w]
    image_latents: Tensor, // [1, C, h, w]
    noise: Tensor,         // [1, C, h, w]
}

impl Kept {
    /// `(1 − mask) · picture + mask · latents`, the picture noised as at the beginning of step `next`; without noise when there is none.
    pub(super) fn put_back(&self, latents: &Tensor, next: Option<NoiseMix>) -> Result<Tensor> {
        let picture = match next {
            Some(next) => mix(next, &self.image_latents, &self.noise)?,
            None => self.image_latents.shallow_clone(),
        };
        let kept = self.cells.f_neg()?.f_add_scalar(1.0)?.f_mul(&picture)?;
        kept.f_add(&self.cells.f_mul(latents)?)
    }
}

impl Source {
    /// Encodes what the request brings, as the model's UNet wants it.
    pub(super) fn encode(first_stage: &FirstStage, input: UNetInput, order: &PaintOrder) -> std::result::Result<Self, EngineError> {
        let encoder = PictureEncoder { first_stage, request: &order.request };
        let image = order.init_image.as_deref().map(|image| resized(image, order.request.width, order.request.height));
        let pixels = image.as_deref().map(|image| first_stage.pixels(image)).transpose()?;
        let mask = encoder.mask(order);
        let begins_with_noise = input == UNetInput::Picture || order.request.begins_with_noise();
        let role = encoder.role(input, pixels.as_ref(), mask.as_ref())?;
        let is_wanted = !begins_with_noise || matches!(role, Role::Kept(_));
        let encoded = pixels.filter(|_| is_wanted).map(|pixels| first_stage.encode(&pixels)).transpose()?;
        let underlay = image.zip(mask).map(|(image, mask)| Arc::new(Underlay::new(image, mask)));
        Ok(Self { encoded, begins_with_noise, role, underlay, noise_source: order.request.noise_source })
    }

    /// What is laid under the painted pictures.
    pub(super) fn underlay(&self) -> Option<Arc<Underlay>> {
        self.underlay.clone()
    }

    /// Begins a canvas; `noise` draws `[1, C, h, w]` from its generator.
    pub(super) fn begin(&self, plan: &Plan, mut noise: impl FnMut() -> Result<Tensor>) -> Result<Beginning> {
        let image_latents = self.encoded.as_ref().map(|encoded| self.latents_of(encoded, &mut noise)).transpose()?;
        let initial = noise()?;
        let latents = match (&image_latents, plan.calls.first()) {
            (Some(image_latents), Some(first)) if !self.begins_with_noise => mix(first.start, image_latents, &initial)?,
            _ => initial.f_mul_scalar(plan.init_noise_sigma)?,
        };
        let (mut picture, mut kept) = (RowPicture::None, None);
        match (&self.role, image_latents) {
            (Role::Kept(cells), Some(image_latents)) => {
                // diffusers samples the masked picture here, too, which it has no use for; noise that a step adds comes after it.
                let _unused = self.encoded.as_ref().map(|encoded| self.latents_of(encoded, &mut noise)).transpose()?;
                kept = Some(Kept { cells: cells.shallow_clone(), image_latents, noise: initial });
            }
            (Role::Masked { cells, encoded }, _) => {
                let masked = self.latents_of(encoded, &mut noise)?;
                picture = RowPicture::Everywhere(Tensor::f_cat(&[cells, &masked], 1)?);
            }
            (Role::Instructed(instructed), _) => picture = instructed.shallow_clone(),
            (Role::Nothing | Role::Kept(_), _) => {}
        }
        Ok(Beginning { latents, picture, kept })
    }

    /// A picture in the UNet's scale. diffusers samples it with the canvas's own generator, before the latents' noise. AUTOMATIC1111 draws
    /// the latents' noise first, and what its VAE samples follows no seed: here the mean stands for it.
    fn latents_of(&self, encoded: &Encoded, noise: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        match self.noise_source {
            NoiseSource::Cpu => encoded.sample(noise),
            NoiseSource::Philox => encoded.sample(|| Ok(Tensor::from(0_f32))),
        }
    }
}

/// `signal · picture + noise · ε`, diffusers' `add_noise`.
fn mix(mix: NoiseMix, picture: &Tensor, noise: &Tensor) -> Result<Tensor> {
    picture.f_mul_scalar(mix.signal)?.f_add(&noise.f_mul_scalar(mix.noise)?)
}

struct PictureEncoder<'a> {
    first_stage: &'a FirstStage,
    request: &'a GenerationRequest,
}

impl PictureEncoder<'_> {
    fn mask(&self, order: &PaintOrder) -> Option<Mask> {
        let blur = self.request.inpainting.as_ref()?.mask_blur;
        Some(Mask::new(order.mask_image.as_deref()?, (self.request.width, self.request.height), blur))
    }

    fn role(&self, input: UNetInput, pixels: Option<&Tensor>, mask: Option<&Mask>) -> std::result::Result<Role, EngineError> {
        match (input, mask) {
            (UNetInput::Latents, None) => Ok(Role::Nothing),
            (UNetInput::Latents, Some(mask)) => Ok(Role::Kept(self.cells(&mask.binary(self.first_stage.device())?)?)),
            (UNetInput::MaskedPicture, mask) => self.masked(pixels, mask),
            (UNetInput::Picture, _) => self.instructed(pixels),
        }
    }

    /// The masked picture of an inpainting model. Without a mask all of it is: the picture is grey then, whatever it was.
    fn masked(&self, pixels: Option<&Tensor>, mask: Option<&Mask>) -> std::result::Result<Role, EngineError> {
        let device = self.first_stage.device();
        let (height, width) = (i64::from(self.request.height), i64::from(self.request.width));
        let binary = match mask {
            Some(mask) => mask.binary(device)?,
            None => Tensor::f_ones([1, 1, height, width], (tch::Kind::Float, device))?,
        };
        let grey = || Tensor::f_zeros([1, 3, height, width], (tch::Kind::Float, device));
        let pixels = pixels.map_or_else(grey, |pixels| Ok(pixels.shallow_clone()))?;
        let masked = pixels.f_mul(&binary.f_neg()?.f_add_scalar(1.0)?)?;
        Ok(Role::Masked { cells: self.cells(&binary)?, encoded: self.first_stage.encode(&masked)? })
    }

    fn instructed(&self, pixels: Option<&Tensor>) -> std::result::Result<Role, EngineError> {
        let (Some(pixels), Some(scale)) = (pixels, self.request.image_guidance_scale) else {
            return Err(EngineError::Failed("an instruct-pix2pix model was given no picture".to_owned()));
        };
        Ok(Role::Instructed(RowPicture::Instruction { image_latents: self.first_stage.encode(pixels)?.mode(), scale }))
    }

    /// A mask's value at the corner of each latent cell: `[1, 1, H, W] → [1, 1, h, w]`, torch's `nearest`.
    fn cells(&self, binary: &Tensor) -> Result<Tensor> {
        let factor = self.first_stage.factor();
        let side = |pixels: u32| i64::from(pixels / factor);
        binary.f_upsample_nearest2d([side(self.request.height), side(self.request.width)], None, None)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tch::{Device, Kind};

    use super::*;
    use crate::{
        diffusion::{
            device::Placement,
            files::ModelFiles,
            models::vae::AutoencoderKL,
            schedulers::{PlanOrder, SchedulerConfig, plan},
        },
        domain::{SchedulerAlgorithm, SchedulerName},
    };

    /// A picture that the latents begin with, as the demo model's VAE knows it.
    fn source(noise_source: NoiseSource) -> Source {
        let files = ModelFiles::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")).unwrap();
        let placement = Placement { device: Device::Cpu, kind: Kind::Float, batch_invariant: false };
        let pixels = Tensor::zeros([1, 3, 64, 64], (Kind::Float, Device::Cpu));
        let posterior = AutoencoderKL::load(&files, "vae", placement).unwrap().encode(&pixels, None).unwrap();
        let encoded = Some(Encoded::Posterior(posterior));
        Source { encoded, begins_with_noise: false, role: Role::Nothing, underlay: None, noise_source }
    }

    #[test]
    fn with_philox_the_first_noise_of_a_seed_is_the_latents_own() {
        let name = SchedulerName::own(SchedulerAlgorithm::Ddim);
        let plan = plan(&SchedulerConfig::default(), PlanOrder { name, steps: 4, begin: 2, eta: None });
        let mut begun = Vec::new();
        for (noise_source, draws) in [(NoiseSource::Cpu, 2), (NoiseSource::Philox, 1)] {
            let mut drawn = 0;
            let noise = || {
                drawn += 1;
                Ok(Tensor::ones([1, 4, 8, 8], (Kind::Float, Device::Cpu)))
            };
            begun.push(source(noise_source).begin(&plan, noise).unwrap().latents);
            assert_eq!(drawn, draws, "{noise_source:?}");
        }
        assert_ne!(begun[0], begun[1], "the posterior's noise has no effect");
    }
}
