//! The diffusion exponential integrator (Zhang and Chen, 2022), multistep with polynomials in log ρ; diffusers' `DEISMultistepScheduler`.

use super::{
    Call, Combination, Plan, PlanOrder, SchedulerConfig,
    combination::{PREDICTION, SAMPLE, history},
    vp::{VpLevels, multistep_order},
};

pub(super) fn plan(config: &SchedulerConfig, order: &PlanOrder) -> Plan {
    let grid = VpLevels::new(config, order);
    grid.plan(config, order.begin, |index| {
        let mix = grid.level(index).mix;
        // ε of the sample and of x₀ after it was limited.
        let epsilon = (SAMPLE - PREDICTION * mix.signal) * (1.0 / mix.noise);
        let solver_order = multistep_order(config, order, index, false);
        Call { combine: combination(&grid, index, solver_order, epsilon), record: Some(epsilon), ..grid.call(index) }
    })
}

/// `α_to · (x / α_from + Σ weight · ε)`, where a weight is the integral over the step, in ρ = σ / α, of the polynomial in ln ρ that is 1 at that
/// ε's level and 0 at the others'.
fn combination(grid: &VpLevels, index: usize, order: usize, epsilon: Combination) -> Combination {
    let (from, to) = grid.of_step(index);
    let rhos: Vec<f64> = (0..order).map(|back| grid.level(index - back).sigma).collect();
    let weighed = |back: usize| {
        let others: Vec<f64> = (0..order).filter(|&other| other != back).map(|other| rhos[other].ln()).collect();
        let weight = integral(to.sigma, rhos[back], &others) - integral(from.sigma, rhos[back], &others);
        (if back == 0 { epsilon } else { history(back - 1) }) * weight
    };
    (0..order).map(weighed).fold(SAMPLE * (1.0 / from.mix.signal), |sum, term| sum + term) * to.mix.signal
}

/// The integral over ρ, up to a constant, of the product of (ln ρ − other) / (ln own − other) over the others' logarithms, two at most.
fn integral(rho: f64, own: f64, others: &[f64]) -> f64 {
    let (log, own) = (rho.ln(), own.ln());
    match *others {
        [] => rho,
        [c] => rho * (log - 1.0 - c) / (own - c),
        [c, d, ..] => {
            let product = log * log - 2.0 * log + 2.0 - (c + d) * (log - 1.0) + c * d;
            rho * product / ((own - c) * (own - d))
        }
    }
}
