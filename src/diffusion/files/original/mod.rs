//! The layout in which Stable Diffusion was published (CompVis, Stability): one file, and other names for everything.
//!
//! Names go both ways, and a name that no table knows stays as it is, so that nothing is lost. The tables follow diffusers'
//! `loaders/single_file_utils.py`.

mod names;
mod text;
mod unet;
mod vae;

pub(super) use names::count;
pub(super) use text::{clip_to_diffusers, open_clip_names, open_clip_to_diffusers, without_unused};
pub(super) use unet::{unet_names_of_diffusers, unet_names_of_original};
pub(super) use vae::{squeezed, vae_names_of_diffusers, vae_names_of_original};

/// What stands before the names of the UNet in a whole checkpoint.
pub(super) const UNET: &str = "model.diffusion_model.";
/// The UNet's averaged weights, whose names have lost their dots.
pub(super) const UNET_EMA: &str = "model_ema.diffusion_model";
/// What stands before the names of the VAE: the published files', and some tools'.
pub(super) const VAE: [&str; 2] = ["first_stage_model.", "vae."];
/// SD 1's text encoder, in transformers' names behind this.
pub(super) const CLIP: &str = "cond_stage_model.transformer.";
/// SD 2's text encoder, in OpenCLIP's names behind this.
pub(super) const OPEN_CLIP: &str = "cond_stage_model.model.";
/// SDXL's first text encoder, in transformers' names behind this.
pub(super) const XL_CLIP: &str = "conditioner.embedders.0.transformer.";
/// SDXL's second text encoder, in OpenCLIP's names behind this.
pub(super) const XL_OPEN_CLIP: &str = "conditioner.embedders.1.model.";
/// The refiner's text encoder, in OpenCLIP's names behind this.
pub(super) const REFINER_OPEN_CLIP: &str = "conditioner.embedders.0.model.";
