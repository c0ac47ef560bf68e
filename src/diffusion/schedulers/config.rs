//! `scheduler/scheduler_config.json`.

use serde::Deserialize;

use super::Limit;

/// What the UNet was trained to predict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise.
    #[default]
    Epsilon,
    /// The velocity (Salimans and Ho, 2022).
    VPrediction,
    /// The finished sample.
    Sample,
}

impl PredictionType {
    /// Its name in diffusers' configs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::VPrediction => "v_prediction",
            Self::Sample => "sample",
        }
    }
}

/// Which of the training's timesteps are visited; table 2 of Lin et al. (2023).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSpacing {
    /// Both ends.
    Linspace,
    /// From the start, missing the last.
    Leading,
    /// From the end.
    Trailing,
}

/// The training's noise levels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// Even in β.
    #[default]
    Linear,
    /// Even in √β, as Stable Diffusion.
    ScaledLinear,
    /// The cosine schedule of Nichol and Dhariwal (2021).
    SquaredcosCapV2,
}

/// Which noise level comes after the last step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalSigmas {
    /// None: a clean sample.
    #[default]
    Zero,
    /// The training's smallest.
    SigmaMin,
}

/// How DPM-Solver++'s second order is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SolverType {
    /// At the middle of the step. diffusers takes it for the solver types of UniPC and DEIS, too.
    #[default]
    #[serde(alias = "bh1", alias = "bh2", alias = "logrho")]
    Midpoint,
    /// At its end.
    Heun,
}

/// The keys of a scheduler's config. Those whose default differs between diffusers' classes stay open until a class reads them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "diffusers' own names; what each means stands at the class that reads it")]
pub struct SchedulerConfig {
    #[serde(rename = "_class_name")]
    pub class_name: String,
    pub num_train_timesteps: usize,
    pub beta_start: f64,
    pub beta_end: f64,
    pub beta_schedule: BetaSchedule,
    pub trained_betas: Option<Vec<f64>>,
    pub prediction_type: PredictionType,
    pub timestep_spacing: Option<TimestepSpacing>,
    pub steps_offset: Option<usize>,
    pub rescale_betas_zero_snr: bool,
    pub clip_sample: Option<bool>,
    pub clip_sample_range: f64,
    pub set_alpha_to_one: Option<bool>,
    pub thresholding: bool,
    pub dynamic_thresholding_ratio: f64,
    pub sample_max_value: f64,
    pub use_karras_sigmas: bool,
    pub sigma_min: Option<f64>,
    pub sigma_max: Option<f64>,
    pub final_sigmas_type: FinalSigmas,
    pub solver_order: usize,
    pub algorithm_type: String,
    pub solver_type: SolverType,
    pub lower_order_final: bool,
    pub euler_at_final: bool,
    pub lambda_min_clipped: Option<f64>,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            class_name: String::new(),
            num_train_timesteps: 1000,
            beta_start: 0.0001,
            beta_end: 0.02,
            beta_schedule: BetaSchedule::Linear,
            trained_betas: None,
            prediction_type: PredictionType::Epsilon,
            timestep_spacing: None,
            steps_offset: None,
            rescale_betas_zero_snr: false,
            clip_sample: None,
            clip_sample_range: 1.0,
            set_alpha_to_one: None,
            thresholding: false,
            dynamic_thresholding_ratio: 0.995,
            sample_max_value: 1.0,
            use_karras_sigmas: false,
            sigma_min: None,
            sigma_max: None,
            final_sigmas_type: FinalSigmas::Zero,
            solver_order: 2,
            algorithm_type: "dpmsolver++".to_owned(),
            solver_type: SolverType::Midpoint,
            lower_order_final: true,
            euler_at_final: false,
            lambda_min_clipped: None,
        }
    }
}

impl SchedulerConfig {
    pub(super) fn with_karras(&self) -> Self {
        Self { use_karras_sigmas: true, ..self.clone() }
    }

    /// What diffusers' Stable Diffusion pipelines put right in configs that were written before the keys had their meaning: a
    /// `steps_offset` that is there is 1, and a `clip_sample` that is there is false.
    #[must_use]
    pub fn corrected(self) -> Self {
        Self { steps_offset: self.steps_offset.map(|_| 1), clip_sample: self.clip_sample.map(|_| false), ..self }
    }

    /// Whether the folder's own scheduler is one of the stochastic forms of DPM-Solver, which have names of their own.
    pub fn is_stochastic(&self) -> bool {
        self.algorithm_type.starts_with("sde-")
    }

    /// The distance of leading timesteps from 0.
    pub(super) fn offset(&self) -> usize {
        self.steps_offset.unwrap_or(0)
    }

    /// Dynamic thresholding, if it is on.
    pub(super) fn threshold(&self) -> Option<Limit> {
        let Self { dynamic_thresholding_ratio: ratio, sample_max_value: max, .. } = *self;
        self.thresholding.then_some(Limit::Threshold { ratio, max })
    }
}
