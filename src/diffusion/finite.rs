//! Whether latents are still numbers: asked of the device in every step, and answered when it comes to it.

use std::sync::{Mutex, PoisonError};

use tch::{Kind, Tensor};

use super::{layers::Result, transfer::Download};

/// The answer for each row of a batch.
#[derive(Debug)]
pub(super) struct FiniteRows(Mutex<Answer>);

#[derive(Debug)]
enum Answer {
    Coming(Download),
    Here(Vec<bool>),
}

impl FiniteRows {
    /// Asks whether each row of `[B, C, h, w]` holds numbers only.
    pub(super) fn of(latents: &Tensor) -> Result<Self> {
        let finite = latents.f_isfinite()?.f_flatten(1, -1)?.f_all_dim(1, false)?.f_to_kind(Kind::Uint8)?; // [B]
        Ok(Self(Mutex::new(Answer::Coming(Download::start(&finite)?))))
    }

    /// A question whose answer fails.
    #[cfg(test)]
    pub(super) fn unanswered() -> Result<Self> {
        let no_flags = Tensor::f_zeros([1], (Kind::Float, tch::Device::Cpu))?;
        Ok(Self(Mutex::new(Answer::Coming(Download::start(&no_flags)?))))
    }

    /// Whether [`Self::is_finite`] will not wait.
    pub(super) fn is_here(&self) -> Result<bool> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Answer::Coming(flags) => flags.is_here(),
            Answer::Here(_) => Ok(true),
        }
    }

    /// Whether a row holds numbers only. Waits for the device.
    pub(super) fn is_finite(&self, row: usize) -> Result<bool> {
        Ok(self.flags()?.get(row) == Some(&true))
    }

    /// Whether all rows hold numbers only. Waits for the device.
    pub(super) fn are_all_finite(&self) -> Result<bool> {
        Ok(self.flags()?.iter().all(|&is_finite| is_finite))
    }

    fn flags(&self) -> Result<Vec<bool>> {
        let mut answer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What the device does not answer for is not finite.
        let flags = match std::mem::replace(&mut *answer, Answer::Here(vec![false])) {
            Answer::Coming(flags) => flags.bytes()?.into_iter().map(|flag| flag != 0).collect(),
            Answer::Here(flags) => flags,
        };
        *answer = Answer::Here(flags.clone());
        Ok(flags)
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn a_row_with_a_nan_or_an_infinity_is_told_from_the_others() {
        let latents = Tensor::zeros([4, 4, 2, 2], (Kind::Float, Device::Cpu));
        let mut row = latents.get(1);
        drop(row.get(3).get(1).get(0).fill_(f64::NAN));
        row = latents.get(2);
        drop(row.get(0).get(0).get(0).fill_(f64::NEG_INFINITY));
        let rows = FiniteRows::of(&latents).unwrap();
        assert!(rows.is_here().unwrap());
        let found: Vec<bool> = (0..5).map(|row| rows.is_finite(row).unwrap()).collect();
        assert_eq!(found, [true, false, false, true, false], "a row that is not there is not finite");
        assert!(!rows.are_all_finite().unwrap());
        assert!(FiniteRows::of(&latents.narrow(0, 0, 1)).unwrap().are_all_finite().unwrap());
    }
}
