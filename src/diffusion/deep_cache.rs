//! DeepCache (Ma, Fang and Wang, 2023): from one UNet call to the next the depth of the UNet changes little, so that only every few calls
//! go down there. The calls between run its last layer on what the last whole call brought up.
//!
//! The branch is the shallowest, `cache_branch_id` 0 of the authors' `DeepCacheSDHelper`. What is kept belongs to one canvas and was made by
//! its own rows, so that it does not depend on who shared the call.

use tch::{TchError, Tensor};

use super::layers::Result;
use crate::dispatch::ports::BatchKey;

/// How much of the UNet a call runs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Depth<'a> {
    /// All of it.
    Whole,
    /// All of it, and the deep feature is wanted.
    Keeping,
    /// Its last layer on a deep feature that an earlier call left, `[B, C, h, w]`.
    Shallow(&'a Tensor),
}

impl<'a> Depth<'a> {
    /// What a recorded call reads last: the deep feature, or nothing at all, `[B, 0]`, by which a call that keeps is told from one that does not.
    pub(super) fn mark(self, sample: &Tensor) -> Result<Option<Tensor>> {
        match self {
            Self::Whole => Ok(None),
            Self::Keeping => sample.f_new_empty([sample.size4()?.0, 0], (sample.kind(), sample.device())).map(Some),
            Self::Shallow(deep) => Ok(Some(deep.shallow_clone())),
        }
    }

    /// The same with the deep feature read from there.
    pub(super) fn read_from<'b>(self, mark: Option<&'b Tensor>) -> Depth<'b>
    where
        'a: 'b,
    {
        match (self, mark) {
            (Self::Shallow(_), Some(deep)) => Depth::Shallow(deep),
            (depth, _) => depth,
        }
    }
}

/// What a UNet call makes.
pub(super) struct Predicted {
    /// `[B, out, h, w]`
    pub(super) model_output: Tensor,
    /// What goes into the last layer on the way up, `[B, C, h, w]`; of calls that were to keep it.
    pub(super) deep: Option<Tensor>,
}

/// Which canvases may share a step, whole calls and shallow ones.
#[derive(Debug, Clone)]
pub(super) struct StepKeys {
    whole: BatchKey,
    shallow: BatchKey,
}

/// A canvas's deep feature, and when it is made anew.
#[derive(Debug)]
pub(super) struct DeepCache {
    /// One in so many calls is whole; 1 keeps nothing.
    interval: u32,
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// `[rows, C, h, w]`
    deep: Tensor,
    /// What the rows were conditioned on.
    conditioning: usize,
    /// Shallow calls that it is still good for.
    left: u32,
}

impl StepKeys {
    /// Canvases with equal texts may share steps.
    pub(super) fn new(text: &str) -> Self {
        Self { whole: BatchKey::new(text), shallow: BatchKey::new(&format!("{text}/shallow")) }
    }

    /// Of a shallow call or a whole one.
    pub(super) fn of(&self, is_shallow: bool) -> BatchKey {
        if is_shallow { self.shallow.clone() } else { self.whole.clone() }
    }
}

impl DeepCache {
    /// Nothing is kept yet. `interval` is the request's `cache_interval`.
    pub(super) fn new(interval: u32) -> Self {
        Self { interval, kept: None }
    }

    /// Whether whole calls should leave their deep feature.
    pub(super) fn keeps(&self) -> bool {
        self.interval > 1
    }

    /// What the next call runs on, if it is a shallow one: `[rows, C, h, w]`. Whatever changes what the rows are told, or how many there are,
    /// makes it a whole one.
    pub(super) fn deep(&self, conditioning: usize) -> Option<&Tensor> {
        self.kept.as_ref().filter(|kept| kept.conditioning == conditioning).map(|kept| &kept.deep)
    }

