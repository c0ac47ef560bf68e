//! Steps: one UNet call for the canvases whose turn it is, and what is told of it.

use super::{
    super::{
        batcher::{Batch, Candidate, next_batch, rank},
        guard::{self, Lost, Stepped},
        painting::Slot,
        ports::{CanvasState, Engine, EngineError, Line},
        previews::RawPreview,
        step_times::StepTimes,
    },
    Device,
    told::{Call, Piece},
};
use crate::domain::Event;

impl<E: Engine> Device<E> {
    /// One UNet call for the canvases that the batcher chooses.
    pub(super) fn step(&mut self) -> Result<(), Lost> {
        let limits = self.shared.settings.step;
        let (candidates, batch) = self.shared.outlook.times(|times| {
            let candidates = self.candidates(times);
            let batch = next_batch(&candidates, limits, (times, &self.shares));
            (candidates, batch)
        });
        let Some(batch) = batch else { return Ok(()) };
        self.steps += 1;
        let (start, from) = (self.now(), self.engine.mark(Line::Steps));
        let is_whole = self.call(&batch)?;
        self.preview()?;
        let rows = batch.places.iter().map(|&place| candidates[place].rows).sum();
        let Candidate { kind, is_shallow, .. } = candidates[batch.places[0]].clone();
        // What is done between two calls belongs to the time of a step as well.
        let seconds = self.tell(Piece::Call(Call { kind, is_shallow, rows, is_whole, is_rehearsal: false }), from);
        self.last_step = seconds.unwrap_or_else(|| self.now() - start);
        self.shares.settle(&batch.turns, &batch.key, self.last_step);
        self.publish_progress();
        Ok(())
    }

    /// The canvases that have steps to do, oldest job first.
    fn candidates(&self, times: &StepTimes) -> Vec<Candidate> {
        let of_job = self.jobs.iter().flat_map(|job| {
            let work = job.work();
            let rank = rank(work.turn(), work.left(times));
            let moving = job.slots.iter().filter(|slot| !slot.canvas.is_done());
            moving.map(move |Slot { canvas, .. }| {
                let kind = job.kind(canvas);
                Candidate { key: canvas.batch_key(), kind, is_shallow: canvas.is_shallow(), rows: canvas.rows(), rank }
            })
        });
        of_job.collect()
    }

    /// Answers whether it was one call, whose time says something of so many rows.
    fn call(&mut self, batch: &Batch) -> Result<bool, Lost> {
        let moving = self.jobs.iter_mut().flat_map(|job| &mut job.slots).filter(|slot| !slot.canvas.is_done());
        let mut place = 0..;
        let chosen = |_: &&mut Slot<E::Canvas>| place.next().is_some_and(|place| batch.places.binary_search(&place).is_ok());
        let mut slots: Vec<&mut Slot<E::Canvas>> = moving.filter(chosen).collect();
        slots.iter_mut().for_each(|slot| slot.last_step = self.steps);
        let mut canvases: Vec<&mut E::Canvas> = slots.into_iter().map(|slot| &mut slot.canvas).collect();
        let start = self.engine.now();
        let Stepped { results, is_whole } = guard::step(&mut self.engine, &mut canvases, &self.shared.doors.metrics)?;
        let end = self.engine.now();
        for job in self.jobs.iter_mut().filter(|job| job.slots.iter().any(|slot| slot.last_step == self.steps)) {
            job.moved(start, end);
        }
        self.note(results);
        Ok(is_whole)
    }

    /// Books the results of the step's canvases, which stand in the order of the jobs and their slots.
    fn note(&mut self, results: Vec<Result<(), EngineError>>) {
        let mut results = results.into_iter();
        for job in &mut self.jobs {
            let moved = job.slots.iter().filter(|slot| slot.last_step == self.steps).count();
            let faults = results.by_ref().take(moved).filter_map(Result::err);
            job.fault = faults.fold(job.fault.take(), |fault, error| fault.or(Some(error.into())));
        }
    }

    fn publish_progress(&mut self) {
        self.tell_outlook(Some(self.last_step));
        for job in self.jobs.iter_mut().filter(|job| job.slots.iter().any(|slot| slot.last_step == self.steps)) {
            let id = job.claim.job();
            if job.fault.is_none()
                && let Some(progress) = job.new_progress(self.shared.outlook.eta(id))
            {
                self.shared.doors.events.publish(id, Event::Progress(progress));
            }
        }
    }

    /// Takes the previews that are due of the canvases that have just moved.
    fn preview(&mut self) -> Result<(), Lost> {
        for job in &self.jobs {
            let every = job.order.request.preview_every;
            if every == 0 || job.fault.is_some() || !self.shared.doors.events.wants_previews(job.claim.job()) {
                continue;
            }
            for slot in job.slots.iter().filter(|slot| slot.last_step == self.steps) {
                let (step, _) = slot.canvas.progress();
                if step == 0 || step % every != 0 || slot.canvas.is_done() {
                    continue;
                }
                let Ok(place) = self.channels.previews.try_reserve() else {
                    self.shared.doors.metrics.previews_dropped_total.inc();
                    continue;
                };
                match guard::blame(|| self.engine.preview(&slot.canvas))? {
                    Ok(Some(frame)) => place.send(RawPreview { job: job.claim.job(), index: slot.index, step, frame }),
                    Ok(None) => {}
                    Err(error) => tracing::warn!(job.id = %job.claim.job(), %error, "a preview failed; the job goes on"),
                }
            }
        }
        Ok(())
    }
}
