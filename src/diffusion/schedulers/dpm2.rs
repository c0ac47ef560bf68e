//! DPM-Solver-2 as k-diffusion has it: the midpoint method, the middle taken in log σ (Karras et al., 2022, algorithm 2); diffusers'
//! `KDPM2DiscreteScheduler` and, with ancestral noise, `KDPM2AncestralDiscreteScheduler`.

use super::{
    Call, Plan, PlanOrder, SchedulerConfig,
    combination::{NOISE, SAMPLE, history},
    sigmas::{Sigmas, ancestral, derivative, straight},
};

/// The first call of a step goes to its middle, the second goes the whole way with the derivative there. A step to no noise has no middle in
/// log σ: it is Euler's.
pub(super) fn plan(config: &SchedulerConfig, order: &PlanOrder) -> Plan {
    let mut sigmas = Sigmas::new(config, order.steps);
    if config.use_karras_sigmas {
        sigmas.timesteps.iter_mut().for_each(|timestep| *timestep = timestep.round_ties_even());
    }
    sigmas.plan(config, order.begin, |index| {
        let (from, to) = sigmas.of_step(index);
        let (down, up) = ancestral(from, to, order.eta());
        if down == 0.0 {
            return vec![Call { combine: straight(from, down) + NOISE * up, ..sigmas.call(index) }];
        }
        let middle = (from * down).sqrt();
        let record = Some(derivative(from));
        let first = Call { combine: straight(from, middle), record, is_partial: true, ..sigmas.call(index) };
        // Back to the step's begin, and from there to its end.
        let whole = SAMPLE - history(0) * (middle - from) + derivative(middle) * (down - from);
        vec![first, Call { combine: whole + NOISE * up, forget: 1, ..sigmas.call_between(index, middle) }]
    })
}
