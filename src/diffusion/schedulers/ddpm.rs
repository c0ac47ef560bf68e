//! Denoising diffusion probabilistic models (Ho, Jain and Abbeel, 2020), equations (6) and (7); diffusers' `DDPMScheduler`.

use super::{
    Call, NoiseMix, Plan, PlanOrder, SchedulerConfig,
    combination::{NOISE, PREDICTION, SAMPLE},
    config::VarianceType,
    noise_schedule::{alphas_cumprod, timesteps},
};

/// diffusers keeps the posterior's variance this far from 0.
const SMALLEST_VARIANCE: f64 = 1e-20;

pub(super) fn plan(config: &SchedulerConfig, order: &PlanOrder) -> Plan {
    let alphas = alphas_cumprod(config);
    let timesteps = timesteps(config, order.steps).into_iter().map(f64::round_ties_even);
    let timesteps: Vec<f64> = timesteps.skip(order.begin).collect();
    let alpha = |timestep: f64| alphas[(timestep as usize).min(alphas.len() - 1)];
    let call = |index: usize| {
        let timestep = timesteps[index];
        let alpha_prev = timesteps.get(index + 1).map_or(1.0, |&prev| alpha(prev));
        Call { timestep, ..ddpm_call(config, alpha(timestep), alpha_prev, timestep > 0.0) }
    };
    Plan { init_noise_sigma: 1.0, limit: config.limit(), calls: (0..timesteps.len()).map(call).collect() }
}

/// The mean of the posterior q(x_prev | x, x₀), and noise but for the training's first timestep.
fn ddpm_call(config: &SchedulerConfig, alpha: f64, alpha_prev: f64, is_noisy: bool) -> Call {
    let current_alpha = alpha / alpha_prev;
    let posterior = (1.0 - alpha_prev) / (1.0 - alpha) * (1.0 - current_alpha);
    let variance = match config.variance_type {
        VarianceType::FixedSmall => posterior.max(SMALLEST_VARIANCE),
        VarianceType::FixedLarge => 1.0 - current_alpha,
    };
    let mean = PREDICTION * (alpha_prev.sqrt() * (1.0 - current_alpha) / (1.0 - alpha))
        + SAMPLE * (current_alpha.sqrt() * (1.0 - alpha_prev) / (1.0 - alpha));
    let level = NoiseMix::of_alpha_cumprod(alpha);
    Call {
        input_scale: 1.0,
        start: level,
        predict: level.prediction(config.prediction_type),
        combine: if is_noisy { mean + NOISE * variance.sqrt() } else { mean },
        ..Call::default()
    }
}
