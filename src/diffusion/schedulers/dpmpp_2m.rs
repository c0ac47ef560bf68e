//! DPM-Solver++ (Lu et al., 2022), multistep, first and second order; diffusers' `DPMSolverMultistepScheduler`.

use super::{
    Combination, Limit, NoiseMix, Plan, Prediction, PredictionType, SchedulerConfig, Step, TimestepSpacing,
    config::{BetaSchedule, FinalSigmas, SolverType},
    noise_schedule::{final_sigma, interpolate, karras, leading, linspace, sigma_to_timestep, sigmas, trailing},
};

/// Below this many steps diffusers takes the last one in first order (`lower_order_final`).
const FEW_STEPS: usize = 15;

pub(super) fn plan(config: &SchedulerConfig, steps: usize, begin: usize) -> Plan {
    let trained = sigmas(config);
    let (timesteps, mut levels) = visited(config, &trained, steps);
    levels.push(final_sigma(config, &trained));
    let levels: Vec<Level> = levels.into_iter().map(Level::new).collect();
    let step = |index: usize| {
        let (from, to) = (levels[index], levels[index + 1]);
        let before = second_order(config, steps, begin, index).then(|| levels[index - 1]);
        Step {
            timestep: timesteps[index],
            input_scale: 1.0,
            predict: from.prediction(config.prediction_type),
            combine: combination(config.solver_type, before, from, to),
            start: NoiseMix { signal: from.alpha, noise: from.sigma },
        }
    };
    Plan { init_noise_sigma: 1.0, limit: config.threshold().unwrap_or(Limit::None), steps: (begin..steps).map(step).collect() }
}

/// The second order needs a step before it, and diffusers does without it at an end where it would be unstable.
fn second_order(config: &SchedulerConfig, steps: usize, begin: usize, index: usize) -> bool {
    let last = index + 1 == steps;
    let first_order_end =
        config.euler_at_final || (config.lower_order_final && steps < FEW_STEPS) || config.final_sigmas_type == FinalSigmas::Zero;
    config.solver_order >= 2 && index > begin && !(last && first_order_end)
}

/// The timesteps and noise levels of the steps.
fn visited(config: &SchedulerConfig, trained: &[f64], steps: usize) -> (Vec<f64>, Vec<f64>) {
    if config.use_karras_sigmas {
        let levels = karras(trained[0], trained[trained.len() - 1], steps);
        let cosine = config.beta_schedule == BetaSchedule::SquaredcosCapV2;
        let timestep = |&sigma: &f64| sigma_to_timestep(trained, sigma);
        // diffusers rounds, but for the cosine schedule, where it cuts (its timesteps are integers).
        let whole = |timestep: f64| if cosine { timestep.trunc() } else { timestep.round_ties_even() };
        return (levels.iter().map(timestep).map(whole).collect(), levels);
    }
    let timesteps = spaced(config, trained, steps);
    let levels = timesteps.iter().map(|&timestep| interpolate(trained, timestep)).collect();
    (timesteps, levels)
}

/// Unlike the other schedulers, leading and linspace divide by one step more and drop the last.
fn spaced(config: &SchedulerConfig, trained: &[f64], steps: usize) -> Vec<f64> {
    // λ = −ln σ falls with the timestep: `lambda_min_clipped` leaves the noisiest out.
    let clipped = config.lambda_min_clipped.map_or(0, |min| trained.iter().filter(|sigma| -sigma.ln() < min).count());
    let last = config.num_train_timesteps - clipped;
    match config.timestep_spacing.unwrap_or(TimestepSpacing::Linspace) {
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

/// A noise level as the paper has it: x = α · x₀ + σ · ε, λ = ln(α / σ).
#[derive(Debug, Clone, Copy)]
struct Level {
    alpha: f64,
    sigma: f64,
    lambda: f64,
}

impl Level {
    /// From diffusers' σ, which is the paper's σ / α.
    fn new(sigma: f64) -> Self {
        let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
        Self { alpha, sigma: sigma * alpha, lambda: -sigma.ln() }
    }

    fn prediction(self, prediction_type: PredictionType) -> Prediction {
        let Self { alpha, sigma, .. } = self;
        match prediction_type {
            PredictionType::Epsilon => Prediction { sample: 1.0 / alpha, model_output: -sigma / alpha },
            PredictionType::VPrediction => Prediction { sample: alpha, model_output: -sigma },
            PredictionType::Sample => Prediction { sample: 0.0, model_output: 1.0 },
        }
    }
}

/// Equation (9) of the paper in first order, algorithm 2 in second: with h = λ_to − λ_from and D = (x₀ − x₀ before) / r,
/// `x_to = σ_to / σ_from · x − α_to (e^−h − 1) · x₀ + weight · D`.
fn combination(solver_type: SolverType, before: Option<Level>, from: Level, to: Level) -> Combination {
    let h = to.lambda - from.lambda;
    let gain = -to.alpha * (-h).exp_m1();
    let sample = to.sigma / from.sigma;
    let Some(before) = before else {
        return Combination { sample, pred_original_sample: gain, ..Combination::default() };
    };
    let r = (from.lambda - before.lambda) / h;
    let weight = match solver_type {
        SolverType::Midpoint => 0.5 * gain,
        SolverType::Heun => to.alpha * ((-h).exp_m1() / h + 1.0),
    } / r;
    Combination { sample, pred_original_sample: gain + weight, history: [-weight], ..Combination::default() }
}
