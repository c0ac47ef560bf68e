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

    /// Whether [`Self::is_finite`] will not wait.
    pub(super) fn is_here(&self) -> Result<bool> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Answer::Coming(flags) => flags.is_here(),
            Answer::Here(_) => Ok(true),
        }
    }

    /// Whether a row holds numbers only. Waits for the device.
    pub(super) fn is_finite(&self, row: usize) -> Result<bool> {
        let mut answer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing is finite of which the device does not say so.
        if let Answer::Coming(flags) = std::mem::replace(&mut *answer, Answer::Here(Vec::new())) {
            *answer = Answer::Here(flags.bytes()?.into_iter().map(|flag| flag != 0).collect());
        }
        Ok(matches!(&*answer, Answer::Here(rows) if rows.get(row) == Some(&true)))
    }
}
