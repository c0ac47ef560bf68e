//! A canvas: one picture in progress.

use std::sync::Arc;

use tch::Tensor;

use super::{
    conditioning::{Conditioning, ConditioningSchedule},
    layers::Result,
    mask::Underlay,
    residency::ModelHold,
    schedulers::{HISTORY, Plan, Step},
    source::Kept,
};
use crate::dispatch::ports::{BatchKey, CanvasState};

/// One picture in progress. Owns all that the picture depends on; no other canvas can change it.
#[derive(Debug)]
pub struct Canvas {
    pub(super) model: ModelHold,
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
}

impl Canvas {
    /// The step to be done next, if any.
    pub(super) fn next_step(&self) -> Option<&Step> {
        self.plan.steps.get(self.step_index)
    }

    /// What the next step is conditioned on.
    pub(super) fn conditioning(&self) -> &Conditioning {
        self.conditioning.at(self.step_index)
    }

    /// The result of the next step with what a mask keeps put back.
    pub(super) fn put_back(&self, prev_sample: Tensor) -> Result<Tensor> {
        let next = self.plan.steps.get(self.step_index + 1).map(|step| step.start);
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
        let steps = self.plan.steps.len();
        (self.step_index.min(steps) as u32, steps as u32)
    }
}
