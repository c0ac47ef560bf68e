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

/// How a multistep solver takes its second order. A class to which the config's is foreign takes its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SolverType {
    /// DPM-Solver++: at the middle of the step.
    #[default]
    Midpoint,
    /// DPM-Solver++: at its end.
    Heun,
    /// DEIS: polynomials in log ρ.
    Logrho,
    /// UniPC: B(h) = h.
    Bh1,
    /// UniPC: B(h) = e^h − 1.
    Bh2,
}

/// How much noise a step of DDPM adds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VarianceType {
    /// That of the posterior, the smallest. diffusers' logarithmic form is the same number.
    #[default]
    #[serde(alias = "fixed_small_log")]
    FixedSmall,
    /// That of the forward process, the largest.
    FixedLarge,
}

/// The keys of a scheduler's config. Those whose default differs between diffusers' classes stay open until a class reads them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "diffusers' own names; what each means stands at the class that reads it")]
pub struct SchedulerConfig {
    #[serde(rename = "_class_name")]
    pub class_name: String,
    pub num_train_timesteps: usize,
    pub beta_start: Option<f64>,
    pub beta_end: Option<f64>,
    pub beta_schedule: Option<BetaSchedule>,
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
    pub use_exponential_sigmas: bool,
    pub use_beta_sigmas: bool,
    pub sigma_min: Option<f64>,
    pub sigma_max: Option<f64>,
    pub final_sigmas_type: FinalSigmas,
    pub solver_order: usize,
    pub algorithm_type: String,
    pub solver_type: SolverType,
    pub lower_order_final: bool,
    pub euler_at_final: bool,
    pub lambda_min_clipped: Option<f64>,
    pub predict_x0: bool,
    pub disable_corrector: Vec<usize>,
    pub variance_type: VarianceType,
    pub skip_prk_steps: bool,
    pub original_inference_steps: usize,
    pub timestep_scaling: f64,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            class_name: String::new(),
            num_train_timesteps: 1000,
            beta_start: None,
            beta_end: None,
            beta_schedule: None,
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
            use_exponential_sigmas: false,
            use_beta_sigmas: false,
            sigma_min: None,
            sigma_max: None,
            final_sigmas_type: FinalSigmas::Zero,
            solver_order: 2,
            algorithm_type: "dpmsolver++".to_owned(),
            solver_type: SolverType::Midpoint,
            lower_order_final: true,
            euler_at_final: false,
            lambda_min_clipped: None,
            predict_x0: true,
            disable_corrector: Vec::new(),
            variance_type: VarianceType::FixedSmall,
            skip_prk_steps: false,
            original_inference_steps: 50,
            timestep_scaling: 10.0,
        }
    }
}

impl SchedulerConfig {
    /// What diffusers' Stable Diffusion pipelines put right in configs that were written before the keys had their meaning: a
    /// `steps_offset` that is there is 1, and a `clip_sample` that is there is false.
    #[must_use]
    pub fn corrected(self) -> Self {
        Self { steps_offset: self.steps_offset.map(|_| 1), clip_sample: self.clip_sample.map(|_| false), ..self }
    }

    /// The distance of leading timesteps from 0.
    pub(super) fn offset(&self) -> usize {
        self.steps_offset.unwrap_or(0)
    }

    /// What is done to the predicted finished sample: dynamic thresholding goes before clipping.
    pub(super) fn limit(&self) -> Limit {
        let Self { dynamic_thresholding_ratio: ratio, sample_max_value: max, clip_sample_range: range, .. } = *self;
        match (self.thresholding, self.clip_sample) {
            (true, _) => Limit::Threshold { ratio, max },
            (false, Some(true)) => Limit::Clip { range },
            (false, _) => Limit::None,
        }
    }
}
