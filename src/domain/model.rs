//! What a model can do: the facts that a request is parsed against.

use std::ops::RangeInclusive;

use serde::Serialize;

use super::SchedulerName;

/// The widths and heights, in pixels, that a model may be allowed at all.
pub const SIDES: RangeInclusive<u32> = 64..=2048;

/// What a model can be asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Paint what a prompt says.
    Text2img,
    /// Begin with a picture and leave it as far as `strength` says.
    Img2img,
    /// Paint anew what of a picture a mask covers.
    Inpainting,
    /// Change a picture as the prompt tells (InstructPix2Pix; Brooks et al., 2022).
    InstructPix2pix,
}

impl Task {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text2img => "text2img",
            Self::Img2img => "img2img",
            Self::Inpainting => "inpainting",
            Self::InstructPix2pix => "instruct_pix2pix",
        }
    }
}

/// What requests may ask of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelInfo {
    /// The name that requests use.
    pub name: String,
    /// What it can be asked to do.
    pub tasks: Vec<Task>,
    /// The width that the model was trained for, in pixels.
    pub default_width: u32,
    /// The height that the model was trained for, in pixels.
    pub default_height: u32,
    /// Widths and heights must be multiples of this many pixels (the VAE's factor).
    pub size_multiple: u32,
    /// The smallest width and height, in pixels.
    pub min_size: u32,
    /// The largest width and height, in pixels.
    pub max_size: u32,
    /// The guidance scale of a request that names none.
    pub default_guidance_scale: f64,
    /// The scheduler of a request that names none.
    pub default_scheduler: SchedulerName,
}

impl ModelInfo {
    /// Whether it can be asked to do this.
    pub fn can(&self, task: Task) -> bool {
        self.tasks.contains(&task)
    }

    /// The largest legal size that is no larger than `pixels`; the smallest legal size if there is none.
    pub fn fit_to_grid(&self, pixels: u32) -> u32 {
        let fitted = pixels.min(self.max_size) / self.size_multiple * self.size_multiple;
        fitted.max(self.min_size)
    }
}

/// Finds a model by the name that a request gives.
pub fn find_model<'a>(models: &'a [ModelInfo], name: &str) -> Option<&'a ModelInfo> {
    models.iter().find(|model| model.name == name)
}
