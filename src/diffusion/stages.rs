//! Which model does which steps of a request: one does all, or a second one takes over for the last.

use super::{
    schedulers::{Plan, SchedulerConfig, plan},
    stable_diffusion::Model,
};
use crate::domain::{GenerationRequest, Refiner};

/// The steps of one model.
pub(super) struct Stage {
    /// The model's place in the engine.
    pub(super) model: usize,
    pub(super) plan: Plan,
}

/// The stages of a request that have steps to do, the first model's and the refiner's, each by its place.
///
/// The steps are shared out as diffusers does with `denoising_end` and `denoising_start`: by the timestep, each model with its own noise
/// schedule.
pub(super) fn stages(request: &GenerationRequest, first: (usize, &Model), refiner: Option<(usize, &Model)>) -> Vec<Stage> {
    let whole =
        |(_, model): (usize, &Model), skipped| plan(&model.scheduler, request.scheduler, request.num_inference_steps, skipped);
    let skipped = request.num_inference_steps - request.effective_steps();
    let mut own = whole(first, skipped);
    let (Some(refiner), Some(Refiner { refiner_start, .. })) = (refiner, &request.refiner) else {
        return vec![Stage { model: first.0, plan: own }];
    };
    let cutoff = |model: &Model| cutoff(&model.scheduler, *refiner_start);
    let before = |plan: &Plan, cutoff: f64| plan.steps.iter().take_while(|step| step.timestep >= cutoff).count();
    own.steps.truncate(before(&own, cutoff(first.1)));
    let all = whole(refiner, 0);
    let begin = skipped.max(before(&all, cutoff(refiner.1)) as u32);
    let last = whole(refiner, begin.min(request.num_inference_steps));
    let stages = [Stage { model: first.0, plan: own }, Stage { model: refiner.0, plan: last }];
    stages.into_iter().filter(|stage| !stage.plan.steps.is_empty()).collect()
}

/// diffusers' `discrete_timestep_cutoff`: the first model does the timesteps from here on up.
fn cutoff(scheduler: &SchedulerConfig, refiner_start: f64) -> f64 {
    let train = scheduler.num_train_timesteps as f64;
    (train - refiner_start * train).round_ties_even()
}
