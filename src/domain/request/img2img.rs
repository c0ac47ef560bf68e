//! What makes a request img2img.

use serde::{Deserialize, Serialize};

use super::{
    super::{
        ModelInfo, Task,
        fields::{Fields, number},
    },
    InputPicture, InputPictures, PictureRef,
};

/// diffusers' defaults: of its img2img pipelines, of its inpainting pipelines, and of its InstructPix2Pix pipeline.
const DEFAULT_STRENGTH: f64 = 0.8;
const DEFAULT_INPAINTING_STRENGTH: f64 = 1.0;
const DEFAULT_IMAGE_GUIDANCE_SCALE: f64 = 1.5;
/// Less than 1 would turn guidance off altogether in diffusers, and lead away from the picture by the formula.
const IMAGE_GUIDANCE_SCALES: (f64, f64) = (1.0, 50.0);

/// The part of a request that makes it img2img.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Img2Img {
    /// The picture to start from.
    pub image: PictureRef,
    /// The share of the steps to run, 0 to 1; 1 for instruct-pix2pix models, which see the picture at every step.
    pub strength: f64,
}

pub(super) fn strength_steps(strength: f64, num_inference_steps: u32) -> u32 {
    // The product is at most the number of steps, so the cast keeps it whole.
    ((strength * f64::from(num_inference_steps)).floor() as u32).min(num_inference_steps)
}

pub(super) fn take_img2img(
    fields: &mut Fields,
    inputs: &InputPictures,
    num_inference_steps: u32,
    warnings: &mut Vec<String>,
) -> Option<Img2Img> {
    let given = fields.take("strength", number(0.0, 1.0));
    let Some(image) = &inputs.image else {
        if given.is_some() && !fields.failed("image") {
            warnings.push("strength has no effect without an image".to_owned());
        }
        return None;
    };
    let default = if inputs.mask_image.is_some() { DEFAULT_INPAINTING_STRENGTH } else { DEFAULT_STRENGTH };
    let strength = given.unwrap_or(default);
    let is_checked = !fields.failed("strength") && !fields.failed("num_inference_steps");
    if is_checked && strength_steps(strength, num_inference_steps) == 0 {
        let smallest = (10_000.0 / f64::from(num_inference_steps)).ceil() / 10_000.0;
        fields.fail(
            "strength",
            format!("{strength} of {num_inference_steps} steps leaves no step to run; the smallest strength is {smallest}"),
        );
    }
    Some(Img2Img { image: image.reference.clone(), strength })
}

/// The picture that an instruct-pix2pix model is to change.
pub(super) fn take_instruction(fields: &mut Fields, model: &ModelInfo, image: Option<&InputPicture>) -> Option<Img2Img> {
    if image.is_none() && !fields.failed("image") {
        fields.fail("image", format!("is required: the model {} changes a picture as the prompt tells", model.name));
    }
    image.map(|image| Img2Img { image: image.reference.clone(), strength: 1.0 })
}

pub(super) fn take_image_guidance_scale(
    fields: &mut Fields,
    (model, guidance_scale): (&ModelInfo, f64),
    warnings: &mut Vec<String>,
) -> Option<f64> {
    let given = fields.take("image_guidance_scale", number(IMAGE_GUIDANCE_SCALES.0, IMAGE_GUIDANCE_SCALES.1));
    if given.is_some() && guidance_scale <= 1.0 && !fields.failed("guidance_scale") {
        warnings.push(format!("image_guidance_scale has no effect: guidance is off at a guidance_scale of {guidance_scale}"));
    }
    model.can(Task::InstructPix2pix).then(|| given.unwrap_or(DEFAULT_IMAGE_GUIDANCE_SCALE))
}
