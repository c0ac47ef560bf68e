//! What is left to do of a job, as far as its time depends on it.

use super::step_times::{Kind, StepTimes};
use crate::domain::{GenerationRequest, JobId};

/// A job, as far as its time depends on it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Work {
    /// `None` of one that is only supposed to come.
    pub(super) job: Option<JobId>,
    pub(super) kind: Kind,
    /// Rows that each of its pictures takes.
    pub(super) rows: usize,
    /// UNet calls that each of its pictures takes.
    pub(super) calls: u32,
    /// Calls that its canvases on the device still need; 0 of those that wait for the VAE.
    pub(super) begun: Vec<u32>,
    /// Its pictures begin with some that were sent.
    pub(super) sends_pictures: bool,
    /// Pictures without a canvas.
    pub(super) unbegun: u32,
    /// Seconds by which its priority puts it before others, on the device as in the queue.
    pub(super) head_start: f64,
    /// When it came to the device, in seconds of the device's clock; of those that have not come, when they came to the queue.
    pub(super) came: f64,
}

impl Work {
    /// A job that waits. `ageing` is what a step of priority is worth, `came` when it came to the queue, both in seconds.
    pub(super) fn queued(job: JobId, request: &GenerationRequest, (ageing, came): (f64, f64)) -> Self {
        Self {
            job: Some(job),
            kind: Kind {
                model: request.model.as_str().into(),
                pixels: request.width as usize * request.height as usize,
                cache_interval: request.cache_interval,
                fp8_linears: request.fp8_linears,
            },
            rows: request.max_rows(),
            calls: request.unet_calls(),
            begun: Vec::new(),
            sends_pictures: request.inputs().next().is_some(),
            unbegun: request.num_images,
            head_start: f64::from(request.priority) * ageing,
            came,
        }
    }

    /// Seconds that its calls would take by themselves; 0 while none was measured.
    pub(super) fn left(&self, times: &StepTimes) -> f64 {
        let calls = self.begun.iter().copied().map(f64::from).sum::<f64>() + f64::from(self.unbegun) * f64::from(self.calls);
        calls * times.mean_call(&self.kind, self.rows).unwrap_or(0.0)
    }

    /// When it is its turn in the queue.
    pub(super) fn turn(&self) -> f64 {
        self.came - self.head_start
    }
}
