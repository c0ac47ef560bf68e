//! A canvas: one picture in progress.

use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::{
    conditioning::{Conditioning, ConditioningSchedule},
    deep_cache::{DeepCache, StepKeys},
    error::engine_error,
    finite::FiniteRows,
    layers::{Products, Result},
    mask::Underlay,
    noise::NoiseGenerator,
    residency::{ModelHold, ModelId},
    schedulers::{Call, HISTORY, Plan},
    source::Kept,
    transfer::upload,
};
use crate::dispatch::ports::{BatchKey, CanvasState, EngineError};

/// One picture in progress. Owns all that the picture depends on; no other canvas can change it.
#[derive(Debug)]
pub struct Canvas {
    pub(super) model: ModelHold,
    /// The model that began it, once another has taken over.
    pub(super) begun_by: Option<ModelId>,
    pub(super) keys: StepKeys,
    /// How the UNet's transformers make theirs. The keys tell it, too.
    pub(super) products: Products,
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
    /// What an earlier call spares later ones.
    pub(super) deep_cache: DeepCache,
    /// The picture that its latents are put back to where no mask is.
    pub(super) kept: Option<Kept>,
    /// The picture that is laid under the painted one.
    pub(super) underlay: Option<Arc<Underlay>>,
    /// Steps that were done before the plan began.
    pub(super) steps_before: usize,
    /// What is done when the plan is.
    pub(super) refiner: Option<Takeover>,
    /// What the device has been asked of the last call's result.
    pub(super) check: Option<Check>,
}

/// A question to the device that may not have been answered yet.
#[derive(Debug, Clone)]
pub(super) struct Check {
    pub(super) rows: Arc<FiniteRows>,
    /// The canvas's among them.
    pub(super) row: usize,
    /// The user's step that is checked, from 1.
    pub(super) step: u32,
}

impl Check {
    /// Waits for the answer.
    ///
    /// # Errors
    /// When the latents are no numbers, or the device fails.
    pub(super) fn settle(&self) -> std::result::Result<(), EngineError> {
        let Self { rows, row, step } = self;
        if rows.is_finite(*row)? { Ok(()) } else { Err(EngineError::NotFinite { step: *step }) }
    }
}

/// A second model that does the last steps of a picture.
#[derive(Debug)]
pub(super) struct Takeover {
    pub(super) model: ModelHold,
    pub(super) keys: StepKeys,
    pub(super) products: Products,
    pub(super) plan: Arc<Plan>,
    pub(super) conditioning: ConditioningSchedule,
}

/// What one UNet call made: of all canvases of a batch `[B, C, h, w]`, or of one `[1, C, h, w]`.
pub(super) struct Moved {
    pub(super) prev_sample: Tensor,
    pub(super) pred_original_sample: Tensor,
    /// What later calls look back on, where one does.
    pub(super) record: Option<Tensor>,
    /// One canvas's deep feature, `[rows, C, h, w]`, where the call was whole and the canvas keeps it.
    pub(super) deep: Option<Tensor>,
}

