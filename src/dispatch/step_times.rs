//! What the device's work takes, as it was measured: UNet calls, encodes and decodes by model and size.

use std::{collections::HashMap, sync::Arc};

use super::curve::Curve;

/// Kinds of work that are remembered. Clients choose sizes, so that there may be many; those that were not used for longest are forgotten.
const MOST_KINDS: usize = 256;
/// The weight of the newest of a running average.
const WEIGHT: f64 = 0.125;

/// What the time of a piece of work depends on beside its rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    /// The model that does it.
    pub(super) model: Arc<str>,
    /// Of its picture.
    pub(super) pixels: usize,
    /// One in so many of its picture's UNet calls is whole: their mean is what such a picture takes.
    pub(super) cache_interval: u32,
    /// Whether it makes products in fp8.
    pub(super) fp8_linears: bool,
}

/// What work of one kind takes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Costs {
    /// UNet calls, with all that is done between two of them.
    pub(super) calls: Curve,
    /// Seconds to begin one picture: the text encoder's share of it.
    encode: Mean,
    /// The same where pictures were sent, which go through the VAE's encoder.
    encode_sent: Mean,
    /// Seconds of the VAE's decoder for one picture.
    pub(super) decode: Mean,
}

impl Costs {
    /// Seconds to begin one picture of a job that sends pictures, or none.
    pub(super) fn encode(&self, sends_pictures: bool) -> Mean {
        if sends_pictures && self.encode_sent.samples > 0 { self.encode_sent } else { self.encode }
    }

    /// The same, to be added to.
    pub(super) fn encode_mut(&mut self, sends_pictures: bool) -> &mut Mean {
        if sends_pictures { &mut self.encode_sent } else { &mut self.encode }
    }

    /// The costs of work that weighs `factor` times as much. What encoding prompts takes does not grow with the picture.
    fn scaled(&self, factor: f64) -> Self {
        Self {
            calls: self.calls.scaled(factor),
            encode: self.encode,
            encode_sent: self.encode_sent.scaled(factor),
            decode: self.decode.scaled(factor),
        }
    }
}

/// A running average whose first value gives way to the second: first times are slow.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Mean {
    seconds: f64,
    samples: u32,
}

impl Mean {
    pub(super) fn note(&mut self, seconds: f64) {
        self.samples = self.samples.saturating_add(1);
        let weight = if self.samples <= 2 { 1.0 } else { WEIGHT.max(1.0 / f64::from(self.samples - 1)) };
        self.seconds += weight * (seconds - self.seconds);
    }

    /// 0 while nothing is known: such work is short beside a picture's steps.
    pub(super) fn seconds(self) -> f64 {
        self.seconds
    }

    fn scaled(self, factor: f64) -> Self {
        Self { seconds: self.seconds * factor, ..self }
    }
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(super) struct StepTimes {
    kinds: HashMap<Kind, Known>,
    /// Counts the uses of all kinds.
    uses: u64,
}

#[derive(Debug, Default)]
struct Known {
    costs: Costs,
    used: u64,
}

impl StepTimes {
    /// What is known of a kind of work, to be added to.
    pub(super) fn of_mut(&mut self, kind: &Kind) -> &mut Costs {
        self.uses += 1;
        if !self.kinds.contains_key(kind) && self.kinds.len() >= MOST_KINDS {
            let oldest = self.kinds.iter().min_by_key(|(_, known)| known.used).map(|(kind, _)| kind.clone());
            oldest.and_then(|oldest| self.kinds.remove(&oldest));
        }
        let known = self.kinds.entry(kind.clone()).or_default();
        known.used = self.uses;
        &mut known.costs
    }

    /// What calls of this kind take, if one was measured.
    pub(super) fn measured(&self, kind: &Kind) -> Option<&Costs> {
        self.kinds.get(kind).map(|known| &known.costs).filter(|costs| costs.calls.seconds(1).is_some())
    }

    /// What work of this kind is expected to cost. A size that was not seen yet is taken to cost what the nearest of its model does, pixel
    /// by pixel, an interval what the nearest does, and products in fp8 what the exact ones do. `None` while nothing is known of the model.
    pub(super) fn expected(&self, kind: &Kind) -> Option<Costs> {
        if let Some(costs) = self.measured(kind) {
            return Some(costs.clone());
        }
        let factor = |other: &Kind| kind.pixels as f64 / other.pixels.max(1) as f64;
        let distance = |other: &Kind| factor(other).ln().abs();
        let others = self.kinds.keys().filter(|other| other.model == kind.model && self.measured(other).is_some());
        let leap = |other: &Kind| (other.cache_interval.abs_diff(kind.cache_interval), other.fp8_linears != kind.fp8_linears);
        let nearer = |one: &&Kind, other: &&Kind| {
            distance(one).total_cmp(&distance(other)).then(one.pixels.cmp(&other.pixels)).then(leap(one).cmp(&leap(other)))
        };
        let nearest = others.min_by(nearer)?;
        self.measured(nearest).map(|costs| costs.scaled(factor(nearest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(model: &str, side: usize) -> Kind {
        Kind { model: model.into(), pixels: side * side, cache_interval: 1, fp8_linears: false }
    }

    #[test]
    fn a_size_that_was_not_seen_yet_costs_what_the_nearest_of_its_model_does_pixel_by_pixel() {
        let mut times = StepTimes::default();
        assert_eq!(times.expected(&kind("a", 512)), None);
        for (side, seconds) in [(256, 1.0), (512, 5.0)] {
            times.of_mut(&kind("a", side)).calls.note(2, seconds);
            times.of_mut(&kind("a", side)).decode.note(seconds);
        }
        let large = times.expected(&kind("a", 1024)).unwrap();
        assert_eq!((large.calls.seconds(2), large.decode.seconds()), (Some(20.0), 20.0));
        assert_eq!(times.expected(&kind("a", 512)).unwrap().calls.seconds(2), Some(5.0));
        assert_eq!(times.expected(&kind("b", 512)), None, "another model tells nothing");
    }

    #[test]
    fn what_has_begun_and_made_no_call_yet_is_not_known() {
        let mut times = StepTimes::default();
        times.of_mut(&kind("a", 512)).encode_mut(false).note(1.0);
        assert_eq!((times.measured(&kind("a", 512)), times.expected(&kind("a", 256))), (None, None));
    }

    #[test]
    fn sizes_that_nobody_asks_for_any_more_are_forgotten() {
        let mut times = StepTimes::default();
        for side in 0..2 * MOST_KINDS {
            times.of_mut(&kind("often", 512)).calls.note(2, 1.0);
            times.of_mut(&kind("once", side)).calls.note(2, 1.0);
        }
        assert_eq!(times.kinds.len(), MOST_KINDS);
        assert!(times.measured(&kind("often", 512)).is_some());
    }

    #[test]
    fn the_first_value_gives_way_to_the_second() {
        let mut mean = Mean::default();
        assert_eq!(mean.seconds(), 0.0);
        for seconds in [9.0, 1.0, 3.0] {
            mean.note(seconds);
        }
        assert_eq!(mean.seconds(), 2.0);
    }
}
