//! A second model for the last steps.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::{
    ModelInfo,
    fields::{Fields, describe},
    find_model,
};

const DEFAULT_START: f64 = 0.8;

/// The model that does the last steps of the pictures, and from where on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refiner {
    /// The model's name.
    pub refiner: String,
    /// The share of the noise schedule that the first model does, above 0 and below 1; diffusers' `denoising_end` of the first model and
    /// `denoising_start` of the second.
    pub refiner_start: f64,
}

/// The refiner that the request names, if any.
pub(super) fn take_refiner(
    fields: &mut Fields,
    (model, models): (&ModelInfo, &[ModelInfo]),
    warnings: &mut Vec<String>,
) -> Option<Refiner> {
    let named = fields.take("refiner", |value| match value {
        Value::Null => Ok(None),
        other => parse_name(&other, model, models).map(Some),
    });
    let start = fields.take("refiner_start", parse_start);
    let refiner = named.flatten();
    if refiner.is_none() && start.is_some() && !fields.failed("refiner") {
        warnings.push("refiner_start has no effect without a refiner".to_owned());
    }
    refiner.map(|refiner| Refiner { refiner, refiner_start: start.unwrap_or(DEFAULT_START) })
}

fn parse_name(value: &Value, model: &ModelInfo, models: &[ModelInfo]) -> Result<String, String> {
    let named = value.as_str().filter(|name| find_model(models, name).is_some());
    let fitting = named.filter(|&name| model.refiners.iter().any(|refiner| refiner == name));
    fitting.map(str::to_owned).ok_or_else(|| {
        let name = &model.name;
        match model.refiners.as_slice() {
            [] => format!("no model that is served can go on with the latents of {name}"),
            fitting => format!("must be one of {}, whose latents are those of {name}; got {}", fitting.join(", "), describe(value)),
        }
    })
}

fn parse_start(value: Value) -> Result<f64, String> {
    let start = value.as_f64().filter(|start| 0.0 < *start && *start < 1.0);
    start.ok_or_else(|| format!("must be a number above 0 and below 1, got {}", describe(&value)))
}
