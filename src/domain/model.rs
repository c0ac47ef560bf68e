//! What a model can do: the facts that a request is parsed against.

use std::ops::RangeInclusive;

use serde::{Serialize, Serializer};

use super::{Family, STEPS, SchedulerAlgorithm, SchedulerName, Task};

/// The widths and heights, in pixels, that a model may be allowed at all.
pub const SIDES: RangeInclusive<u32> = 64..=2048;

/// What requests may ask of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelInfo {
    /// The name that requests use.
    pub name: String,
    /// Its architecture.
    pub family: Family,
    /// What it can do.
    pub tasks: Vec<Task>,
    /// The request fields that mean nothing to it: a request that gives one is refused.
    pub unsupported_fields: Vec<&'static str>,
    /// The models that may do the last steps of its pictures, for their latents are of the same kind.
    pub refiners: Vec<String>,
    /// Tokens of a prompt, both ends included, that are encoded at once.
    pub prompt_tokens: u32,
    /// The steps of a request that names no number.
    pub default_num_inference_steps: u32,
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
    /// Schedulers that cannot serve this model in as many steps as a request may ask for.
    #[serde(serialize_with = "those_in_reach")]
    pub scheduler_limits: Vec<SchedulerLimit>,
}

/// How many steps a scheduler can take with a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SchedulerLimit {
    /// The scheduler, whichever noise levels it visits.
    #[serde(rename = "scheduler")]
    pub algorithm: SchedulerAlgorithm,
    /// The most steps; 0 when it cannot serve the model at all.
    pub max_steps: u32,
    /// Why, to be read after a colon.
    pub reason: String,
}

impl ModelInfo {
    /// Whether a request may give this field.
    pub fn takes(&self, field: &str) -> bool {
        !self.unsupported_fields.contains(&field)
    }

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

/// A limit that no request can come to is not worth a word.
fn those_in_reach<S: Serializer>(limits: &[SchedulerLimit], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(limits.iter().filter(|limit| limit.max_steps < *STEPS.end()))
}

/// Finds a model by the name that a request gives.
pub fn find_model<'a>(models: &'a [ModelInfo], name: &str) -> Option<&'a ModelInfo> {
    models.iter().find(|model| model.name == name)
}
