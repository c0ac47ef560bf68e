//! Denoising diffusion implicit models (Song, Meng and Ermon, 2020), equation (12) with η = 0; diffusers' `DDIMScheduler`.

use super::{
    Combination, HISTORY, Limit, NoiseMix, Plan, Prediction, PredictionType, SchedulerConfig, Step, TimestepSpacing,
    noise_schedule::{alphas_cumprod, timesteps},
};

pub(super) fn plan(config: &SchedulerConfig, steps: usize, begin: usize) -> Plan {
    let alphas = alphas_cumprod(config);
    let spacing = config.timestep_spacing.unwrap_or(TimestepSpacing::Leading);
    // DDIM knows the noise of whole timesteps only.
    let timesteps = timesteps(config, spacing, steps).into_iter().map(f64::round_ties_even);
    // Whatever the spacing, diffusers looks back by this much.
    let ratio = (config.num_train_timesteps / steps) as f64;
    let step = |timestep: f64| {
        let alpha = alphas[(timestep as usize).min(alphas.len() - 1)];
        let before = timestep - ratio;
        let alpha_prev = if before >= 0.0 { alphas[before as usize] } else { final_alpha(config, &alphas) };
        ddim_step(config.prediction_type, timestep, alpha, alpha_prev)
    };
    let clip = config.clip_sample.unwrap_or(true).then_some(Limit::Clip { range: config.clip_sample_range });
    Plan {
        init_noise_sigma: 1.0,
        limit: config.threshold().or(clip).unwrap_or(Limit::None),
        steps: timesteps.skip(begin).map(step).collect(),
    }
}

fn final_alpha(config: &SchedulerConfig, alphas: &[f64]) -> f64 {
    if config.set_alpha_to_one.unwrap_or(true) { 1.0 } else { alphas[0] }
}

/// `prev_sample = √ᾱ_prev · x₀ + √(1 − ᾱ_prev) · ε`, where ε is taken from the sample and the model's output before x₀ is limited.
fn ddim_step(prediction_type: PredictionType, timestep: f64, alpha: f64, alpha_prev: f64) -> Step {
    let (signal, noise) = (alpha.sqrt(), (1.0 - alpha).sqrt());
    let (predict, epsilon) = match prediction_type {
        PredictionType::Epsilon => ((1.0 / signal, -noise / signal), (0.0, 1.0)),
        PredictionType::VPrediction => ((signal, -noise), (noise, signal)),
        PredictionType::Sample => ((0.0, 1.0), (1.0 / noise, -signal / noise)),
    };
    let direction = (1.0 - alpha_prev).sqrt();
    Step {
        timestep,
        input_scale: 1.0,
        predict: Prediction { sample: predict.0, model_output: predict.1 },
        combine: Combination {
            sample: direction * epsilon.0,
            model_output: direction * epsilon.1,
            pred_original_sample: alpha_prev.sqrt(),
            history: [0.0; HISTORY],
        },
        start: NoiseMix { signal, noise },
    }
}
