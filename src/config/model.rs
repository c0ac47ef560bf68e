//! `[[models]]`: which models are served, and what is settled for each.

use std::path::PathBuf;

use serde::Deserialize;

use super::{ConfigError, check_range, wrong};
use crate::domain::{GUIDANCE_SCALES, SIDES, STEPS};

/// One entry of `[[models]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "described in config/default.toml")]
pub struct ModelConfig {
    pub name: String,
    pub path: PathBuf,
    pub vae: Option<PathBuf>,
    pub text_encoder: Option<PathBuf>,
    pub text_encoder_2: Option<PathBuf>,
    pub prediction_type: Option<PredictionTypeSetting>,
    #[serde(default)]
    pub ema: bool,
    pub guidance_scale: Option<f64>,
    pub num_inference_steps: Option<u32>,
    pub max_size: Option<u32>,
    #[serde(default)]
    pub fp8_linears: bool,
    #[serde(default)]
    pub load: LoadTime,
}

/// `[[models]] load`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "described in config/default.toml")]
pub enum LoadTime {
    #[default]
    Start,
    FirstUse,
}

impl ModelConfig {
    /// A model with nothing set.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            vae: None,
            text_encoder: None,
            text_encoder_2: None,
            prediction_type: None,
            ema: false,
            guidance_scale: None,
            num_inference_steps: None,
            max_size: None,
            fp8_linears: false,
            load: LoadTime::default(),
        }
    }
}

/// `[[models]] prediction_type`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "described in config/default.toml")]
pub enum PredictionTypeSetting {
    Epsilon,
    VPrediction,
    Sample,
}

/// No two names may be the same, and every number must be in its range.
pub(super) fn check_models(models: &[ModelConfig]) -> Result<(), ConfigError> {
    if models.is_empty() {
        return wrong("models".to_owned(), "at least one model is needed".to_owned());
    }
    for (place, model) in models.iter().enumerate() {
        let key = |field: &str| format!("models[{place}].{field}");
        if model.name.is_empty() {
            return wrong(key("name"), "must not be empty".to_owned());
        }
        if models[..place].iter().any(|other| other.name == model.name) {
            return wrong(key("name"), format!("must be different from all others, got {:?} again", model.name));
        }
        check_range(&key("guidance_scale"), model.guidance_scale.unwrap_or(*GUIDANCE_SCALES.start()), GUIDANCE_SCALES)?;
        check_range(&key("num_inference_steps"), model.num_inference_steps.unwrap_or(*STEPS.start()), STEPS)?;
        check_range(&key("max_size"), model.max_size.unwrap_or(*SIDES.end()), SIDES)?;
    }
    Ok(())
}
