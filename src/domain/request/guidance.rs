//! How closely the prompt is followed.

use serde_json::Value;

use super::{
    super::{
        ModelInfo,
        fields::{Fields, describe, number},
    },
    GUIDANCE_SCALES,
};

/// The fields of guidance.
pub(super) struct Guidance {
    pub(super) scale: f64,
    pub(super) rescale: f64,
    pub(super) interval: [f64; 2],
}

/// The interval of all steps.
pub(super) fn always() -> [f64; 2] {
    [0.0, 1.0]
}

pub(super) fn take_guidance(fields: &mut Fields, model: &ModelInfo, warnings: &mut Vec<String>) -> Guidance {
    let scale = fields.take("guidance_scale", number(*GUIDANCE_SCALES.start(), *GUIDANCE_SCALES.end()));
    let scale = scale.unwrap_or(model.default_guidance_scale);
    let rescale = fields.take("guidance_rescale", number(0.0, 1.0)).unwrap_or_default();
    let interval = fields.take("guidance_interval", parse_interval).unwrap_or_else(always);
    let is_off = scale <= 1.0 && !fields.failed("guidance_scale");
    for (name, is_set) in [("guidance_rescale", rescale > 0.0), ("guidance_interval", interval != always())] {
        if is_off && is_set {
            warnings.push(format!("{name} has no effect: guidance is off at a guidance_scale of {scale}"));
        }
    }
    Guidance { scale, rescale, interval }
}

/// `[start, end]`
fn parse_interval(value: Value) -> Result<[f64; 2], String> {
    let numbers = value.as_array().and_then(|ends| ends.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>());
    match numbers.as_deref() {
        Some(&[start, end]) if 0.0 <= start && start <= end && end <= 1.0 => Ok([start, end]),
        Some([start, end]) => Err(format!("must rise from 0 to 1 at most, got [{start}, {end}]")),
        _ => Err(format!("must be [start, end], two fractions of the steps from 0 to 1, got {}", describe(&value))),
    }
}
