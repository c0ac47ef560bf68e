//! The size of a request's pictures.

use serde_json::Value;

use super::super::{
    InputPicture, ModelInfo, PictureRef,
    fields::{Fields, describe, whole},
};

/// Width and height; those that are not given are the picture's, fitted to the model's grid, or else the model's own.
pub(super) fn take_size(fields: &mut Fields, model: &ModelInfo, input: Option<&InputPicture>) -> (u32, u32) {
    let (width, height) = match input {
        Some(input) => fitted_size(model, &input.reference),
        None => (model.default_width, model.default_height),
    };
    let side = |value| parse_side(&value, model);
    (fields.take("width", side).unwrap_or(width), fields.take("height", side).unwrap_or(height))
}

/// The picture's size on the model's grid; a picture larger than the model allows is made smaller in proportion.
fn fitted_size(model: &ModelInfo, picture: &PictureRef) -> (u32, u32) {
    let longest = picture.width.max(picture.height).max(model.max_size);
    let scaled = |side: u32| (u64::from(side) * u64::from(model.max_size) / u64::from(longest)) as u32;
    (model.fit_to_grid(scaled(picture.width)), model.fit_to_grid(scaled(picture.height)))
}

fn parse_side(value: &Value, model: &ModelInfo) -> Result<u32, String> {
    let ModelInfo { size_multiple, min_size, max_size, .. } = model;
    whole(value)
        .and_then(|side| u32::try_from(side).ok())
        .filter(|side| (min_size..=max_size).contains(&side) && side % size_multiple == 0)
        .ok_or_else(|| format!("must be a multiple of {size_multiple} from {min_size} to {max_size}, got {}", describe(value)))
}
