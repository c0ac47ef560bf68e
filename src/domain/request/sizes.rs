//! Stable Diffusion XL's micro-conditioning: what the model is told about the picture beside the prompt.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::{
    ModelInfo,
    fields::{Fields, describe, number, whole},
};

/// The largest side or offset in pixels; far beyond what any model was trained with.
const MAX_PIXELS: u64 = 16_384;
/// The largest aesthetic score, on LAION's scale.
const MAX_SCORE: f64 = 10.0;
const SIZE_FIELDS: [&str; 6] = [
    "original_size",
    "crops_coords_top_left",
    "target_size",
    "negative_original_size",
    "negative_crops_coords_top_left",
    "negative_target_size",
];
const SCORE_FIELDS: [&str; 2] = ["aesthetic_score", "negative_aesthetic_score"];

/// The sizes that the model is told (Podell et al., 2023, section 2.2), each `[height, width]` or `[top, left]` in pixels, as in diffusers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeConditioning {
    /// How large the picture was before it was cut out and resized.
    pub original_size: [u32; 2],
    /// From where it was cut out.
    pub crops_coords_top_left: [u32; 2],
    /// How large it is to be.
    pub target_size: [u32; 2],
    /// The same for what guidance leads away from, where it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_original_size: Option<[u32; 2]>,
    /// The same for what guidance leads away from, where it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_crops_coords_top_left: Option<[u32; 2]>,
    /// The same for what guidance leads away from, where it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_target_size: Option<[u32; 2]>,
}

/// What a refiner is told of the picture's beauty, on LAION's scale from 0 to 10.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AestheticScores {
    /// Of the picture.
    pub aesthetic_score: f64,
    /// Of what guidance leads away from.
    pub negative_aesthetic_score: f64,
}

impl Default for AestheticScores {
    fn default() -> Self {
        Self { aesthetic_score: 6.0, negative_aesthetic_score: 2.5 }
    }
}

impl SizeConditioning {
    /// A picture of this size that was neither resized nor cut out.
    pub fn of(width: u32, height: u32) -> Self {
        let size = [height, width];
        Self {
            original_size: size,
            crops_coords_top_left: [0, 0],
            target_size: size,
            negative_original_size: None,
            negative_crops_coords_top_left: None,
            negative_target_size: None,
        }
    }

    /// What guidance leads away from: original size, corner and target size. What is not named is as in the picture itself, but for the
    /// corner, which is (0, 0) in diffusers' `StableDiffusionXLPipeline` when both sizes are named, and always of a refiner (`scored`). The
    /// pipelines that begin with a picture (`from_picture`) keep the picture's.
    pub fn negative(&self, scored: bool, from_picture: bool) -> [[u32; 2]; 3] {
        let names_sizes = !from_picture && self.negative_original_size.and(self.negative_target_size).is_some();
        let corner = if scored || names_sizes { [0, 0] } else { self.crops_coords_top_left };
        [
            self.negative_original_size.unwrap_or(self.original_size),
            self.negative_crops_coords_top_left.unwrap_or(corner),
            self.negative_target_size.unwrap_or(self.target_size),
        ]
    }
}

/// The fields of this group that a model which takes none of them refuses.
pub fn micro_conditioning_fields() -> impl Iterator<Item = &'static str> {
    SIZE_FIELDS.into_iter().chain(SCORE_FIELDS)
}

/// The sizes, if one of the models takes them; absent ones as diffusers' Stable Diffusion XL pipelines fill them in.
pub(super) fn take_sizes(fields: &mut Fields, models: &[&ModelInfo], (width, height): (u32, u32)) -> Option<SizeConditioning> {
    let [original, crops, target, negative_original_size, negative_crops_coords_top_left, negative_target_size] =
        SIZE_FIELDS.map(|name| fields.take(name, parse_pair));
    let own = SizeConditioning::of(width, height);
    let sizes = SizeConditioning {
        original_size: original.unwrap_or(own.original_size),
        crops_coords_top_left: crops.unwrap_or(own.crops_coords_top_left),
        target_size: target.unwrap_or(own.target_size),
        negative_original_size,
        negative_crops_coords_top_left,
        negative_target_size,
    };
    models.iter().any(|model| model.takes("original_size")).then_some(sizes)
}

/// The scores, if one of the models takes them.
pub(super) fn take_scores(fields: &mut Fields, models: &[&ModelInfo]) -> Option<AestheticScores> {
    let [score, negative] = SCORE_FIELDS.map(|name| fields.take(name, number(0.0, MAX_SCORE)));
    let default = AestheticScores::default();
    let scores = AestheticScores {
        aesthetic_score: score.unwrap_or(default.aesthetic_score),
        negative_aesthetic_score: negative.unwrap_or(default.negative_aesthetic_score),
    };
    models.iter().any(|model| model.takes("aesthetic_score")).then_some(scores)
}

fn parse_pair(value: Value) -> Result<[u32; 2], String> {
    let pixels = |value: &Value| whole(value).filter(|&pixels| pixels <= MAX_PIXELS).and_then(|pixels| u32::try_from(pixels).ok());
    let numbers: Option<Vec<u32>> = value.as_array().and_then(|values| values.iter().map(pixels).collect());
    numbers
        .and_then(|numbers| <[u32; 2]>::try_from(numbers).ok())
        .ok_or_else(|| format!("must be two whole numbers from 0 to {MAX_PIXELS}, height or top first, got {}", describe(&value)))
}
