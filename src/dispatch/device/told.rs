//! What the device's work takes. A device that is told its work and not waited for says later, by its own clock, what each piece has taken.

use super::{
    super::{
        ports::{Engine, Line, Mark},
        step_times::Kind,
    },
    Device,
};
use crate::domain::ModelInfo;

/// A piece of work that the device has been told.
pub(super) struct Told<M> {
    piece: Piece,
    from: M,
    to: M,
}

/// What it is.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    /// A UNet call with all that is done between two of them.
    Call(Call),
    /// Pictures have begun.
    Encode { kind: Kind, sends_pictures: bool, pictures: usize },
    /// One picture has gone through the VAE.
    Decode(Kind),
}

/// A UNet call.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) kind: Kind,
    pub(super) is_shallow: bool,
    pub(super) rows: usize,
    /// Whether its time says something of so many rows: it did not have to be repeated or divided.
    pub(super) is_whole: bool,
    /// Whether it was for nobody.
    pub(super) is_rehearsal: bool,
}

impl Piece {
    fn line(&self) -> Line {
        if matches!(self, Self::Decode(_)) { Line::Decodes } else { Line::Steps }
    }
}

impl<E: Engine> Device<E> {
    /// Notes what the device has been told since `from`; answers the seconds that it takes: what it has taken, if it is done, or else what
    /// such pieces do.
    pub(super) fn tell(&mut self, piece: Piece, from: E::Mark) -> Option<f64> {
        let told = Told { from, to: self.engine.mark(piece.line()), piece };
        if told.to.is_reached() {
            return self.settle(&told);
        }
        let expected = self.expected(&told.piece);
        self.told.push(told);
        expected
    }

    /// Notes what those pieces have taken that the device has done meanwhile. Waits for all UNet calls but the last one: the device is never
    /// told more than it needs to go on without a break, so that a job that comes waits for no more.
    pub(super) fn catch_up(&mut self) {
        let mut calls = self.told.iter().filter(|told| matches!(told.piece, Piece::Call(_)));
        if let Some(before) = calls.nth_back(1) {
            before.to.wait();
        }
        let mut done: Vec<_> = self.told.extract_if(.., |told| told.to.is_reached()).collect();
        // Whoever sees that a call was noted may expect its picture's decode to be known.
        done.sort_by_key(|told| matches!(told.piece, Piece::Call(_)));
        done.iter().for_each(|told| _ = self.settle(told));
    }

    /// Waits for what the device has still to do while nobody wants anything of it, and notes what that has taken: it would otherwise not be
    /// known before the next job has gone on.
    pub(super) fn rest(&mut self) {
        for told in &self.told {
            if !self.channels.orders.is_empty() || self.shared.outlook.has_waiting() {
                return;
            }
            told.to.wait();
        }
        if !self.told.is_empty() {
            self.tell_outlook(None);
            self.catch_up();
        }
    }

    /// Seconds that the device will probably still take for the UNet calls that it has been told.
    pub(super) fn behind(&self) -> f64 {
        let calls = self.told.iter().filter(|told| matches!(told.piece, Piece::Call(_)) && !told.to.is_reached());
        calls.filter_map(|told| self.expected(&told.piece)).sum()
    }

    /// What such a piece takes, as far as it was measured.
    fn expected(&self, piece: &Piece) -> Option<f64> {
        self.shared.outlook.times(|times| match piece {
            Piece::Call(Call { kind, is_shallow, rows, .. }) => times.calls(kind, *is_shallow)?.seconds(*rows),
            Piece::Decode(kind) => times.decode(kind),
            Piece::Encode { .. } => None,
        })
    }

    /// Adds a piece that is done to what was measured; answers its seconds.
    fn settle(&self, Told { piece, from, to }: &Told<E::Mark>) -> Option<f64> {
        let seconds = to.since(from)?.as_secs_f64();
        let outlook = &self.shared.outlook;
        match piece {
            Piece::Call(call) => self.note_call(call, seconds),
            Piece::Encode { kind, sends_pictures, pictures } => {
                outlook.times(|times| times.of_mut(kind).encode_mut(*sends_pictures).note(seconds / *pictures as f64));
            }
            Piece::Decode(kind) => outlook.times(|times| times.of_mut(kind).decode.note(seconds)),
        }
        Some(seconds)
    }

    /// Of sizes, which clients choose, only the model's own becomes a metric, and of rows the powers of two.
    fn note_call(&self, Call { kind, is_shallow, rows, is_whole, is_rehearsal }: &Call, seconds: f64) {
        let metrics = &self.shared.doors.metrics;
        if !is_rehearsal {
            metrics.step_seconds.observe(seconds);
        }
        if !is_whole {
            return;
        }
        let slow = self.engine.slow_first_calls();
        let expected = self.shared.outlook.times(|times| times.note_call((kind, *is_shallow), (slow, *rows), seconds));
        let is_own = |model: &ModelInfo| {
            let is_exact = !is_shallow && !kind.fp8_linears;
            is_exact && *model.name == *kind.model && model.default_width as usize * model.default_height as usize == kind.pixels
        };
        if let Some(seconds) = expected.filter(|_| rows.is_power_of_two() && self.shared.models.iter().any(is_own)) {
            metrics.step_estimate_seconds.with_label_values(&[&*kind.model, &rows.to_string()]).set(seconds);
        }
    }
}
