//! Linear multistep methods on the probability-flow ODE: the next sample is made of the derivatives of up to four steps.

use super::{
    Call, Combination, Plan, PlanOrder, SchedulerConfig,
    combination::{SAMPLE, history},
    sigmas::{Sigmas, derivative},
};

/// Steps that a sum of derivatives looks back on, the present one among them.
const ORDER: usize = 4;

/// LMS (Crowson), diffusers' `LMSDiscreteScheduler`: the polynomial through the derivatives is integrated over the step.
pub(super) fn lms(config: &SchedulerConfig, order: &PlanOrder) -> Plan {
    let sigmas = Sigmas::new(config, order.steps);
    multistep(config, order, &sigmas, |index| {
        // By the step's place in all the steps, as diffusers counts, even where img2img has left the first ones out.
        let order = (index + 1).min(ORDER);
        (0..order).map(|back| lms_coefficient(&sigmas.levels, index, order, back)).collect()
    })
}

/// Improved pseudo numerical methods, as diffusers' `IPNDMScheduler` and ComfyUI's `ipndm`: the coefficients of Adams and Bashforth, as if
/// all steps were of one size. diffusers has it on noise levels of its own; here it is on the model's.
pub(super) fn ipndm(config: &SchedulerConfig, order: &PlanOrder) -> Plan {
    let sigmas = Sigmas::new(config, order.steps);
    multistep(config, order, &sigmas, |index| {
        let (from, to) = sigmas.of_step(index);
        adams_bashforth(index - order.begin + 1).iter().map(|weight| weight * (to - from)).collect()
    })
}

/// `x + Σ weights(index)[k] · derivative of k steps ago`; weights for steps that were not run are left out.
fn multistep(config: &SchedulerConfig, order: &PlanOrder, sigmas: &Sigmas, weights: impl Fn(usize) -> Vec<f64>) -> Plan {
    sigmas.plan(config, order.begin, |index| {
        let present = derivative(sigmas.levels[index]);
        let weights = weights(index);
        let done = index - order.begin;
        let combine =
            (1..weights.len()).take(done).fold(SAMPLE + present * weights[0], |sum, back| sum + history(back - 1) * weights[back]);
        vec![Call { combine, record: Some(present), ..sigmas.call(index) }]
    })
}

/// The weights of Adams and Bashforth for equal steps, the present one first; of order `done`, at most 4.
pub(super) fn adams_bashforth(done: usize) -> &'static [f64] {
    match done {
        0 | 1 => &[1.0],
        2 => &[1.5, -0.5],
        3 => &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
        _ => &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
    }
}

/// A sum of records by the weights of Adams and Bashforth; `present` is not recorded yet.
pub(super) fn adams_bashforth_sum(present: Combination, done: usize) -> Combination {
    let weights = adams_bashforth(done);
    (1..weights.len()).fold(present * weights[0], |sum, back| sum + history(back - 1) * weights[back])
}

/// The integral over the step of the Lagrange polynomial that is 1 at the level of `back` steps ago and 0 at the others. Gauss's two points are
/// exact up to the third power, the highest here.
fn lms_coefficient(levels: &[f64], index: usize, order: usize, back: usize) -> f64 {
    let (from, to) = (levels[index], levels[index + 1]);
    let basis = |tau: f64| -> f64 {
        let others = (0..order).filter(|&other| other != back);
        others.map(|other| (tau - levels[index - other]) / (levels[index - back] - levels[index - other])).product()
    };
    let (middle, half) = ((from + to) / 2.0, (to - from) / 2.0);
    let offset = half / 3.0_f64.sqrt();
    half * (basis(middle - offset) + basis(middle + offset))
}
