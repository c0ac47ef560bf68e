//! Linear combinations of what a UNet call has at hand.

use std::ops::{Add, Mul, Sub};

/// How many earlier records a call may look back on.
pub const HISTORY: usize = 5;

/// Coefficients of a linear combination. They add and scale as what they stand for does, so that a scheduler's formula can be written as its
/// paper has it: `SAMPLE + (SAMPLE - PREDICTION) * (dt / sigma)`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Combination {
    /// Of the sample that the call was given.
    pub sample: f64,
    /// Of the model's output.
    pub model_output: f64,
    /// Of the predicted finished sample.
    pub pred_original_sample: f64,
    /// Of fresh standard normal noise.
    pub noise: f64,
    /// Of what earlier calls left, the last first.
    pub history: [f64; HISTORY],
}

const NOTHING: Combination =
    Combination { sample: 0.0, model_output: 0.0, pred_original_sample: 0.0, noise: 0.0, history: [0.0; HISTORY] };
/// The sample.
pub(super) const SAMPLE: Combination = Combination { sample: 1.0, ..NOTHING };
/// The model's output.
pub(super) const MODEL_OUTPUT: Combination = Combination { model_output: 1.0, ..NOTHING };
/// The predicted finished sample.
pub(super) const PREDICTION: Combination = Combination { pred_original_sample: 1.0, ..NOTHING };
/// Fresh noise.
pub(super) const NOISE: Combination = Combination { noise: 1.0, ..NOTHING };

/// What was left `back` records ago; 0 is the last.
pub(super) fn history(back: usize) -> Combination {
    let mut found = NOTHING;
    found.history[back] = 1.0;
    found
}

impl Combination {
    /// Every coefficient.
    pub(super) fn coefficients(self) -> impl Iterator<Item = f64> {
        [self.sample, self.model_output, self.pred_original_sample, self.noise].into_iter().chain(self.history)
    }

    fn zip(self, other: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            sample: f(self.sample, other.sample),
            model_output: f(self.model_output, other.model_output),
            pred_original_sample: f(self.pred_original_sample, other.pred_original_sample),
            noise: f(self.noise, other.noise),
            history: std::array::from_fn(|back| f(self.history[back], other.history[back])),
        }
    }
}

impl Add for Combination {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
}

impl Sub for Combination {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
}

impl Mul<f64> for Combination {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        self.zip(self, |a, _| a * factor)
    }
}
