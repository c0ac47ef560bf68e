//! Noise levels as the variance-preserving process has them: x = signal · x₀ + noise · ε with signal² + noise² = 1.

use super::{
    Call, Combination, NoiseMix, Plan, PlanOrder, Prediction, PredictionType, SchedulerConfig, TimestepSpacing,
    combination::{MODEL_OUTPUT, SAMPLE},
    config::BetaSchedule,
    dpmsolver_multistep::FEW_STEPS,
    noise_schedule::{final_sigma, interpolate, leading, linspace, respaced, sigma_to_timestep, sigmas, top_falls_short, trailing},
};
use crate::domain::SchedulerAlgorithm;

impl NoiseMix {
    /// Of ᾱ.
    pub(super) fn of_alpha_cumprod(alpha: f64) -> Self {
        Self { signal: alpha.sqrt(), noise: (1.0 - alpha).sqrt() }
    }

    /// Of diffusers' σ, which is noise / signal.
    pub(super) fn of_sigma(sigma: f64) -> Self {
        let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
        Self { signal, noise: sigma * signal }
    }

    /// x₀ of a sample at this level.
    pub(super) fn prediction(self, prediction_type: PredictionType) -> Prediction {
        let Self { signal, noise } = self;
        match prediction_type {
            PredictionType::Epsilon => Prediction { sample: 1.0 / signal, model_output: -noise / signal },
            PredictionType::VPrediction => Prediction { sample: signal, model_output: -noise },
            PredictionType::Sample => Prediction { sample: 0.0, model_output: 1.0 },
        }
    }

    /// ε of a sample at this level, whatever becomes of x₀.
    pub(super) fn epsilon(self, prediction_type: PredictionType) -> Combination {
        self.epsilon_of(prediction_type, MODEL_OUTPUT)
    }

    /// The same, with a mean of several model outputs in the place of the last.
    pub(super) fn epsilon_of(self, prediction_type: PredictionType, model_output: Combination) -> Combination {
        let Self { signal, noise } = self;
        match prediction_type {
            PredictionType::Epsilon => model_output,
            PredictionType::VPrediction => model_output * signal + SAMPLE * noise,
            PredictionType::Sample => (SAMPLE - model_output * signal) * (1.0 / noise),
        }
    }
}

/// A noise level, with λ = ln(signal / noise).
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    pub(super) mix: NoiseMix,
    /// diffusers' σ: noise / signal.
    pub(super) sigma: f64,
    pub(super) lambda: f64,
}

impl Level {
    fn new(sigma: f64) -> Self {
        Self { mix: NoiseMix::of_sigma(sigma), sigma, lambda: -sigma.ln() }
    }
}

/// The noise levels that a multistep exponential integrator (DPM-Solver++, DEIS, UniPC) visits.
#[derive(Debug)]
pub(super) struct VpLevels {
    timesteps: Vec<f64>,
    /// Of every step, and behind the last.
    levels: Vec<Level>,
    prediction_type: PredictionType,
}

impl VpLevels {
    pub(super) fn new(config: &SchedulerConfig, order: &PlanOrder) -> Self {
        let trained = sigmas(config);
        let ends = (config.sigma_max.unwrap_or(trained[trained.len() - 1]), config.sigma_min.unwrap_or(trained[0]));
        let respaced = respaced(config, ends, order.steps);
        let behind = behind_last(config, order.name.algorithm, respaced.as_deref(), trained[0]);
        let (timesteps, mut sigmas) = match respaced {
            Some(sigmas) => (whole_timesteps(config, order.name.algorithm, &trained, &sigmas), sigmas),
            None => {
                let timesteps = spaced(config, &trained, order.steps);
                let sigmas = timesteps.iter().map(|&timestep| interpolate(&trained, timestep)).collect();
                (timesteps, sigmas)
            }
        };
        sigmas.push(behind);
        let levels = sigmas.into_iter().map(Level::new).collect();
        Self { timesteps, levels, prediction_type: config.prediction_type }
    }

    /// The noise levels of a step: before and after.
    pub(super) fn of_step(&self, index: usize) -> (Level, Level) {
        (self.levels[index], self.levels[index + 1])
    }

