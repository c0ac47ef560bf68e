//! When jobs will be done: the device's next hours, played through in a moment. A pure function of what is on the device, what waits,
//! and what was measured.
//!
//! The rules are those of [`super::batcher`] and of the device's loop, but that pictures of one kind always share calls here, whatever the length
//! of their prompts, and those of other cache intervals never do; models that have to come first are not foreseen.

mod play;

use std::collections::{HashMap, VecDeque};

use self::play::Play;
use super::{
    batcher::StepLimits,
    shares::Shares,
    step_times::{Costs, Kind},
    work::Work,
};
use crate::domain::JobId;

/// What a forecast starts from.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    /// By the device's clock, in seconds: when all is done that stands here as done.
    pub(super) now: f64,
    /// Who comes now joins at once: the next call has not begun. Else it is being made, or begins before a newcomer has come as far as the device.
    pub(super) is_between_calls: bool,
    /// As [`super::outlook::OnDevice::decodes_after`].
    pub(super) decodes_after: Option<f64>,
    /// Oldest first.
    pub(super) device: Vec<Work>,
    /// How the kinds on the device stand with each other.
    pub(super) shares: Shares<Kind>,
    /// In the order of the turns.
    pub(super) queue: VecDeque<Work>,
    /// Jobs of the kinds that come, and how many of them come for each that ends.
    pub(super) newcomers: (Vec<Work>, f64),
    pub(super) costs: HashMap<Kind, Costs>,
    pub(super) limits: StepLimits,
    pub(super) max_canvases: usize,
    /// Seconds from a job's last decode until its pictures are stored.
    pub(super) storing: f64,
}

/// What is foreseen.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Forecast {
    /// When jobs end, in seconds of the device's clock, as far as it can be foreseen.
    pub(super) ends: HashMap<JobId, f64>,
    /// When the next job is claimed, if one waits.
    pub(super) next_claim: Option<f64>,
    /// Until when things are foreseen: a job without an end takes longer than this.
    pub(super) horizon: f64,
}

impl Scene {
    /// Plays it through until this job has ended, or all that there are.
    pub(super) fn play(mut self, wanted: Option<JobId>) -> Forecast {
        let costs = std::mem::take(&mut self.costs);
        if self.device.iter().all(|work| costs.contains_key(&work.kind)) {
            Play::new(self, &costs).run(wanted)
        } else {
            Forecast { horizon: self.now, ..Forecast::default() }
        }
    }
}

#[cfg(test)]
mod tests;
