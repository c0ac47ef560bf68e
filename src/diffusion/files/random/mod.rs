//! Models that need no files: the published sizes, and weights that are drawn on the spot. For `easel bench`; they paint nothing.

use std::{collections::BTreeMap, path::PathBuf};

use serde_json::{Map, Value};

use super::{ModelFiles, Part, config_name, family::Published};
use crate::diffusion::{error::LoadError, schedulers::PredictionType};

/// A model that is made of its config and random weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RandomModel {
    /// Stable Diffusion 1.5, of 512 × 512.
    Sd15,
    /// Stable Diffusion 2.1, of 768 × 768.
    Sd21,
    /// Stable Diffusion XL, of 1024 × 1024.
    Sdxl,
    /// All parts of Stable Diffusion 1.5, each as small as can be: for trying things out.
    Tiny,
}

impl RandomModel {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Sd15, Self::Sd21, Self::Sdxl, Self::Tiny];

    /// What the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sd15 => "sd15",
            Self::Sd21 => "sd21",
            Self::Sdxl => "sdxl",
            Self::Tiny => "tiny",
        }
    }

    /// The configs of its parts with weights, by part.
    fn configs(self) -> &'static str {
        match self {
            Self::Sd15 => include_str!("sd15.json"),
            Self::Sd21 => include_str!("sd21.json"),
            Self::Sdxl => include_str!("sdxl.json"),
            Self::Tiny => include_str!("tiny.json"),
        }
    }

    /// How many numbers the tensors of a part have together: what decides its dtype, and counts as its memory.
    fn weights(self, part: &str) -> u64 {
        match (self, part) {
            (Self::Sd15, "unet") => 859_520_964,
            (Self::Sd21, "unet") => 865_910_724,
            (Self::Sdxl, "unet") => 2_567_463_684,
            (Self::Sd21, "text_encoder") => 340_387_840,
            (Self::Sd15 | Self::Sdxl, "text_encoder") => 123_060_480,
            (Self::Sdxl, "text_encoder_2") => 694_659_840,
            (Self::Sd15 | Self::Sd21 | Self::Sdxl, "vae") => 83_653_863,
            (Self::Tiny, "unet") => 792_964,
            (Self::Tiny, "text_encoder") => 1_600_672,
            (Self::Tiny, "vae") => 354_391,
            _ => 0,
        }
    }

    fn family(self) -> Published {
        match self {
            Self::Sd15 | Self::Tiny => Published::StableDiffusion1,
            Self::Sd21 => Published::StableDiffusion2,
            Self::Sdxl => Published::StableDiffusionXl,
        }
    }

    fn prediction_type(self) -> PredictionType {
        if self == Self::Sd21 { PredictionType::VPrediction } else { PredictionType::Epsilon }
    }
}

impl ModelFiles {
    /// A model of random weights.
    ///
    /// # Errors
    /// When its configs, which are built in, cannot be read.
    pub(in crate::diffusion) fn random(model: RandomModel) -> Result<Self, LoadError> {
        let place = |part: &str| PathBuf::from(format!("random {}", model.name())).join(part);
        let invalid = |error: serde_json::Error| LoadError::Invalid { path: place(""), problem: error.to_string() };
        let configs: BTreeMap<String, Value> = serde_json::from_str(model.configs()).map_err(invalid)?;
        let scheduler = model.family().scheduler(model.prediction_type(), false);
        let index: Map<String, Value> = model.family().index(UNET_CHANNELS, &scheduler);
        let part = |(name, config): (String, Value)| {
            let texts = [(config_name(&name).to_owned(), config.to_string())].into();
            let part = Part::Random { place: place(&name), texts, weights: model.weights(&name) };
            (name, part)
        };
        let configs = configs.into_iter().chain([("scheduler".to_owned(), scheduler)]);
        let tokenizers = model.family().tokenizers().iter().map(|(name, pad)| ((*name).to_owned(), Part::Clip { pad }));
        let parts = configs.map(part).chain(tokenizers).collect();
        let root = Part::Random { place: place(""), texts: BTreeMap::new(), weights: 0 };
        Ok(Self { root, index, parts, metadata: BTreeMap::new() })
    }
}

/// Text-to-image models all: the UNet sees the latents and nothing beside them.
const UNET_CHANNELS: usize = 4;
