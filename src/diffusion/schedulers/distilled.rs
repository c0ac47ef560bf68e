//! The samplers of distilled models, which visit a part of the timesteps that their distillation has: diffusers' `LCMScheduler` and
//! `TCDScheduler`.

use super::{
    Call, Limit, NoiseMix, Plan, PlanOrder, SchedulerConfig,
    combination::{Combination, NOISE, PREDICTION, SAMPLE},
    noise_schedule::alphas_cumprod,
};

/// σ_data of the consistency function's boundary condition.
const SIGMA_DATA: f64 = 0.5;

/// Latent consistency models (Luo et al., 2023), algorithm 1: each step goes to a finished sample and, but for the last, makes it noisy again.
pub(super) fn lcm(config: &SchedulerConfig, order: &PlanOrder) -> Plan {
    let step = |level: NoiseMix, timestep: usize, next: Option<usize>, alphas: &[f64]| {
        let denoised = consistency(config, timestep);
        let next = next.map(|next| NoiseMix::of_alpha_cumprod(alphas[next]));
        let combine = next.map_or(denoised, |next| denoised * next.signal + NOISE * next.noise);
        Call { predict: level.prediction(config.prediction_type), combine, ..Call::default() }
    };
    distilled(config, order, config.limit(), step)
}

/// `c_out · x₀ + c_skip · x`
fn consistency(config: &SchedulerConfig, timestep: usize) -> Combination {
    let scaled = timestep as f64 * config.timestep_scaling;
    let variance = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
    PREDICTION * (scaled / variance.sqrt()) + SAMPLE * (SIGMA_DATA * SIGMA_DATA / variance)
}

/// Trajectory consistency distillation (Zheng et al., 2024), algorithm 4 ("strategic stochastic sampling"); η is the paper's γ.
pub(super) fn tcd(config: &SchedulerConfig, order: &PlanOrder) -> Plan {
    let eta = order.eta();
    let step = |level: NoiseMix, _: usize, next: Option<usize>, alphas: &[f64]| {
        let to = next.unwrap_or(0);
        // In float32, as torch multiplies whole timesteps with a number.
        let below = ((1.0 - eta) as f32 * to as f32).floor() as usize;
        let target = NoiseMix::of_alpha_cumprod(alphas[below]);
        let noised = PREDICTION * target.signal + level.epsilon(config.prediction_type) * target.noise;
        let share = alphas[to] / alphas[below];
        let is_noisy = eta > 0.0 && next.is_some();
        let combine = if is_noisy { noised * share.sqrt() + NOISE * (1.0 - share).sqrt() } else { noised };
        Call { predict: level.prediction(config.prediction_type), combine, ..Call::default() }
    };
    distilled(config, order, Limit::None, step)
}

/// A plan over the distillation's timesteps; `step` makes a call of the noise level, the timestep, the next one and ᾱ.
fn distilled(
    config: &SchedulerConfig,
    order: &PlanOrder,
    limit: Limit,
    step: impl Fn(NoiseMix, usize, Option<usize>, &[f64]) -> Call,
) -> Plan {
    let alphas = alphas_cumprod(config);
    let timesteps: Vec<usize> = visited(config, order.steps).into_iter().skip(order.begin).collect();
    let level = |timestep: usize| NoiseMix::of_alpha_cumprod(alphas[timestep]);
    let call = |index: usize| {
        let timestep = timesteps[index];
        let call = step(level(timestep), timestep, timesteps.get(index + 1).copied(), &alphas);
        Call { timestep: timestep as f64, input_scale: 1.0, start: level(timestep), ..call }
    };
    Plan { init_noise_sigma: 1.0, limit, calls: (0..timesteps.len()).map(call).collect() }
}

/// Evenly spaced among the timesteps of the distillation, from the last.
fn visited(config: &SchedulerConfig, steps: usize) -> Vec<usize> {
    let original = config.original_inference_steps.clamp(1, config.num_train_timesteps);
    let ratio = config.num_train_timesteps / original;
    let gap = original as f64 / steps as f64;
    (0..steps).map(|step| (original - (step as f64 * gap).floor() as usize) * ratio - 1).collect()
}
