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
            let part = Part::Random { place: place(&name), texts };
            (name, part)
        };
        let configs = configs.into_iter().chain([("scheduler".to_owned(), scheduler)]);
        let tokenizers = model.family().tokenizers().iter().map(|(name, pad)| ((*name).to_owned(), Part::Clip { pad }));
        let parts = configs.map(part).chain(tokenizers).collect();
        let root = Part::Random { place: place(""), texts: BTreeMap::new() };
        Ok(Self { root, index, parts, metadata: BTreeMap::new() })
    }
}

/// Text-to-image models all: the UNet sees the latents and nothing beside them.
const UNET_CHANNELS: usize = 4;
