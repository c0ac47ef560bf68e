//! The training's noise levels, and which of them the steps visit.

use std::f64::consts::FRAC_PI_2;

use super::{
    SchedulerConfig, TimestepSpacing,
    beta::beta_quantile,
    config::{BetaSchedule, FinalSigmas},
};
use crate::domain::SigmaSchedule;

/// diffusers keeps the last ᾱ this far from 0, so that the first σ is finite.
const SMALLEST_ALPHA_CUMPROD: f64 = 1.0 / (1 << 24) as f64;
const KARRAS_RHO: f64 = 7.0;

/// ᾱ of every training timestep.
pub(super) fn alphas_cumprod(config: &SchedulerConfig) -> Vec<f64> {
    let mut product = 1.0;
    let alphas = betas(config).into_iter().map(|beta| {
        product *= 1.0 - beta;
        product
    });
    let alphas: Vec<f64> = alphas.collect();
    if config.rescale_betas_zero_snr { zero_terminal_snr(&alphas) } else { alphas }
}

/// σ = √((1 − ᾱ) / ᾱ) of every training timestep, from the smallest.
pub(super) fn sigmas(config: &SchedulerConfig) -> Vec<f64> {
    let mut alphas = alphas_cumprod(config);
    if let (true, Some(last)) = (config.rescale_betas_zero_snr, alphas.last_mut()) {
        *last = SMALLEST_ALPHA_CUMPROD;
    }
    alphas.into_iter().map(|alpha| ((1.0 - alpha) / alpha).sqrt()).collect()
}

fn betas(config: &SchedulerConfig) -> Vec<f64> {
    if let Some(betas) = &config.trained_betas {
        return betas.clone();
    }
    let (start, end) = (config.beta_start.unwrap_or(0.0001), config.beta_end.unwrap_or(0.02));
    let steps = config.num_train_timesteps;
    match config.beta_schedule.unwrap_or_default() {
        BetaSchedule::Linear => linspace(start, end, steps),
        BetaSchedule::ScaledLinear => linspace(start.sqrt(), end.sqrt(), steps).into_iter().map(|root| root * root).collect(),
        BetaSchedule::SquaredcosCapV2 => cosine_betas(steps),
    }
}

