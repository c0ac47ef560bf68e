//! A canvas: one picture in progress.

use std::sync::Arc;

use tch::Tensor;

use super::{
    conditioning::{Conditioning, ConditioningSchedule},
    layers::Result,
    noise::NoiseGenerator,
    schedulers::{Call, HISTORY, Plan},
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
    /// What earlier calls left for later ones, the latest first.
    pub(super) history: Vec<Tensor>,
    /// What the last call said that the picture will be.
    pub(super) pred_original_sample: Option<Tensor>,
    pub(super) generator: NoiseGenerator,
    /// Of the next call, if it has been drawn. A call that failed and is repeated finds the same noise.
    pub(super) noise: Option<Tensor>,
    pub(super) plan: Arc<Plan>,
    /// How many UNet calls are done.
    pub(super) calls: usize,
    pub(super) conditioning: ConditioningSchedule,
}

/// What one UNet call made: of all canvases of a batch `[B, C, h, w]`, or of one `[1, C, h, w]`.
pub(super) struct Moved {
    pub(super) prev_sample: Tensor,
    pub(super) pred_original_sample: Tensor,
    /// What later calls look back on, where one does.
    pub(super) record: Option<Tensor>,
}

impl Moved {
    /// One canvas's own.
    pub(super) fn row(&self, row: i64) -> Result<Self> {
        Ok(Self {
            prev_sample: self.prev_sample.f_narrow(0, row, 1)?,
            pred_original_sample: self.pred_original_sample.f_narrow(0, row, 1)?,
            record: self.record.as_ref().map(|record| record.f_narrow(0, row, 1)).transpose()?,
        })
    }
}

impl Canvas {
    /// The UNet call to be done next, if any.
    pub(super) fn next_call(&self) -> Option<&Call> {
        self.plan.calls.get(self.calls)
    }

    /// What the next call is conditioned on; both calls of a step are on the same.
    pub(super) fn conditioning(&self) -> &Conditioning {
        self.conditioning.at(self.plan.progress(self.calls).0 as usize)
    }

    /// Draws the noise of the next call if it needs any, in float32 whatever the model's dtype.
    pub(super) fn draw_noise(&mut self) -> Result<()> {
        if self.noise.is_none() && self.next_call().is_some_and(Call::draws_noise) {
            let values = self.generator.randn(self.latents.numel());
            let noise = Tensor::f_from_slice(&values)?.f_reshape(self.latents.size())?;
            self.noise = Some(noise.f_to_device(self.latents.device())?);
        }
        Ok(())
    }

    /// Takes what a call made of this canvas.
    pub(super) fn advance(&mut self, moved: Moved) {
        let call = self.next_call().copied().unwrap_or_default();
        self.history.drain(..call.forget.min(self.history.len()));
        if let (Some(_), Some(record)) = (call.record, moved.record) {
            self.history.insert(0, record);
            self.history.truncate(HISTORY);
        }
        self.latents = moved.prev_sample;
        self.pred_original_sample = Some(moved.pred_original_sample);
        self.noise = None;
        self.calls += 1;
    }

    /// The user's step that the last call belonged to, from 1.
    pub(super) fn step(&self) -> u32 {
        let is_partial = self.calls.checked_sub(1).and_then(|last| self.plan.calls.get(last)).is_some_and(|call| call.is_partial);
        self.plan.progress(self.calls).0 + u32::from(is_partial)
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
        self.plan.progress(self.calls)
    }
}