    /// Takes what a whole call left, or counts a shallow one.
    pub(super) fn advance(&mut self, conditioning: usize, deep: Option<Tensor>) {
        let left = self.interval.saturating_sub(1);
        self.kept = match (deep, self.kept.take()) {
            (Some(deep), _) => Some(Kept { deep, conditioning, left }),
            (None, kept) => kept.map(|kept| Kept { left: kept.left.saturating_sub(1), ..kept }),
        };
        self.kept.take_if(|kept| kept.left == 0);
    }

    /// Another UNet goes on.
    pub(super) fn forget(&mut self) {
        self.kept = None;
    }
}

impl Predicted {
    /// Both side by side in one tensor, `[B, n]`: what is recorded has one output.
    pub(super) fn packed(&self) -> Result<Tensor> {
        let flat = |tensor: &Tensor| tensor.f_flatten(1, -1);
        match &self.deep {
            Some(deep) => Tensor::f_cat(&[flat(&self.model_output)?, flat(deep)?], 1),
            None => Ok(self.model_output.shallow_clone()),
        }
    }

    /// What [`Self::packed`] made of a call that kept its feature; `[out, h, w]` is the size of one row's output.
    ///
    /// # Errors
    /// When that is not what was packed.
    pub(super) fn unpacked(packed: &Tensor, [out, height, width]: [i64; 3]) -> Result<Self> {
        let (rows, values) = packed.size2()?;
        let own = out * height * width;
        let deep = values.checked_sub(own).filter(|deep| *deep > 0 && deep % (height * width).max(1) == 0);
        let deep = deep.ok_or_else(|| TchError::Shape(format!("{values} values are no output and no deep feature")))?;
        Ok(Self {
            model_output: packed.f_narrow(1, 0, own)?.f_reshape([rows, out, height, width])?,
            deep: Some(packed.f_narrow(1, own, deep)?.f_reshape([rows, -1, height, width])?),
        })
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn feature(value: f64) -> Tensor {
        Tensor::full([2, 3, 4, 5], value, (Kind::Float, Device::Cpu))
    }

    /// Which of the calls on these conditionings are whole.
    fn whole(interval: u32, conditionings: &[usize]) -> Vec<bool> {
        let mut cache = DeepCache::new(interval);
        let call = |(value, &conditioning): (usize, &usize)| {
            let is_whole = cache.deep(conditioning).is_none();
            cache.advance(conditioning, (is_whole && cache.keeps()).then(|| feature(value as f64)));
            is_whole
        };
        conditionings.iter().enumerate().map(call).collect()
    }

    #[test]
    fn one_in_an_intervals_calls_is_whole() {
        assert_eq!(whole(1, &[0; 4]), [true; 4]);
        assert_eq!(whole(2, &[0; 5]), [true, false, true, false, true]);
        assert_eq!(whole(3, &[0; 7]), [true, false, false, true, false, false, true]);
    }

    #[test]
    fn a_call_that_is_told_something_new_is_whole_and_the_interval_begins_again() {
        assert_eq!(whole(3, &[0, 0, 1, 1, 1, 1]), [true, false, true, false, false, true]);
    }

    #[test]
    fn a_forgotten_feature_is_made_anew() {
        let mut cache = DeepCache::new(10);
        cache.advance(0, Some(feature(1.0)));
        assert_eq!(cache.deep(0), Some(&feature(1.0)));
        cache.forget();
        assert!(cache.deep(0).is_none());
    }

    #[test]
    fn what_was_packed_is_unpacked() {
        let randn = |channels: i64| Tensor::randn([2, channels, 5, 7], (Kind::Float, Device::Cpu));
        let predicted = Predicted { model_output: randn(4), deep: Some(randn(6)) };
        let unpacked = Predicted::unpacked(&predicted.packed().unwrap(), [4, 5, 7]).unwrap();
        assert_eq!((unpacked.model_output, unpacked.deep), (predicted.model_output, predicted.deep));
        assert!(Predicted::unpacked(&randn(4).flatten(1, -1), [4, 5, 7]).is_err(), "nothing was kept");
    }
}
