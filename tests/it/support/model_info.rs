//! A model as requests see it, for the tests that paint nothing.

use easel::domain::{Family, ModelInfo, SchedulerAlgorithm, SchedulerName, Task, micro_conditioning_fields};

/// A model of this name that can do what the demo model can.
pub(crate) fn model_info(name: &str) -> ModelInfo {
    ModelInfo {
        name: name.to_owned(),
        family: Family::StableDiffusion1,
        tasks: vec![Task::Text2img, Task::Img2img, Task::Inpainting, Task::Refiner],
        unsupported_fields: micro_conditioning_fields().collect(),
        refiners: Vec::new(),
        prompt_tokens: 77,
        default_num_inference_steps: 25,
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
