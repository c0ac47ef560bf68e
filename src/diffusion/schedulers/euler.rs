//! Euler's method on the probability-flow ODE (Karras et al., 2022, algorithm 2 without churn), diffusers' `EulerDiscreteScheduler`; and with
//! ancestral noise, `EulerAncestralDiscreteScheduler`.

use super::{
    Call, Plan, PlanOrder, SchedulerConfig,
    combination::NOISE,
    sigmas::{Sigmas, ancestral, straight},
};

pub(super) fn plan(config: &SchedulerConfig, order: &PlanOrder) -> Plan {
    let sigmas = Sigmas::new(config, order.steps);
    sigmas.plan(config, order.begin, |index| {
        let (from, to) = sigmas.of_step(index);
        // Without eta all of the step is straight.
        let (down, up) = ancestral(from, to, order.eta());
        vec![Call { combine: straight(from, down) + NOISE * up, ..sigmas.call(index) }]
    })
}
