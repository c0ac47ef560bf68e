//! A canvas: one picture in progress.

use std::sync::Arc;

use tch::Tensor;

use super::{
    conditioning::{Conditioning, ConditioningSchedule},
    layers::Result,
    mask::Underlay,
    schedulers::{HISTORY, Plan, Step},
    source::Kept,
};
use crate::dispatch::ports::{BatchKey, CanvasState};

/// One picture in progress. Owns all that the picture depends on; no other canvas can change it.
#[derive(Debug)]
pub struct Canvas {
    pub(super) model: usize,
    pub(super) batch_key: BatchKey,
    /// Of the picture.
    pub(super) pixels: usize,
    pub(super) latents: Tensor, // [1, C, h, w] float32
    /// The finished samples that the last steps predicted, the latest first.
    pub(super) history: Vec<Tensor>,
    pub(super) plan: Arc<Plan>,
    pub(super) step_index: usize,
    pub(super) conditioning: ConditioningSchedule,
    /// The picture that its latents are put back to where no mask is.
    pub(super) kept: Option<Kept>,
    /// The picture that is laid under the painted one.
    pub(super) underlay: Option<Arc<Underlay>>,
    /// Steps that were done before the plan began.
    pub(super) steps_before: usize,
    /// What is done when the plan is.
    pub(super) refiner: Option<Takeover>,
}

/// A second model that does the last steps of a picture.
#[derive(Debug)]
pub(super) struct Takeover {
    pub(super) model: usize,
    pub(super) batch_key: BatchKey,
    pub(super) plan: Arc<Plan>,
    pub(super) conditioning: ConditioningSchedule,
}

impl Canvas {
    /// The step to be done next, if any.
    pub(super) fn next_step(&self) -> Option<&Step> {
        self.plan.steps.get(self.step_index)
    }

    /// What the next step is conditioned on.
    pub(super) fn conditioning(&self) -> &Conditioning {
        self.conditioning.at(self.steps_before + self.step_index)
    }

    /// The result of the next step with what a mask keeps put back.
    pub(super) fn put_back(&self, prev_sample: Tensor) -> Result<Tensor> {
        let refined = || self.refiner.as_ref().and_then(|refiner| refiner.plan.steps.first());
        let next = self.plan.steps.get(self.step_index + 1).or_else(refined).map(|step| step.start);
        match &self.kept {
            Some(kept) => kept.put_back(&prev_sample, next),
            None => Ok(prev_sample),
        }
    }

    /// What the last step predicted the finished picture to be, far clearer than the latents, which still hold the noise.
    pub(super) fn expected_latents(&self) -> Result<Tensor> {
        let expected = self.history.first().unwrap_or(&self.latents);
        match &self.kept {
            Some(kept) => kept.put_back(expected, None),
            None => Ok(expected.shallow_clone()),
        }
    }

    /// Takes the result of a step.
    pub(super) fn advance(&mut self, prev_sample: Tensor, pred_original_sample: Tensor) {
        self.latents = prev_sample;
        self.history.insert(0, pred_original_sample);
        self.history.truncate(HISTORY);
        self.step_index += 1;
        if self.step_index == self.plan.steps.len() {
            self.hand_over();
        }
    }

    /// The refiner's plan begins as after a pause: its first step looks back on nothing.
    fn hand_over(&mut self) {
        let Some(Takeover { model, batch_key, plan, conditioning }) = self.refiner.take() else { return };
        self.steps_before += self.plan.steps.len();
        self.step_index = 0;
        (self.model, self.batch_key, self.plan, self.conditioning) = (model, batch_key, plan, conditioning);
    }
}

impl CanvasState for Canvas {
    fn batch_key(&self) -> BatchKey {
        self.batch_key.clone()
    }

    fn rows(&self) -> usize {
        self.conditioning().rows.len()
    }

    fn pixels(&self) -> usize {
        self.pixels
    }

    fn progress(&self) -> (u32, u32) {
        let own = self.plan.steps.len();
        let later = self.refiner.as_ref().map_or(0, |refiner| refiner.plan.steps.len());
        let (step, steps) = (self.steps_before + self.step_index.min(own), self.steps_before + own + later);
        (step as u32, steps as u32)
    }
}
