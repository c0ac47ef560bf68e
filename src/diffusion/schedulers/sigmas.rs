//! The noise levels of the schedulers that work in σ, as k-diffusion has them: x = x₀ + σ · ε.

use super::{
    Call, Combination, NoiseMix, Plan, Prediction, PredictionType, SchedulerConfig, TimestepSpacing,
    combination::{PREDICTION, SAMPLE},
    noise_schedule::{final_sigma, interpolate, respaced, sigma_to_timestep, sigmas, timesteps},
};

/// The noise levels that the steps visit.
#[derive(Debug)]
pub(super) struct Sigmas {
    /// Of every step; fractions where a level falls between the training's.
    pub(super) timesteps: Vec<f64>,
    /// Of every step, and behind the last.
    pub(super) levels: Vec<f64>,
    /// Of every training timestep.
    trained: Vec<f64>,
    init_noise_sigma: f64,
    prediction_type: PredictionType,
}

impl Sigmas {
    pub(super) fn new(config: &SchedulerConfig, steps: usize) -> Self {
        let trained = sigmas(config);
        let mut timesteps = timesteps(config, steps);
        let mut levels: Vec<f64> = timesteps.iter().map(|&timestep| interpolate(&trained, timestep)).collect();
        let ends = (config.sigma_max.unwrap_or(levels[0]), config.sigma_min.unwrap_or(levels[steps - 1]));
        if let Some(respaced) = respaced(config, ends, steps) {
            timesteps = respaced.iter().map(|&sigma| sigma_to_timestep(&trained, sigma)).collect();
            levels = respaced;
        }
        let init_noise_sigma = init_noise_sigma(config, &levels);
        levels.push(final_sigma(config, trained[0]));
        Self { timesteps, levels, trained, init_noise_sigma, prediction_type: config.prediction_type }
    }

    /// The noise levels of a step: before and after.
    pub(super) fn of_step(&self, index: usize) -> (f64, f64) {
        (self.levels[index], self.levels[index + 1])
    }

    /// The first call of a step, which combines nothing yet.
    pub(super) fn call(&self, index: usize) -> Call {
        self.call_at(self.timesteps[index], self.levels[index])
    }

    /// The second call of a step, at a noise level in the middle. What a mask keeps is put back there as at the step's end, as diffusers does.
    pub(super) fn call_between(&self, index: usize, sigma: f64) -> Call {
        let start = NoiseMix { signal: 1.0, noise: self.levels[index + 1] };
        Call { start, ..self.call_at(sigma_to_timestep(&self.trained, sigma), sigma) }
    }

    /// A call at a timestep whose noise level is `sigma`.
    pub(super) fn call_at(&self, timestep: f64, sigma: f64) -> Call {
        let variance = sigma * sigma + 1.0;
        let predict = match self.prediction_type {
            PredictionType::Epsilon => Prediction { sample: 1.0, model_output: -sigma },
            PredictionType::VPrediction => Prediction { sample: 1.0 / variance, model_output: -sigma / variance.sqrt() },
            PredictionType::Sample => Prediction { sample: 0.0, model_output: 1.0 },
        };
        let start = NoiseMix { signal: 1.0, noise: sigma };
        Call { timestep, input_scale: 1.0 / variance.sqrt(), start, predict, ..Call::default() }
    }

    /// The plan of the calls of the steps from `begin`.
    pub(super) fn plan(&self, config: &SchedulerConfig, begin: usize, calls_of: impl FnMut(usize) -> Vec<Call>) -> Plan {
        let steps = self.timesteps.len();
        Plan { init_noise_sigma: self.init_noise_sigma, limit: config.limit(), calls: (begin..steps).flat_map(calls_of).collect() }
    }
}

fn init_noise_sigma(config: &SchedulerConfig, levels: &[f64]) -> f64 {
    let largest = levels.iter().copied().fold(0.0, f64::max);
    match config.spacing() {
        TimestepSpacing::Leading => (largest * largest + 1.0).sqrt(),
        TimestepSpacing::Linspace | TimestepSpacing::Trailing => largest,
    }
}

/// The straight way from a noise level to another: `x + (x − x₀) / from · (to − from)`.
pub(super) fn straight(from: f64, to: f64) -> Combination {
    let share = to / from;
    SAMPLE * share + PREDICTION * (1.0 - share)
}

/// dx/dσ at a noise level, which is ε: `(x − x₀) / sigma`.
pub(super) fn derivative(sigma: f64) -> Combination {
    (SAMPLE - PREDICTION) * (1.0 / sigma)
}

/// An ancestral step goes down below its end and draws noise up to it again; k-diffusion's `get_ancestral_step`: (down, up).
pub(super) fn ancestral(from: f64, to: f64, eta: f64) -> (f64, f64) {
    let up = (eta * (to * to * (from * from - to * to).max(0.0) / (from * from)).sqrt()).min(to);
    ((to * to - up * up).sqrt(), up)
}
