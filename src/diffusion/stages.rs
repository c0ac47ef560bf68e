//! Which model does which steps of a request: one does all, or a second one takes over for the last.

use super::{
    loaded_model::Model,
    residency::ModelHold,
    schedulers::{Plan, PlanOrder, SchedulerConfig, plan},
};
use crate::domain::{GenerationRequest, Refiner};

/// The steps of one model.
pub(super) struct Stage {
    pub(super) model: ModelHold,
    pub(super) plan: Plan,
}

/// The stages of a request that have steps to do, the first model's and the refiner's.
///
/// The steps are shared out as diffusers does with `denoising_end` and `denoising_start`: by the timestep, each model with its own noise
/// schedule.
pub(super) fn stages(
    request: &GenerationRequest,
    first: (&ModelHold, &Model),
    refiner: Option<(&ModelHold, &Model)>,
) -> Vec<Stage> {
    let steps = request.num_inference_steps as usize;
    let order = PlanOrder { name: request.scheduler, steps, begin: 0, eta: request.eta };
    let whole = |(_, model): (&ModelHold, &Model), begin| plan(&model.scheduler, PlanOrder { begin, ..order });
    let skipped = steps - request.effective_steps() as usize;
    let mut own = whole(first, skipped);
    let (Some(refiner), Some(Refiner { refiner_start, .. })) = (refiner, &request.refiner) else {
        return vec![Stage { model: first.0.clone(), plan: own }];
    };
    let cutoff = |model: &Model| cutoff(&model.scheduler, *refiner_start);
    // A step of two calls is not divided.
    own.truncate(own.steps_at_or_above(cutoff(first.1)));
    let begin = skipped.max(whole(refiner, 0).steps_at_or_above(cutoff(refiner.1)));
    let last = whole(refiner, begin.min(steps));
    let stages = [Stage { model: first.0.clone(), plan: own }, Stage { model: refiner.0.clone(), plan: last }];
    stages.into_iter().filter(|stage| !stage.plan.calls.is_empty()).collect()
}

/// The user's steps of all stages. Where the models' noise schedules differ, they need not be those that were asked for.
pub(super) fn total_steps(stages: &[Stage]) -> u32 {
    stages.iter().map(|stage| stage.plan.steps() as u32).sum()
}

/// diffusers' `discrete_timestep_cutoff`: the first model does the timesteps from here on up.
fn cutoff(scheduler: &SchedulerConfig, refiner_start: f64) -> f64 {
    let train = scheduler.num_train_timesteps as f64;
    (train - refiner_start * train).round_ties_even()
}
