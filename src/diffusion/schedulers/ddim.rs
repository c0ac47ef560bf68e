//! Denoising diffusion implicit models (Song, Meng and Ermon, 2020), equations (12) and (16); diffusers' `DDIMScheduler`.

use super::{
    Call, NoiseMix, Plan, PlanOrder, SchedulerConfig,
    combination::{NOISE, PREDICTION},
    noise_schedule::{alphas_cumprod, timesteps},
};

pub(super) fn plan(config: &SchedulerConfig, order: &PlanOrder) -> Plan {
    let alphas = alphas_cumprod(config);
    // DDIM knows the noise of whole timesteps only.
    let timesteps = timesteps(config, order.steps).into_iter().map(f64::round_ties_even);
    let timesteps: Vec<f64> = timesteps.skip(order.begin).collect();
    // Whatever the spacing, diffusers looks back by this much.
    let ratio = (config.num_train_timesteps / order.steps) as f64;
    let alpha = |timestep: f64| alphas[(timestep as usize).min(alphas.len() - 1)];
    let call = |&timestep: &f64| {
        let before = timestep - ratio;
        let alpha_prev = if before >= 0.0 { alpha(before) } else { final_alpha(config, &alphas) };
        Call { timestep, ..ddim_call(config, (alpha(timestep), alpha_prev), order.eta()) }
    };
    Plan { init_noise_sigma: 1.0, limit: config.limit(), calls: timesteps.iter().map(call).collect() }
}

/// ᾱ behind the last step.
pub(super) fn final_alpha(config: &SchedulerConfig, alphas: &[f64]) -> f64 {
    if config.set_alpha_to_one == Some(true) { 1.0 } else { alphas[0] }
}

/// `prev_sample = √ᾱ_prev · x₀ + √(1 − ᾱ_prev − σ²) · ε + σ · noise`, where ε is taken before x₀ is limited.
fn ddim_call(config: &SchedulerConfig, (alpha, alpha_prev): (f64, f64), eta: f64) -> Call {
    let level = NoiseMix::of_alpha_cumprod(alpha);
    let variance = (1.0 - alpha_prev) / (1.0 - alpha) * (1.0 - alpha / alpha_prev);
    let sigma = eta * variance.sqrt();
    let direction = (1.0 - alpha_prev - sigma * sigma).sqrt();
    Call {
        input_scale: 1.0,
        start: level,
        predict: level.prediction(config.prediction_type),
        combine: PREDICTION * alpha_prev.sqrt() + level.epsilon(config.prediction_type) * direction + NOISE * sigma,
        ..Call::default()
    }
}
