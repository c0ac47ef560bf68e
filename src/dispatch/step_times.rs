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
    /// One in so many of its picture's UNet calls is whole, the others are shallow. Both are measured for all intervals together.
    pub(super) cache_interval: u32,
    /// Whether it makes products in fp8.
    pub(super) fp8_linears: bool,
}

impl Kind {
    /// The same work with whole calls only, as which it is remembered.
    fn whole(&self) -> Self {
        Self { cache_interval: 1, ..self.clone() }
    }
}

/// What work of one kind takes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Costs {
    /// UNet calls, with all that is done between two of them.
    pub(super) calls: Curve,
    /// The same of calls that run the UNet's last layer only.
    shallow: Curve,
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

    /// Calls of one depth.
    fn calls_of(&self, is_shallow: bool) -> &Curve {
        if is_shallow { &self.shallow } else { &self.calls }
    }

    /// The costs of work that weighs `factor` times as much. What encoding prompts takes does not grow with the picture.
    fn scaled(&self, factor: f64) -> Self {
        Self {
            calls: self.calls.scaled(factor),
            shallow: self.shallow.scaled(factor),
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
        let kind = kind.whole();
        self.uses += 1;
        if !self.kinds.contains_key(&kind) && self.kinds.len() >= MOST_KINDS {
            let oldest = self.kinds.iter().min_by_key(|(_, known)| known.used).map(|(kind, _)| kind.clone());
            oldest.and_then(|oldest| self.kinds.remove(&oldest));
        }
        let known = self.kinds.entry(kind).or_default();
        known.used = self.uses;
        &mut known.costs
    }

    /// A call of so many rows took so long, of which the first `slow` ones are slow. Answers what one is expected to take from now on.
    pub(super) fn note_call(&mut self, (kind, is_shallow): (&Kind, bool), (slow, rows): (u32, usize), seconds: f64) -> Option<f64> {
        let costs = self.of_mut(kind);
        let calls = if is_shallow { &mut costs.shallow } else { &mut costs.calls };
        calls.note_behind(slow, rows, seconds);
        calls.seconds(rows)
    }

    /// What such calls take, if one was measured.
    pub(super) fn calls(&self, kind: &Kind, is_shallow: bool) -> Option<&Curve> {
        let known = self.kinds.get(&kind.whole()).map(|known| known.costs.calls_of(is_shallow));
        known.filter(|calls| calls.is_measured())
    }

    /// What the VAE's decoder takes for one picture, if that was measured.
    pub(super) fn decode(&self, kind: &Kind) -> Option<f64> {
        let decode = self.kinds.get(&kind.whole())?.costs.decode;
        (decode.samples > 0).then_some(decode.seconds)
    }

    /// What a call of so many rows of this kind takes at the mean, if one was measured.
    pub(super) fn mean_call(&self, kind: &Kind, rows: usize) -> Option<f64> {
        let whole = self.calls(kind, false)?.seconds(rows)?;
        let shallow = self.calls(kind, true).and_then(|calls| calls.seconds(rows)).unwrap_or(whole);
        Some(mean_of(whole, shallow, kind.cache_interval))
    }

    /// What work of this kind is expected to cost, [`Costs::calls`] at the mean. A size that was not seen yet is taken to cost what the
    /// nearest of its model does, pixel by pixel, products in fp8 what the exact ones do, and shallow calls, before the first, what whole
    /// ones do. `None` while nothing is known of the model.
    pub(super) fn expected(&self, kind: &Kind) -> Option<Costs> {
        let mut costs = self.nearest(kind, false)?;
        if kind.cache_interval > 1
            && let Some(Costs { shallow, .. }) = self.nearest(kind, true)
        {
            costs.calls = costs.calls.with(&shallow, |whole, shallow| mean_of(whole, shallow, kind.cache_interval));
        }
        Some(costs)
    }

    /// The costs of the kind, or of that next to it whose calls of this depth were measured.
    fn nearest(&self, kind: &Kind, is_shallow: bool) -> Option<Costs> {
        let factor = |other: &Kind| kind.pixels as f64 / other.pixels.max(1) as f64;
        let distance = |other: &Kind| factor(other).ln().abs();
        let differs = |other: &Kind| other.fp8_linears != kind.fp8_linears;
        let is_measured = |costs: &Costs| costs.calls_of(is_shallow).is_measured();
        let nearer = |(one, _): &(&Kind, &Costs), (other, _): &(&Kind, &Costs)| {
            distance(one).total_cmp(&distance(other)).then(one.pixels.cmp(&other.pixels)).then(differs(one).cmp(&differs(other)))
        };
        let known = self.kinds.iter().map(|(other, known)| (other, &known.costs));
        let measured = known.filter(|(other, costs)| other.model == kind.model && is_measured(costs));
        measured.min_by(nearer).map(|(other, costs)| costs.scaled(factor(other)))
    }
}

/// One whole call and shallow ones, `interval` of them together.
fn mean_of(whole: f64, shallow: f64, interval: u32) -> f64 {
    shallow + (whole - shallow) / f64::from(interval.max(1))
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
        assert_eq!((times.calls(&kind("a", 512), false), times.expected(&kind("a", 256))), (None, None));
    }

    #[test]
    fn a_picture_with_shallow_calls_takes_the_mean_of_those_that_it_makes() {
        let every = |cache_interval| Kind { cache_interval, ..kind("a", 512) };
        let mut times = StepTimes::default();
        (0..9).for_each(|_| _ = times.note_call((&every(1), false), (1, 2), 1.0));
        assert_eq!(times.mean_call(&every(5), 2), Some(1.0), "no more is known");
        for call in 0..50 {
            let is_shallow = call % 5 > 0;
            times.note_call((&every(5), is_shallow), (1, 2), if is_shallow { 0.1 } else { 1.0 });
        }
        let close = |seconds: Option<f64>, mean: f64| (seconds.unwrap() - mean).abs() < 1e-9;
        for (interval, mean) in [(1, 1.0), (2, 0.55), (5, 0.28), (10, 0.19)] {
            assert!(close(times.mean_call(&every(interval), 2), mean), "{interval}");
            assert!(close(times.expected(&every(interval)).unwrap().calls.seconds(2), mean), "{interval}");
            let larger = Kind { pixels: 4 * 512 * 512, ..every(interval) };
            assert!(close(times.expected(&larger).unwrap().calls.seconds(2), 4.0 * mean), "{interval}");
        }
    }

    #[test]
    fn sizes_that_nobody_asks_for_any_more_are_forgotten() {
        let mut times = StepTimes::default();
        for side in 0..2 * MOST_KINDS {
            times.of_mut(&kind("often", 512)).calls.note(2, 1.0);
            times.of_mut(&kind("once", side)).calls.note(2, 1.0);
        }
        assert_eq!(times.kinds.len(), MOST_KINDS);
        assert!(times.calls(&kind("often", 512), false).is_some());
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
