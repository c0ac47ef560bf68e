//! A job on the device: its canvases, what is left to begin, and how far it is.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    batcher::StepLimits,
    ports::{CanvasState, PaintOrder},
    running::Claim,
    step_times::Kind,
    work::Work,
};
use crate::domain::{JobError, Progress};

/// A claimed job with its input pictures, on its way to the device.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) claim: Arc<Claim>,
    pub(super) paint: PaintOrder,
}

/// A canvas with what the dispatcher keeps about it.
pub(super) struct Slot<C> {
    /// Its picture's place in the request.
    pub(super) index: u32,
    pub(super) canvas: C,
    /// The number of the step that last moved it; 0 before the first.
    pub(super) last_step: u64,
}

/// Where the device's time went for one job.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DeviceTimes {
    pub(super) encode: Duration,
    pub(super) denoise: Duration,
    pub(super) decode: Duration,
}

/// A job on the device.
pub(super) struct Painting<C, F> {
    pub(super) claim: Arc<Claim>,
    pub(super) order: PaintOrder,
    /// Pictures that have no canvas yet, for want of room.
    pub(super) unbegun: Range<u32>,
    /// The most canvases to begin at a time: what one step can take, less after the device ran out of memory.
    pub(super) group: usize,
    /// Begin only when the device holds no other canvas: it ran out of memory in company.
    pub(super) needs_empty_device: bool,
    pub(super) slots: Vec<Slot<C>>,
    /// Finished pictures by index.
    pub(super) frames: Vec<(u32, F)>,
    pub(super) warnings: Vec<String>,
    pub(super) fault: Option<JobError>,
    /// As it came to the device.
    whole: Work,
    /// When its pictures are of no use any more, in seconds of the device's clock.
    deadline: Option<f64>,
    pub(super) times: DeviceTimes,
    first_step: Option<Instant>,
    reported: Option<u32>,
}

impl<C: CanvasState, F> Painting<C, F> {
    /// A job that comes to the device at `now`, in seconds of the device's clock. `ageing` are the seconds that a step of priority is worth.
    pub(super) fn new(order: Order, limits: StepLimits, (ageing, now): (f64, f64)) -> Self {
        Self {
            unbegun: 0..order.paint.request.num_images,
            group: limits.pictures_of(&order.paint.request),
            whole: Work::queued(order.claim.job(), &order.paint.request, (ageing, now)),
            deadline: order.claim.time_left().map(|left| now + left.as_secs_f64()),
            claim: order.claim,
            order: order.paint,
            needs_empty_device: false,
            slots: Vec::new(),
            frames: Vec::new(),
            warnings: Vec::new(),
            fault: None,
            times: DeviceTimes::default(),
            first_step: None,
            reported: None,
        }
    }

    /// Every picture is a frame.
    pub(super) fn is_painted(&self) -> bool {
        self.slots.is_empty() && self.unbegun.is_empty()
    }

    /// The pictures of the next group, when `room` more canvases may begin.
    pub(super) fn next_group(&self, room: usize) -> Range<u32> {
        let size = u32::try_from(self.group.min(room)).unwrap_or(u32::MAX).min(self.unbegun.end - self.unbegun.start);
        self.unbegun.start..self.unbegun.start + size
    }

    /// Takes the canvases of a group that has begun.
    pub(super) fn add_group(&mut self, images: &Range<u32>, canvases: Vec<C>) {
        self.unbegun.start = images.end;
        let slot = |(index, canvas): (u32, C)| Slot { index, canvas, last_step: 0 };
        self.slots.extend(images.clone().zip(canvases).map(slot));
    }

    /// Whether there are steps to be done and nobody would want what comes of them.
    pub(super) fn is_overdue(&self, now: f64) -> bool {
        let has_steps = !self.unbegun.is_empty() || self.slots.iter().any(|slot| !slot.canvas.is_done());
        has_steps && self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// What is left of it.
    pub(super) fn work(&self) -> Work {
        let moving = self.slots.iter().find(|slot| !slot.canvas.is_done());
        Work {
            kind: moving.map_or_else(|| self.whole.kind.clone(), |slot| self.kind(&slot.canvas)),
            rows: moving.map_or(self.whole.rows, |slot| slot.canvas.rows()),
            begun: self.slots.iter().map(|slot| slot.canvas.calls_left()).collect(),
            unbegun: self.unbegun.end - self.unbegun.start,
            ..self.whole.clone()
        }
    }

    /// What the steps of one of its canvases depend on.
    pub(super) fn kind(&self, canvas: &C) -> Kind {
        let refiner = self.order.request.refiner.as_ref().filter(|_| canvas.is_refined());
        let model = refiner.map_or_else(|| self.whole.kind.model.clone(), |refiner| refiner.refiner.as_str().into());
        Kind { model, pixels: canvas.pixels(), ..self.whole.kind.clone() }
    }

    /// Every group has the same remarks about the same prompts.
    pub(super) fn add_warnings(&mut self, warnings: Vec<String>) {
        for warning in warnings {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
    }

    /// Some of its canvases shared the step from `start` to `end`.
    pub(super) fn moved(&mut self, start: Instant, end: Instant) {
        self.times.denoise = end.duration_since(*self.first_step.get_or_insert(start));
    }

    /// How far it is, if that has changed since it was last asked for. `eta` is in how many seconds it will probably be done, if that is
    /// known; else its own pace until now has to tell.
    pub(super) fn new_progress(&mut self, eta: Option<f64>) -> Option<Progress> {
        // A refiner of another noise schedule may make them other than what was asked for.
        let own = self.slots.iter().map(|slot| slot.canvas.progress().1).max();
        let total = own.unwrap_or_else(|| self.order.request.effective_steps());
        let waiting = (!self.unbegun.is_empty()).then_some(0);
        let step = self.slots.iter().map(|slot| slot.canvas.progress().0).chain(waiting).min().unwrap_or(total);
        if self.reported.replace(step) == Some(step) {
            return None;
        }
        // The pace is that of the whole job: with pictures in several groups, the least step alone would stand still.
        let done = self.frames.len() as f64 * f64::from(total);
        let done = done + self.slots.iter().map(|slot| f64::from(slot.canvas.progress().0)).sum::<f64>();
        let mean = done / f64::from(self.order.request.num_images);
        let steps_per_second = mean / self.times.denoise.as_secs_f64().max(f64::EPSILON);
        Some(Progress {
            step,
            num_inference_steps: total,
            fraction: f64::from(step) / f64::from(total.max(1)),
            steps_per_second,
            eta_seconds: eta.unwrap_or_else(|| (f64::from(total) - mean).max(0.0) / steps_per_second.max(f64::EPSILON)),
        })
    }
}
