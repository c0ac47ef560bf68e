//! A canvas: one picture in progress.

use std::sync::Arc;

use tch::Tensor;

use super::{
    conditioning::{Conditioning, ConditioningSchedule},
    schedulers::{HISTORY, Plan, Step},
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