impl Moved {
    /// One canvas's own.
    pub(super) fn row(&self, row: i64) -> Result<Self> {
        Ok(Self {
            prev_sample: self.prev_sample.f_narrow(0, row, 1)?,
            pred_original_sample: self.pred_original_sample.f_narrow(0, row, 1)?,
            record: self.record.as_ref().map(|record| record.f_narrow(0, row, 1)).transpose()?,
            deep: None,
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
        self.conditioning.at(self.step())
    }

    /// The user's step that the next call belongs to, from 0.
    fn step(&self) -> usize {
        self.steps_before + self.plan.progress(self.calls).0 as usize
    }

    /// What the next call runs on where it need not be a whole one: `[rows, C, h, w]`.
    pub(super) fn deep(&self) -> Option<&Tensor> {
        self.deep_cache.deep(self.conditioning.place(self.step()))
    }

    /// Draws the noise of the next call if it needs any, in float32 whatever the model's dtype. Where that fails, nothing has been drawn.
    pub(super) fn draw_noise(&mut self) -> Result<()> {
        if self.noise.is_none() && self.next_call().is_some_and(Call::draws_noise) {
            let mut generator = self.generator.clone();
            let noise = Tensor::f_from_slice(&generator.randn(self.latents.numel()))?.f_reshape(self.latents.size())?;
            self.noise = Some(upload(&noise, self.latents.device())?);
            self.generator = generator;
        }
        Ok(())
    }

    /// Whether what the call before the last made is numbers only, if it is not known yet; afterwards it is.
    ///
    /// # Errors
    /// When it is not, or the device fails.
    pub(super) fn settle_check(&mut self) -> std::result::Result<(), EngineError> {
        self.check.take().map_or(Ok(()), |check| check.settle())
    }

    /// The result of the next call with what a mask keeps put back.
    pub(super) fn put_back(&self, prev_sample: Tensor) -> Result<Tensor> {
        let refined = || self.refiner.as_ref().and_then(|refiner| refiner.plan.calls.first());
        let next = self.plan.calls.get(self.calls + 1).or_else(refined).map(|call| call.start);
        match &self.kept {
            Some(kept) => kept.put_back(&prev_sample, next),
            None => Ok(prev_sample),
        }
    }

    /// What the last call predicted the finished picture to be, far clearer than the latents, which still hold the noise.
    pub(super) fn expected_latents(&self) -> Result<Tensor> {
        let expected = self.pred_original_sample.as_ref().unwrap_or(&self.latents);
        match &self.kept {
            Some(kept) => kept.put_back(expected, None),
            None => Ok(expected.shallow_clone()),
        }
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
        self.deep_cache.advance(self.conditioning.place(self.step()), moved.deep);
        self.calls += 1;
        if self.calls == self.plan.calls.len() {
            self.hand_over();
        }
    }

    /// The refiner's plan begins as after a pause: its first step looks back on nothing.
    fn hand_over(&mut self) {
        let Some(Takeover { model, keys, products, plan, conditioning }) = self.refiner.take() else { return };
        self.steps_before += self.plan.steps();
        self.calls = 0;
        self.history.clear();
        self.deep_cache.forget();
        self.begun_by = Some(self.model.model());
        (self.model, self.keys, self.products) = (model, keys, products);
        (self.plan, self.conditioning) = (plan, conditioning);
    }

    /// The latents as they are: `[1, C, h, w]` float32 values and their shape. For comparing with other implementations.
    ///
    /// # Errors
    /// When the device fails.
    pub fn latents(&self) -> std::result::Result<(Vec<i64>, Vec<f32>), EngineError> {
        let read = || {
            let latents = self.latents.f_to_kind(Kind::Float)?.f_to_device(Device::Cpu)?.f_contiguous()?;
            let mut values = vec![0.0_f32; latents.numel()];
            let count = values.len();
            latents.f_copy_data(&mut values, count)?;
            Ok((latents.size(), values))
        };
        read().map_err(|error| engine_error(&error))
    }
}

impl CanvasState for Canvas {
    fn batch_key(&self) -> BatchKey {
        self.keys.of(self.is_shallow())
    }

    fn is_shallow(&self) -> bool {
        self.deep().is_some()
    }

    fn is_refined(&self) -> bool {
        self.begun_by.is_some()
    }

    fn rows(&self) -> usize {
        self.conditioning().rows.len()
    }

    fn pixels(&self) -> usize {
        self.pixels
    }

    fn progress(&self) -> (u32, u32) {
        let (step, own) = self.plan.progress(self.calls);
        let later = self.refiner.as_ref().map_or(0, |refiner| refiner.plan.steps());
        let before = self.steps_before as u32;
        (before + step, before + own + later as u32)
    }

    fn calls_left(&self) -> u32 {
        let later = self.refiner.as_ref().map_or(0, |refiner| refiner.plan.calls.len());
        (self.plan.calls.len().saturating_sub(self.calls) + later) as u32
    }
}