/// diffusers' `betas_for_alpha_bar`.
fn cosine_betas(steps: usize) -> Vec<f64> {
    let alpha_bar = |step: usize| ((step as f64 / steps as f64 + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2);
    (0..steps).map(|step| (1.0 - alpha_bar(step + 1) / alpha_bar(step)).min(0.999)).collect()
}

/// Algorithm 1 of Lin et al. (2023), diffusers' `rescale_zero_terminal_snr`: √ᾱ is shifted so that its last value is 0 and scaled so that
/// its first stays.
fn zero_terminal_snr(alphas: &[f64]) -> Vec<f64> {
    let roots: Vec<f64> = alphas.iter().map(|alpha| alpha.sqrt()).collect();
    let (Some(first), Some(last)) = (roots.first(), roots.last()) else { return Vec::new() };
    roots.iter().map(|root| ((root - last) * first / (first - last)).powi(2)).collect()
}

/// `steps` evenly spaced numbers from `start` to `end`, both included.
pub(super) fn linspace(start: f64, end: f64, steps: usize) -> Vec<f64> {
    let gap = (end - start) / (steps.max(2) - 1) as f64;
    (0..steps).map(|step| start + gap * step as f64).collect()
}

/// Leading spacing, from the largest: whole multiples of `ratio` from 0, moved by `steps_offset`.
pub(super) fn leading(ratio: usize, steps: usize, steps_offset: usize) -> Vec<f64> {
    (0..steps).rev().map(|step| (step * ratio + steps_offset) as f64).collect()
}

/// Trailing spacing, from the largest: back from `last` by `num_train_timesteps / steps`.
pub(super) fn trailing(last: usize, num_train_timesteps: usize, steps: usize) -> Vec<f64> {
    let ratio = num_train_timesteps as f64 / steps as f64;
    (0..steps).map(|step| (last as f64 - step as f64 * ratio).round_ties_even() - 1.0).collect()
}

/// The timesteps of all but the exponential integrators, from the largest; fractions where linspace falls between.
pub(super) fn timesteps(config: &SchedulerConfig, steps: usize) -> Vec<f64> {
    let trained = config.num_train_timesteps;
    match config.spacing() {
        TimestepSpacing::Linspace => linspace(0.0, (trained - 1) as f64, steps).into_iter().rev().collect(),
        TimestepSpacing::Leading => leading(trained / steps, steps, config.offset()),
        TimestepSpacing::Trailing => trailing(trained, trained, steps),
    }
}

/// σ between the training's timesteps, as numpy's `interp`.
pub(super) fn interpolate(sigmas: &[f64], timestep: f64) -> f64 {
    let last = sigmas.len() - 1;
    let below = (timestep.max(0.0).floor() as usize).min(last);
    let above = (below + 1).min(last);
    sigmas[below] + (sigmas[above] - sigmas[below]) * (timestep - below as f64).clamp(0.0, 1.0)
}

/// The noise levels from `max` to `min` of a schedule that leaves the spaced timesteps, in as many steps; `None` is one that keeps them.
pub(super) fn respaced(config: &SchedulerConfig, (max, min): (f64, f64), steps: usize) -> Option<Vec<f64>> {
    match config.sigma_schedule() {
        SigmaSchedule::Own | SigmaSchedule::SgmUniform => None,
        SigmaSchedule::Karras => Some(karras(min, max, steps)),
        SigmaSchedule::Exponential => Some(linspace(max.ln(), min.ln(), steps).into_iter().map(f64::exp).collect()),
        SigmaSchedule::Beta => {
            let level = |ramp: f64| min + beta_quantile(1.0 - ramp) * (max - min);
            Some(linspace(0.0, 1.0, steps).into_iter().map(level).collect())
        }
    }
}

/// Equation (5) of Karras et al. (2022): `steps` noise levels from `max` to `min`.
fn karras(min: f64, max: f64, steps: usize) -> Vec<f64> {
    let (min, max) = (min.powf(1.0 / KARRAS_RHO), max.powf(1.0 / KARRAS_RHO));
    linspace(0.0, 1.0, steps).into_iter().map(|ramp| (max + ramp * (min - max)).powf(KARRAS_RHO)).collect()
}

/// The training timestep, fractions included, at which the noise is σ: diffusers' `_sigma_to_t`.
pub(super) fn sigma_to_timestep(sigmas: &[f64], sigma: f64) -> f64 {
    let log_sigma = sigma.max(1e-10).ln();
    let below = sigmas.partition_point(|level| level.ln() <= log_sigma).saturating_sub(1).min(sigmas.len() - 2);
    let (low, high) = (sigmas[below].ln(), sigmas[below + 1].ln());
    below as f64 + ((low - log_sigma) / (low - high)).clamp(0.0, 1.0)
}

/// The noise level behind the last step.
pub(super) fn final_sigma(config: &SchedulerConfig, smallest: f64) -> f64 {
    match config.final_sigmas_type {
        FinalSigmas::Zero => 0.0,
        FinalSigmas::SigmaMin => smallest,
    }
}

/// Whether the place of the training's largest σ falls short of the last timestep in diffusers' arithmetic, which keeps the tables in float32
/// but the levels of a schedule in float64: the logarithm may round up, and a timestep that is cut is then one less. It is so for Stable
/// Diffusion's betas.
pub(super) fn top_falls_short(config: &SchedulerConfig) -> bool {
    let largest = largest_sigma_float32(config);
    f64::from(largest).ln() < f64::from(largest.ln())
}

/// The training's largest σ as diffusers' float32 tables have it.
fn largest_sigma_float32(config: &SchedulerConfig) -> f32 {
    if config.rescale_betas_zero_snr {
        let alpha = SMALLEST_ALPHA_CUMPROD as f32;
        return ((1.0 - alpha) / alpha).sqrt();
    }
    let alpha = betas_float32(config).into_iter().fold(1.0_f64, |product, beta| product * f64::from(1.0 - beta)) as f32;
    ((1.0 - alpha) / alpha).sqrt()
}

fn betas_float32(config: &SchedulerConfig) -> Vec<f32> {
    let square = config.trained_betas.is_none() && config.beta_schedule == Some(BetaSchedule::ScaledLinear);
    if !square {
        return betas(config).into_iter().map(|beta| beta as f32).collect();
    }
    let (start, end) = (config.beta_start.unwrap_or(0.0001), config.beta_end.unwrap_or(0.02));
    let roots = linspace(start.sqrt(), end.sqrt(), config.num_train_timesteps);
    roots.into_iter().map(|root| root as f32 * root as f32).collect()
}
