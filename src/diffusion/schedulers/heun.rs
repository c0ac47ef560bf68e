//! Heun's method on the probability-flow ODE (Karras et al., 2022, algorithm 1); diffusers' `HeunDiscreteScheduler`.

use super::{
    Call, Plan, PlanOrder, SchedulerConfig,
    combination::{SAMPLE, history},
    sigmas::{Sigmas, derivative, straight},
};

/// The first call of a step tries its end, the second goes there by the mean of the derivatives at both ends. The last step ends without
/// noise, where there is no derivative: it is Euler's.
pub(super) fn plan(config: &SchedulerConfig, order: &PlanOrder) -> Plan {
    let sigmas = Sigmas::new(config, order.steps);
    sigmas.plan(config, order.begin, |index| {
        let (from, to) = sigmas.of_step(index);
        let first = Call { combine: straight(from, to), ..sigmas.call(index) };
        if to == 0.0 {
            return vec![first];
        }
        let first = Call { record: Some(derivative(from)), is_partial: true, ..first };
        let correction = (derivative(to) - history(0)) * ((to - from) / 2.0);
        let second = Call { combine: SAMPLE + correction, forget: 1, ..sigmas.call(index + 1) };
        vec![first, second]
    })
}
