//! A request to paint, parsed: a [`GenerationRequest`] that exists is legal for its model.

mod capability;
mod fields;
mod guidance;
mod img2img;
mod inpainting;
mod noise_source;
mod parse;
mod prompt;
mod refiner;
mod scheduler;
mod size;
mod sizes;

use std::{collections::BTreeMap, ops::RangeInclusive};

use serde::{Deserialize, Serialize};

use self::{
    fields::{default_priority, every_call},
    guidance::always,
    img2img::strength_steps,
};
pub use self::{
    img2img::Img2Img,
    inpainting::Inpainting,
    noise_source::NoiseSource,
    prompt::PromptSyntax,
    refiner::Refiner,
    sizes::{AestheticScores, SizeConditioning, micro_conditioning_fields},
};
use super::{Encoding, InputPicture, InputPictures, PictureRef, SchedulerName};

/// The largest seed: the largest whole number that every JSON reader keeps exactly (2^53 - 1).
pub const MAX_SEED: u64 = (1 << 53) - 1;
/// The largest seed to choose for a request that names none: leaves room for the seeds of all its pictures.
pub const MAX_RANDOM_SEED: u64 = MAX_SEED - (MAX_IMAGES - 1);
/// The guidance scales that a request may name.
pub const GUIDANCE_SCALES: RangeInclusive<f64> = 0.0..=50.0;
/// The numbers of steps that a request may name.
pub const STEPS: RangeInclusive<u32> = 1..=150;
const MAX_IMAGES: u64 = 16;

/// What to paint. Field names and ranges are those of the native API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GenerationRequest {
    /// The model's name.
    pub model: String,
    /// What the picture should show.
    pub prompt: String,
    /// What it should not show; `None` is diffusers' `None`, which an empty text is not for every model.
    pub negative_prompt: Option<String>,
    /// How both are written.
    #[serde(default)]
    pub prompt_syntax: PromptSyntax,
    /// The text encoder's layer that is read: 1 is the last, 2 the last but one, as in AUTOMATIC1111, which is diffusers' `clip_skip` plus
    /// one; `None` is the model's own.
    #[serde(default)]
    pub clip_skip: Option<u8>,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Denoising steps asked for.
    pub num_inference_steps: u32,
    /// Classifier-free guidance; 1 or less turns it off.
    pub guidance_scale: f64,
    /// How much of the standard deviation that guidance adds is taken away again, 0 to 1 (Lin et al., 2023).
    #[serde(default)]
    pub guidance_rescale: f64,
    /// From where to where guidance is on, in fractions of the steps that are run (Kynkäänniemi et al., 2024).
    #[serde(default = "always")]
    pub guidance_interval: [f64; 2],
    /// One in so many UNet calls is whole, and those between do the last layer only (DeepCache: Ma, Fang and Wang, 2023); 1 is all.
    #[serde(default = "every_call")]
    pub cache_interval: u32,
    /// Whether the UNet's transformers make their products of 8-bit floats; of models that are served with such weights.
    #[serde(default)]
    pub fp8_linears: bool,
    /// The noise scheduler.
    pub scheduler: SchedulerName,
    /// The share of the noise that the scheduler draws anew in each step, 0 to 1; `None` is the scheduler's own.
    #[serde(default)]
    pub eta: Option<f64>,
    /// Image `i` uses `seed + i`.
    pub seed: u64,
    /// What the seeds are seeds of. Jobs of versions that knew one source do not have it.
    #[serde(default)]
    pub noise_source: NoiseSource,
    /// How many pictures.
    pub num_images: u32,
    /// The picture to start from, and how far to leave it.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub img2img: Option<Img2Img>,
    /// What of that picture is painted anew.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub inpainting: Option<Inpainting>,
    /// How closely to follow the picture, 1 or more: of instruct-pix2pix models only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_guidance_scale: Option<f64>,
    /// The sizes that a Stable Diffusion XL model is told; none for other models.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub sizes: Option<SizeConditioning>,
    /// The scores that a refiner is told; none for other models.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub aesthetics: Option<AestheticScores>,
    /// The model that does the last steps.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub refiner: Option<Refiner>,
    /// Steps between previews; 0 is none.
    pub preview_every: u32,
    /// How the pictures become files. Jobs of versions that wrote PNG only do not have it.
    #[serde(flatten)]
    pub output: Encoding,
    /// How urgent it is: 0 to 9, 9 first.
    #[serde(default = "default_priority")]
    pub priority: u8,
    /// Seconds after its POST after which nobody wants the pictures any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<u32>,
    /// The client's own notes, given back unread.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// A parsed request with the bytes that it refers to and what the client should be told about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission {
    /// The request.
    pub request: GenerationRequest,
    /// The pictures that came with it.
    pub inputs: InputPictures,
    /// Remarks that are no errors.
    pub warnings: Vec<String>,
}

impl GenerationRequest {
    /// The seed of picture `index`.
    pub fn image_seed(&self, index: u32) -> u64 {
        self.seed + u64::from(index)
    }

    /// The models that it needs on the device: its own and the refiner's.
    pub fn models(&self) -> Vec<&str> {
        let refiner = self.refiner.as_ref().map(|refiner| refiner.refiner.as_str());
        std::iter::once(self.model.as_str()).chain(refiner).collect()
    }

    /// The pictures that it starts from.
    pub fn inputs(&self) -> impl Iterator<Item = &PictureRef> {
        let image = self.img2img.as_ref().map(|img2img| &img2img.image);
        image.into_iter().chain(self.inpainting.as_ref().map(|inpainting| &inpainting.mask_image))
    }

    /// The steps that are really run: all for text2img, ⌊strength × steps⌋ for img2img, as in diffusers'
    /// `StableDiffusionImg2ImgPipeline.get_timesteps`. A refiner of another noise schedule may make them a few more or less.
    pub fn effective_steps(&self) -> u32 {
        match &self.img2img {
            None => self.num_inference_steps,
            Some(img2img) => strength_steps(img2img.strength, self.num_inference_steps),
        }
    }

    /// The UNet calls that a picture takes, to within one or two: what a schedule does at its ends is the scheduler's own.
    pub fn unet_calls(&self) -> u32 {
        let per_step = self.scheduler.algorithm.unet_calls_per_step();
        (self.effective_steps() * per_step).saturating_sub(per_step - 1)
    }

    /// Whether the picture gives no more than its shape: at full strength, inpainting begins with pure noise as in diffusers'
    /// `StableDiffusionInpaintPipeline`.
    pub fn begins_with_noise(&self) -> bool {
        self.img2img.as_ref().is_none_or(|img2img| img2img.strength == 1.0 && self.inpainting.is_some())
    }

    /// Classifier-free guidance is on above 1, as in diffusers.
    pub fn uses_guidance(&self) -> bool {
        self.guidance_scale > 1.0
    }

    /// Whether step `step` of the `steps` that are run, from 0, is guided: ⌊start · steps⌋ ≤ step < ⌊end · steps⌋, as in diffusers' guiders.
    pub fn is_guided(&self, step: u32, steps: u32) -> bool {
        let [start, end] = self.guidance_interval.map(|fraction| (fraction * f64::from(steps)).floor());
        self.uses_guidance() && (start..end).contains(&f64::from(step))
    }
}
