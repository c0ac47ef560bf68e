//! What makes a request img2img.

use serde::{Deserialize, Serialize};

use super::{
    super::fields::{Fields, number},
    InputPicture, PictureRef,
};

const DEFAULT_STRENGTH: f64 = 0.8;

/// The part of a request that makes it img2img.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Img2Img {
    /// The picture to start from.
    pub image: PictureRef,
    /// The share of the steps to run, 0 to 1.
    pub strength: f64,
}

pub(super) fn strength_steps(strength: f64, num_inference_steps: u32) -> u32 {
    // The product is at most the number of steps, so the cast keeps it whole.
    ((strength * f64::from(num_inference_steps)).floor() as u32).min(num_inference_steps)
}

pub(super) fn take_img2img(
    fields: &mut Fields,
    input: Option<&InputPicture>,
    num_inference_steps: u32,
    warnings: &mut Vec<String>,
) -> Option<Img2Img> {
    let given = fields.take("strength", number(0.0, 1.0));
    let Some(input) = input else {
        if given.is_some() && !fields.failed("image") {
            warnings.push("strength has no effect without an image".to_owned());
        }
        return None;
    };
    let strength = given.unwrap_or(DEFAULT_STRENGTH);
    let is_checked = !fields.failed("strength") && !fields.failed("num_inference_steps");
    if is_checked && strength_steps(strength, num_inference_steps) == 0 {
        let smallest = (10_000.0 / f64::from(num_inference_steps)).ceil() / 10_000.0;
        fields.fail(
            "strength",
            format!("{strength} of {num_inference_steps} steps leaves no step to run; the smallest strength is {smallest}"),
        );
    }
    Some(Img2Img { image: input.reference.clone(), strength })
}
