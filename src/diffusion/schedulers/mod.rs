//! Noise schedulers as plain arithmetic in f64: a [`Plan`] holds, for every step, the coefficients that combine the sample, the model's
//! output and what earlier steps left. No tensor is touched here, so plans are tested without libtorch.

mod config;
mod ddim;
mod dpmpp_2m;
mod euler;
mod noise_schedule;

pub use config::{PredictionType, SchedulerConfig, TimestepSpacing};

use crate::domain::{SchedulerAlgorithm, SchedulerName};

/// How many earlier predictions a step may look back on.
pub const HISTORY: usize = 1;

/// Everything that a canvas does to its latents, step by step.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The standard deviation of the noise that text2img starts from.
    pub init_noise_sigma: f64,
    /// What is done to the prediction of the finished sample before it is used.
    pub limit: Limit,
    /// The steps, those before the begin left out.
    pub steps: Vec<Step>,
}

/// One step. With x the sample, m the model's output and x₀ the predicted finished sample:
/// `x₀ = limit(predict.sample · x + predict.model_output · m)`, and
/// `prev_sample = combine.sample · x + combine.model_output · m + combine.pred_original_sample · x₀ + Σ combine.history[k] · x₀ of k + 1
/// steps ago`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// What the UNet is told; some schedulers use fractions.
    pub timestep: f64,
    /// The UNet is given `input_scale · x`.
    pub input_scale: f64,
    /// Makes the predicted finished sample from (x, m).
    pub predict: Prediction,
    /// Makes the next sample.
    pub combine: Combination,
    /// How img2img's latents and noise are mixed when this is the first step.
    pub start: NoiseMix,
}

/// Coefficients of the predicted finished sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// Of the sample.
    pub sample: f64,
    /// Of the model's output.
    pub model_output: f64,
}

/// Coefficients of the next sample.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Combination {
    /// Of the sample.
    pub sample: f64,
    /// Of the model's output.
    pub model_output: f64,
    /// Of the predicted finished sample.
    pub pred_original_sample: f64,
    /// Of the predictions of earlier steps, the last first.
    pub history: [f64; HISTORY],
}

/// `signal · latents + noise · ε`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NoiseMix {
    /// Of the encoded picture.
    pub signal: f64,
    /// Of the noise.
    pub noise: f64,
}

/// What is done to the predicted finished sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// Nothing, as in latent diffusion.
    None,
    /// Clamped to ±range (`clip_sample`).
    Clip {
        /// `clip_sample_range`
        range: f64,
    },
    /// Dynamic thresholding (Saharia et al., 2022, section 2.3).
    Threshold {
        /// `dynamic_thresholding_ratio`: the quantile of |x₀| that becomes the threshold.
        ratio: f64,
        /// `sample_max_value`: the largest threshold.
        max: f64,
    },
}

/// The plan of `num_inference_steps` steps, begun at step `begin` (0 for text2img).
///
/// The scheduler is made as diffusers' `from_config` makes it: keys of the model's config carry over, absent keys take the defaults of the
/// class that is asked for.
pub fn plan(config: &SchedulerConfig, name: SchedulerName, num_inference_steps: u32, begin: u32) -> Plan {
    let config = if name.karras { config.with_karras() } else { config.clone() };
    let (steps, begin) = (num_inference_steps as usize, begin as usize);
    match name.algorithm {
        SchedulerAlgorithm::Ddim => ddim::plan(&config, steps, begin),
        SchedulerAlgorithm::Euler => euler::plan(&config, steps, begin),
        SchedulerAlgorithm::Dpmpp2m => dpmpp_2m::plan(&config, steps, begin),
    }
}
