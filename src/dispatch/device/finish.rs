//! Pictures that have done their last step go through the VAE, between the steps of others.

use super::{
    super::{
        guard::{self, Lost},
        painting::Painting,
        ports::{CanvasState, Engine, Line},
    },
    Device,
    told::Piece,
};

impl<E: Engine> Device<E> {
    /// Decodes canvases that have done their last step, the oldest job's first: one, and while others have steps to do as many more as
    /// take no longer than a step does. So a step waits for one decode or for about as long as it takes itself, and never for more (on a
    /// GPU it has them beside it); and of canvases that wait for the VAE one goes at each boundary. While nobody has steps to do, all go,
    /// unless a job comes. Sends off the jobs that are whole.
    pub(super) fn finish_done(&mut self) -> Result<(), Lost> {
        let mut spent = 0.0;
        let others_move = self.jobs.iter().flat_map(|job| &job.slots).any(|slot| !slot.canvas.is_done());
        while let Some(place) = self.jobs.iter().position(waits_for_vae) {
            let took = self.decode_one(place)?;
            spent += took;
            let goes_on = if others_move { spent + took <= self.last_step } else { self.channels.orders.is_empty() };
            if !goes_on {
                break;
            }
        }
        let gone: Vec<_> = self.jobs.extract_if(.., |job| job.fault.is_some() || job.is_painted()).collect();
        gone.into_iter().for_each(|job| self.end(job));
        Ok(())
    }

    /// Decodes the first canvas of a job that has done its last step; answers the seconds that it took.
    fn decode_one(&mut self, place: usize) -> Result<f64, Lost> {
        let (start, from) = (self.engine.now(), self.engine.mark(Line::Decodes));
        let job = &mut self.jobs[place];
        let Some(done) = job.slots.iter().position(|slot| slot.canvas.is_done()) else { return Ok(0.0) };
        let slot = job.slots.remove(done);
        match guard::finish(&mut self.engine, &slot.canvas)? {
            Ok(frame) => job.frames.push((slot.index, frame)),
            Err(error) => job.fault = Some(error.into()),
        }
        let took = self.engine.now().saturating_duration_since(start);
        job.times.decode += took;
        let (kind, claim) = (job.work().kind, job.claim.clone());
        drop(slot);
        let seconds = self.tell(Piece::Decode(kind), from);
        self.shared.doors.metrics.vae_float32_retries_total.inc_by(self.engine.take_float32_retries());
        // Whoever claims for the room that it leaves must know that its models have just been used.
        self.tell_models();
        claim.leave(1);
        self.shared.wake.notify_one();
        self.looked_ahead = None;
        Ok(seconds.unwrap_or(took.as_secs_f64()))
    }
}

fn waits_for_vae<C: CanvasState, F>(job: &Painting<C, F>) -> bool {
    job.fault.is_none() && !job.claim.is_stopped() && job.slots.iter().any(|slot| slot.canvas.is_done())
}
