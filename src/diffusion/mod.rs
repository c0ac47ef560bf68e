//! The maths: tokenizer, text encoder, UNet, VAE, noise schedulers, and the canvas that they move forward.
//!
//! Owns libtorch: no other room knows what a tensor is.

mod autoencoder;
mod bench;
mod blur;
mod canvas;
mod conditioning;
mod denoise;
mod device;
mod error;
mod extras;
mod files;
mod finite;
mod first_stage;
mod folder;
mod gpu;
mod graphs;
mod guidance;
mod latent_rgb;
mod layers;
mod mask;
mod meter;
mod models;
mod noise;
mod numbers;
mod pipeline;
mod pixels;
mod preview;
mod prompt;
mod random_tensors;
mod residency;
pub mod schedulers;
mod source;
mod stable_diffusion;
mod stages;
mod stored_model;
mod text_encoder;
mod tokenizer;
mod transfer;
mod unet;
mod weights;
mod wordpiece;

pub use autoencoder::VaeTiling;
pub use bench::{Bench, BenchCase, BenchDevice, BenchError, BenchPart, Lap};
pub use canvas::Canvas;
pub use device::Precision;
pub use error::{LoadError, Mismatch};
pub use files::{Conversion, FileKind, FileSettings, Inspection, PartInspection, RandomModel, convert, inspect};
pub use folder::{ModelFolder, describe_models};
pub use gpu::GpuSettings;
pub use meter::Readings;
pub use noise::NoiseGenerator;
pub use pixels::Frame;
pub use residency::ResidencySettings;
pub use stable_diffusion::{EngineSettings, StableDiffusion};
pub use tokenizer::{ClipTokenizer, Tokens};
