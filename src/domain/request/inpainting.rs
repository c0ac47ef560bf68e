//! What makes a request inpainting.

use serde::{Deserialize, Serialize};

use super::{
    super::fields::{Fields, integer},
    InputPictures, PictureRef,
};

/// The widest blur of a mask, in pixels: AUTOMATIC1111's.
const MAX_MASK_BLUR: u64 = 64;

/// The part of a request that has only some of a picture painted anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inpainting {
    /// White is painted anew, black stays.
    pub mask_image: PictureRef,
    /// The radius of the mask's Gaussian blur, in pixels of the picture that is painted.
    pub mask_blur: u32,
}

pub(super) fn take_inpainting(fields: &mut Fields, inputs: &InputPictures, warnings: &mut Vec<String>) -> Option<Inpainting> {
    let blur = fields.take("mask_blur", integer(0, MAX_MASK_BLUR)).and_then(|blur| u32::try_from(blur).ok());
    let Some(mask) = &inputs.mask_image else {
        if blur.is_some() && !fields.failed("mask_image") {
            warnings.push("mask_blur has no effect without a mask_image".to_owned());
        }
        return None;
    };
    if inputs.image.is_none() && !fields.failed("image") {
        fields.fail("mask_image", "needs an image, which what is not masked is kept of");
    }
    Some(Inpainting { mask_image: mask.reference.clone(), mask_blur: blur.unwrap_or_default() })
}
