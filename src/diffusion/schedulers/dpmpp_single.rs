//! The single-step forms of DPM-Solver++ (Lu et al., 2022, algorithm 1) as k-diffusion has them, with the middle of a step at r = ½ in
//! λ = −ln σ.
//!
//! With x and x₀ and the noise levels of a step, the first-order solution of the paper is `σ_to / σ_from · x − (e^−h − 1) · x₀`. As
//! e^−h = σ_to / σ_from, it is the straight way in σ.

use super::{
    Call, Plan, PlanOrder, SchedulerConfig,
    combination::{NOISE, PREDICTION, SAMPLE, history},
    sigmas::{Sigmas, ancestral, straight},
};

/// Second order with ancestral noise: k-diffusion's `sample_dpmpp_2s_ancestral`.
pub(super) fn ancestral_2s(config: &SchedulerConfig, order: &PlanOrder) -> Plan {
    let sigmas = Sigmas::new(config, order.steps);
    sigmas.plan(config, order.begin, |index| {
        let (from, to) = sigmas.of_step(index);
        let (down, up) = ancestral(from, to, order.eta());
        if down == 0.0 {
            return vec![Call { combine: straight(from, down) + NOISE * up, ..sigmas.call(index) }];
        }
        let middle = (from * down).sqrt();
        let share = down / from;
        let first = Call { combine: straight(from, middle), record: Some(SAMPLE * share), is_partial: true, ..sigmas.call(index) };
        let combine = history(0) + PREDICTION * (1.0 - share) + NOISE * up;
        vec![first, Call { combine, forget: 1, ..sigmas.call_between(index, middle) }]
    })
}

/// Stochastic, with noise in the middle of a step, too: diffusers' `DPMSolverSDEScheduler`, k-diffusion's `sample_dpmpp_sde`.
///
/// Both noises of a step are increments of one Brownian path W(σ) from the step's begin: to its middle, and to its end. So the second is made of
/// the first and of a fresh one, each with its share of the variance. diffusers takes the path from torchsde's tree, which has other random
/// numbers and the same distribution.
pub(super) fn sde(config: &SchedulerConfig, order: &PlanOrder) -> Plan {
    let sigmas = Sigmas::new(config, order.steps);
    sigmas.plan(config, order.begin, |index| {
        let (from, to) = sigmas.of_step(index);
        if to == 0.0 {
            return vec![Call { combine: straight(from, to), ..sigmas.call(index) }];
        }
        let middle = (from * to).sqrt();
        let (middle_down, middle_up) = ancestral(from, middle, order.eta());
        let (down, up) = ancestral(from, to, order.eta());
        let (share, old) = (down / from, (from - middle) / (from - to));
        let first = Call {
            combine: straight(from, middle_down) + NOISE * middle_up,
            record: Some(SAMPLE * share + NOISE * (up * old.sqrt())),
            is_partial: true,
            ..sigmas.call(index)
        };
        let combine = history(0) + PREDICTION * (1.0 - share) + NOISE * (up * (1.0 - old).sqrt());
        vec![first, Call { combine, forget: 1, ..sigmas.call_between(index, middle) }]
    })
}
