//! Euler's method on the probability-flow ODE (Karras et al., 2022, algorithm 2 without churn); diffusers' `EulerDiscreteScheduler`.

use super::{
    Combination, HISTORY, Limit, NoiseMix, Plan, Prediction, PredictionType, SchedulerConfig, Step, TimestepSpacing,
    noise_schedule::{final_sigma, interpolate, karras, sigma_to_timestep, sigmas, timesteps},
};

pub(super) fn plan(config: &SchedulerConfig, steps: usize, begin: usize) -> Plan {
    let trained = sigmas(config);
    let spacing = config.timestep_spacing.unwrap_or(TimestepSpacing::Linspace);
    let mut timesteps = timesteps(config, spacing, steps);
    let mut levels: Vec<f64> = timesteps.iter().map(|&timestep| interpolate(&trained, timestep)).collect();
    if config.use_karras_sigmas {
        let (min, max) = (config.sigma_min.unwrap_or(levels[steps - 1]), config.sigma_max.unwrap_or(levels[0]));
        levels = karras(min, max, steps);
        timesteps = levels.iter().map(|&sigma| sigma_to_timestep(&trained, sigma)).collect();
    }
    let max_sigma = levels.iter().copied().fold(0.0, f64::max);
    levels.push(final_sigma(config, &trained));
    let step = |index: usize| euler_step(config.prediction_type, timesteps[index], levels[index], levels[index + 1]);
    Plan {
        init_noise_sigma: match spacing {
            TimestepSpacing::Leading => (max_sigma * max_sigma + 1.0).sqrt(),
            TimestepSpacing::Linspace | TimestepSpacing::Trailing => max_sigma,
        },
        limit: Limit::None,
        steps: (begin..steps).map(step).collect(),
    }
}

/// `prev_sample = x + (x − x₀) / σ · (σ_next − σ)`
fn euler_step(prediction_type: PredictionType, timestep: f64, sigma: f64, sigma_next: f64) -> Step {
    let variance = sigma * sigma + 1.0;
    let predict = match prediction_type {
        PredictionType::Epsilon => Prediction { sample: 1.0, model_output: -sigma },
        PredictionType::VPrediction => Prediction { sample: 1.0 / variance, model_output: -sigma / variance.sqrt() },
        PredictionType::Sample => Prediction { sample: 0.0, model_output: 1.0 },
    };
    let share = (sigma_next - sigma) / sigma;
    Step {
        timestep,
        input_scale: 1.0 / variance.sqrt(),
        predict,
        combine: Combination { sample: 1.0 + share, model_output: 0.0, pred_original_sample: -share, history: [0.0; HISTORY] },
        start: NoiseMix { signal: 1.0, noise: sigma },
    }
}
