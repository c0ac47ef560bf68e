//! A model as requests see it, for the tests that paint nothing.

use easel::domain::{ModelInfo, SchedulerAlgorithm, SchedulerName};

/// A model of this name that can do what the demo model can.
pub(crate) fn model_info(name: &str) -> ModelInfo {
    ModelInfo {
        name: name.to_owned(),
        default_width: 128,
        default_height: 128,
        size_multiple: 8,
        min_size: 64,
        max_size: 2048,
        default_guidance_scale: 5.0,
        default_scheduler: SchedulerName::own(SchedulerAlgorithm::Ddim),
        scheduler_limits: Vec::new(),
    }
}
