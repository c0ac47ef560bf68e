//! The maths: tokenizer, text encoder, UNet, VAE, noise schedulers, and the canvas that they move forward.
//!
//! Owns libtorch: no other room knows what a tensor is.

mod attend;
mod autoencoder;
mod blur;
mod canvas;
mod conditioning;
mod denoise;
mod device;
mod error;
mod extras;
mod files;
mod first_stage;
mod folder;
mod guidance;
mod latent_rgb;
mod layers;
mod mask;
mod models;
mod noise;
mod pipeline;
mod pixels;
mod preview;
mod prompt;
mod residency;
pub mod schedulers;
mod source;
mod stable_diffusion;
mod stages;
mod stored_model;
mod text_encoder;
mod tokenizer;
mod unet;
mod weights;
mod wordpiece;

pub use autoencoder::VaeTiling;
pub use canvas::Canvas;
pub use device::Precision;
pub use error::{LoadError, Mismatch};
pub use files::{Conversion, FileKind, FileSettings, Inspection, PartInspection, convert, inspect};
pub use folder::{ModelFolder, describe_models};
pub use noise::NoiseGenerator;
pub use pixels::Frame;
pub use residency::ResidencySettings;
pub use stable_diffusion::{EngineSettings, StableDiffusion};
pub use tokenizer::{ClipTokenizer, Tokens};
