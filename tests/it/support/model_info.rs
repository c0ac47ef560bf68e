//! A model as requests see it, for the tests that paint nothing.

use easel::domain::{ModelInfo, SchedulerAlgorithm, SchedulerName, Task};

/// A model of this name that can do what the demo model can.
pub(crate) fn model_info(name: &str) -> ModelInfo {
    ModelInfo {
        name: name.to_owned(),
        tasks: vec![Task::Text2img, Task::Img2img, Task::Inpainting],
        default_width: 128,
        default_height: 128,
        size_multiple: 8,
        min_size: 64,
        max_size: 2048,
        default_guidance_scale: 5.0,
        default_scheduler: SchedulerName { algorithm: SchedulerAlgorithm::Ddim, karras: false },
    }
}