    /// The noise level before a step.
    pub(super) fn level(&self, index: usize) -> Level {
        self.levels[index]
    }

    /// The call of a step, which combines nothing yet.
    pub(super) fn call(&self, index: usize) -> Call {
        let level = self.levels[index].mix;
        let predict = level.prediction(self.prediction_type);
        Call { timestep: self.timesteps[index], input_scale: 1.0, start: level, predict, ..Call::default() }
    }

    /// The plan of the calls of the steps from `begin`.
    pub(super) fn plan(&self, config: &SchedulerConfig, begin: usize, call: impl FnMut(usize) -> Call) -> Plan {
        Plan { init_noise_sigma: 1.0, limit: config.limit(), calls: (begin..self.timesteps.len()).map(call).collect() }
    }
}

/// The order that a multistep solver takes a step in: it needs as many steps before it, and diffusers does without at an end where it would be
/// unstable, or where there are few steps in all.
pub(super) fn multistep_order(config: &SchedulerConfig, order: &PlanOrder, index: usize, unstable_end: bool) -> usize {
    let left = order.steps - index;
    let few = config.lower_order_final && order.steps < FEW_STEPS;
    let most = match left {
        1 if few || unstable_end => 1,
        2 if few => 2,
        _ => config.solver_order,
    };
    config.solver_order.min(most).min(index - order.begin + 1)
}

/// The noise level behind the last. DEIS always ends at the smallest; to it and to UniPC that is the last of a respaced schedule.
fn behind_last(config: &SchedulerConfig, algorithm: SchedulerAlgorithm, respaced: Option<&[f64]>, trained: f64) -> f64 {
    let last = respaced.and_then(<[f64]>::last).copied().unwrap_or(trained);
    match algorithm {
        SchedulerAlgorithm::Deis => last,
        SchedulerAlgorithm::Unipc => final_sigma(config, last),
        _ => final_sigma(config, trained),
    }
}

/// The training's timesteps at which respaced noise levels are told to the UNet: rounded on Karras's schedule, else cut. DPM-Solver++ cuts on
/// Karras's, too, if the training's is the cosine schedule.
fn whole_timesteps(config: &SchedulerConfig, algorithm: SchedulerAlgorithm, trained: &[f64], sigmas: &[f64]) -> Vec<f64> {
    let is_cosine = config.beta_schedule == Some(BetaSchedule::SquaredcosCapV2);
    let takes_cosine = !matches!(algorithm, SchedulerAlgorithm::Deis | SchedulerAlgorithm::Unipc);
    let rounds = config.use_karras_sigmas && !(is_cosine && takes_cosine);
    let place = |&sigma: &f64| sigma_to_timestep(trained, sigma);
    let whole = |place: f64| if rounds { place.round_ties_even() } else { place.trunc() };
    let mut timesteps: Vec<f64> = sigmas.iter().map(place).map(whole).collect();
    if let (false, None, Some(first)) = (config.use_karras_sigmas, config.sigma_max, timesteps.first_mut()) {
        *first = (config.num_train_timesteps - 1 - usize::from(top_falls_short(config))) as f64;
    }
    timesteps
}

/// Unlike the other schedulers, leading and linspace divide by one step more and drop the last.
fn spaced(config: &SchedulerConfig, trained: &[f64], steps: usize) -> Vec<f64> {
    // λ = −ln σ falls with the timestep: `lambda_min_clipped` leaves the noisiest out.
    let clipped = config.lambda_min_clipped.map_or(0, |min| trained.iter().filter(|sigma| -sigma.ln() < min).count());
    let last = config.num_train_timesteps - clipped;
    match config.spacing() {
        TimestepSpacing::Linspace => {
            linspace(0.0, (last - 1) as f64, steps + 1).into_iter().skip(1).rev().map(f64::round_ties_even).collect()
        }
        TimestepSpacing::Leading => {
            let ratio = last / (steps + 1);
            leading(ratio, steps, ratio + config.offset())
        }
        TimestepSpacing::Trailing => trailing(last, config.num_train_timesteps, steps),
    }
}
