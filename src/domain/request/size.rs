//! The size of a request's pictures.

use serde_json::Value;

use super::super::{
    InputPicture, ModelInfo, PictureRef,
    fields::{Fields, describe, whole},
};

/// Width and height, which the refiner must be able to paint as well; those that are not given are the picture's, fitted to the models'
/// grid, or else the model's own.
pub(super) fn take_size(
    fields: &mut Fields,
    (model, refiner): (&ModelInfo, Option<&ModelInfo>),
    input: Option<&InputPicture>,
) -> (u32, u32) {
    let both = refiner.map(|refiner| common_sizes(model, refiner));
    let (limits, company) = match (&both, refiner) {
        (Some(both), Some(refiner)) => (both, format!(" with the refiner {}", refiner.name)),
        _ => (model, String::new()),
    };
    if limits.min_size > limits.max_size {
        fields.fail("refiner", format!("has no size in common with the model {}", model.name));
    }
    let (width, height) = match input {
        Some(input) => fitted_size(limits, &input.reference),
        None => (limits.fit_to_grid(model.default_width), limits.fit_to_grid(model.default_height)),
    };
    let side = |value| parse_side(&value, limits, &company);
    (fields.take("width", side).unwrap_or(width), fields.take("height", side).unwrap_or(height))
}

/// The model with the sizes that the refiner can paint as well.
fn common_sizes(model: &ModelInfo, refiner: &ModelInfo) -> ModelInfo {
    let (own, other) = (model.size_multiple, refiner.size_multiple);
    let size_multiple = (1..=other).map(|times| own * times).find(|common| common % other == 0).unwrap_or(own);
    ModelInfo {
        size_multiple,
        min_size: model.min_size.max(refiner.min_size).next_multiple_of(size_multiple),
        max_size: model.max_size.min(refiner.max_size) / size_multiple * size_multiple,
        ..model.clone()
    }
}

/// The picture's size on the model's grid; a picture larger than the model allows is made smaller in proportion.
fn fitted_size(model: &ModelInfo, picture: &PictureRef) -> (u32, u32) {
    let longest = picture.width.max(picture.height).max(model.max_size);
    let scaled = |side: u32| (u64::from(side) * u64::from(model.max_size) / u64::from(longest)) as u32;
    (model.fit_to_grid(scaled(picture.width)), model.fit_to_grid(scaled(picture.height)))
}

fn parse_side(value: &Value, model: &ModelInfo, company: &str) -> Result<u32, String> {
    let ModelInfo { size_multiple, min_size, max_size, .. } = model;
    whole(value)
        .and_then(|side| u32::try_from(side).ok())
        .filter(|side| (min_size..=max_size).contains(&side) && side % size_multiple == 0)
        .ok_or_else(|| {
            format!("must be a multiple of {size_multiple} from {min_size} to {max_size}{company}, got {}", describe(value))
        })
}
