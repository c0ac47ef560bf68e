//! The loop of a device's own thread: the only code that calls the engine. Nothing here waits for a reader or for a disk: the channels
//! of ended jobs and of previews never make it wait.

use std::{sync::Arc, time::Instant};

use tokio::sync::mpsc;

use super::{
    batcher::{Candidate, next_batch},
    guard::{self, Lost},
    loader::{Arrival, Loader},
    models,
    painting::{Order, Painting, Slot},
    ports::{CanvasState, Engine, EngineError, ModelReport, Prepared},
    previews::RawPreview,
    running::Phase,
    settle::{Ended, Ending},
    shared::Shared,
};
use crate::domain::{Event, ModelState};

/// The device thread's ends of its channels.
pub(super) struct Channels<F> {
    /// Bounded, so that no more is claimed than can be taken at the next step boundary.
    pub(super) orders: mpsc::Receiver<Order>,
    /// Takes every job that may be on the device or being settled, so that it is never full.
    pub(super) ended: mpsc::Sender<Ended<F>>,
    /// Short: a preview that nobody can take at once is dropped.
    pub(super) previews: mpsc::Sender<RawPreview<F>>,
}

pub(super) struct Device<E: Engine> {
    engine: E,
    loader: Loader<E::Model>,
    shared: Arc<Shared>,
    channels: Channels<E::Frame>,
    /// Oldest first.
    jobs: Vec<Painting<E::Canvas, E::Frame>>,
    /// There is nothing to paint before a model comes.
    waits_for_model: bool,
    /// Models that must leave for a job that waits for its own.
    leaving: Vec<String>,
    /// Steps done since the start.
    steps: u64,
}

/// What wakes a device that has nothing to paint.
enum News<M> {
    Order(Order),
    Model(Arrival<M>),
    Stop,
    /// No order will come any more.
    End,
}

impl<E: Engine> Device<E> {
    pub(super) fn new(engine: E, shared: Arc<Shared>, channels: Channels<E::Frame>) -> Self {
        Self {
            engine,
            loader: Loader::new(),
            shared,
            channels,
            jobs: Vec::new(),
            waits_for_model: false,
            leaving: Vec::new(),
            steps: 0,
        }
    }

    /// Paints until no more orders can come and every job has left.
    ///
    /// # Errors
    /// When the device is lost. The jobs that it then holds are the caller's to release.
    pub(super) fn run(mut self) -> Result<(), Lost> {
        self.tell_models();
        while self.take_orders()? {
            self.drop_stopped();
            self.begin_waiting()?;
            self.step()?;
            // A cancel that came during the step stops the job here, before the VAE.
            self.drop_stopped();
            self.finish_done()?;
            self.shared.doors.metrics.device_canvases.set(self.canvases() as i64);
            self.tell_models();
        }
        Ok(())
    }

    fn canvases(&self) -> usize {
        self.jobs.iter().map(|job| job.slots.len()).sum()
    }

    /// Takes what has been ordered and what was loaded; waits only when there is nothing to paint. `false` when all is done.
    fn take_orders(&mut self) -> Result<bool, Lost> {
        if self.loader.is_busy() {
            if self.jobs.is_empty() || self.waits_for_model {
                match self.wait() {
                    News::Order(order) => self.take(order),
                    News::Model(arrival) => self.take_model(arrival)?,
                    News::End if self.jobs.is_empty() => return Ok(false),
                    News::Stop | News::End => {}
                }
            }
        } else if self.jobs.is_empty() {
            let Some(order) = self.channels.orders.blocking_recv() else { return Ok(false) };
            self.take(order);
        }
        while let Some(arrival) = self.loader.try_arrival() {
            self.take_model(arrival)?;
        }
        while let Ok(order) = self.channels.orders.try_recv() {
            self.take(order);
        }
        Ok(true)
    }

    /// Waits for an order, for the model that is on its way, or for somebody who wants a job to stop.
    fn wait(&mut self) -> News<E::Model> {
        let (orders, loader, running) = (&mut self.channels.orders, &mut self.loader, &self.shared.running);
        let is_told = self.jobs.is_empty() || !(orders.is_closed() && orders.is_empty());
        // Not a task of the runtime: this thread is the device's own.
        futures::executor::block_on(async {
            tokio::select! {
                order = orders.recv(), if is_told => order.map_or(News::End, News::Order),
                arrival = loader.arrival() => News::Model(arrival),
                () = running.stopped.notified() => News::Stop,
            }
        })
    }

    /// Brings a model to the engine. If it has not come, the jobs that wait for it fail, and nobody else.
    fn take_model(&mut self, Arrival { model, loaded }: Arrival<E::Model>) -> Result<(), Lost> {
        if let Err(error) = guard::blame(|| self.engine.install(&model, loaded))? {
            let waits = |job: &&mut Painting<_, _>| !job.unbegun.is_empty() && job.order.request.models().contains(&model.as_str());
            let waiting = self.jobs.iter_mut().filter(waits);
            waiting.for_each(|job| job.fault = Some(error.clone()));
        }
        Ok(())
    }

    fn take(&mut self, order: Order) {
        if !order.claim.is_stopped() {
            let (job, attempt) = (order.claim.job(), order.claim.lease.attempt);
            self.shared.doors.events.begin_attempt(job, attempt);
            self.shared.doors.events.publish(job, Event::Started);
        }
        self.jobs.push(Painting::new(order, self.shared.settings.step));
    }

    /// Gives canvases to the jobs that wait for some, oldest first, as far as there is room and their models are there. While one waits for
    /// its models, a younger one begins only with models that are here and need not leave: it must not take the room of the older one's.
    fn begin_waiting(&mut self) -> Result<(), Lost> {
        let mut waiting = 0;
        self.leaving.clear();
        for place in 0..self.jobs.len() {
            let canvases = self.canvases();
            let room = self.shared.settings.max_canvases.saturating_sub(canvases);
            let job = &mut self.jobs[place];
            if job.unbegun.is_empty() || job.fault.is_some() {
                continue;
            }
            // A younger job must not take the room that an older one waits for.
            if room == 0 || (job.needs_empty_device && canvases > 0) {
                break;
            }
            let request = job.order.request.clone();
            if waiting > 0 && !self.stay(&request.models()) {
                waiting += 1;
                continue;
            }
            let job = &mut self.jobs[place];
            match guard::blame(|| self.engine.prepare(&request))? {
                Ok(Prepared::Ready) => begin_group(&mut self.engine, job, room, Company { canvases, steps: self.steps })?,
                Ok(Prepared::Load(work)) => {
                    self.loader.start(work);
                    waiting += 1;
                }
                Ok(Prepared::Loading) => waiting += 1,
                Ok(Prepared::Occupied { leaving }) => {
                    self.leaving = leaving;
                    waiting += 1;
                }
                Err(error) => job.fault = Some(error),
            }
        }
        self.waits_for_model = waiting == self.jobs.len() && self.canvases() == 0;
        self.tell_models();
        Ok(())
    }

    /// Whether all of these models are here and none must leave.
    fn stay(&self, models: &[&str]) -> bool {
        let reports = self.engine.models();
        let stays = |report: &ModelReport| report.status.state == ModelState::Loaded && !self.leaving.contains(&report.model);
        models.iter().all(|model| reports.iter().any(|report| report.model == *model && stays(report)))
    }

    /// Tells clients and claims where the models are.
    fn tell_models(&mut self) {
        if self.jobs.is_empty() {
            self.leaving.clear();
        }
        let Shared { doors, residence, wake, .. } = &*self.shared;
        models::count(self.engine.take_model_events(), &doors.metrics);
        if residence.update((self.engine.models(), self.engine.model_memory()), &self.leaving, &doors.metrics) {
            wake.notify_one();
        }
    }

    /// One UNet call for the canvases that the batcher chooses.
    fn step(&mut self) -> Result<(), Lost> {
        let mut slots: Vec<&mut Slot<E::Canvas>> = self.jobs.iter_mut().flat_map(|job| &mut job.slots).collect();
        let candidates: Vec<Candidate> = slots.iter().map(|slot| candidate(slot)).collect();
        let chosen = next_batch(&candidates, self.shared.settings.step);
        if chosen.is_empty() {
            return Ok(());
        }
        self.steps += 1;
        let mut place = 0..;
        slots.retain(|_| place.next().is_some_and(|place| chosen.binary_search(&place).is_ok()));
        let start = Instant::now();
        let mut canvases: Vec<&mut E::Canvas> = slots.iter_mut().map(|slot| &mut slot.canvas).collect();
        let results = guard::step(&mut self.engine, &mut canvases, &self.shared.doors.metrics)?;
        let end = Instant::now();
        slots.iter_mut().for_each(|slot| slot.last_step = self.steps);
        self.shared.doors.metrics.step_seconds.observe(end.duration_since(start).as_secs_f64());
        self.note(results, start, end);
        self.preview()
    }

    /// Books the results of the step's canvases, which stand in the order of the jobs and their slots.
    fn note(&mut self, results: Vec<Result<(), EngineError>>, start: Instant, end: Instant) {
        let mut results = results.into_iter();
        for job in &mut self.jobs {
            let moved = job.slots.iter().filter(|slot| slot.last_step == self.steps).count();
            if moved == 0 {
                continue;
            }
            job.fault =
                results.by_ref().take(moved).filter_map(Result::err).fold(job.fault.take(), |fault, error| fault.or(Some(error)));
            job.moved(start, end);
            if job.fault.is_none()
                && let Some(progress) = job.new_progress()
            {
                self.shared.doors.events.publish(job.claim.job(), Event::Progress(progress));
            }
        }
    }

    /// Takes the previews that are due of the canvases that have just moved.
    fn preview(&mut self) -> Result<(), Lost> {
        for job in &self.jobs {
            let every = job.order.request.preview_every;
            if every == 0 || job.fault.is_some() || !self.shared.doors.events.is_watched(job.claim.job()) {
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

    /// Decodes the canvases that have done their last step, and sends off the jobs that are whole.
    fn finish_done(&mut self) -> Result<(), Lost> {
        let mut leaving = Vec::new();
        for job in &mut self.jobs {
            let done: Vec<Slot<E::Canvas>> = job.slots.extract_if(.., |slot| slot.canvas.is_done()).collect();
            if done.is_empty() {
                continue;
            }
            let start = Instant::now();
            let canvases: Vec<&E::Canvas> = done.iter().map(|slot| &slot.canvas).collect();
            match guard::finish(&mut self.engine, &canvases)? {
                Ok(frames) => job.frames.extend(done.iter().map(|slot| slot.index).zip(frames)),
                Err(error) => job.fault = Some(error),
            }
            self.shared.doors.metrics.vae_float32_retries_total.inc_by(self.engine.take_float32_retries());
            job.times.decode += start.elapsed();
            leaving.push((job.claim.clone(), done.len()));
        }
        if !leaving.is_empty() {
            // Whoever claims for the room that they leave must know that their models have just been used.
            self.tell_models();
            leaving.iter().for_each(|(claim, canvases)| claim.leave(*canvases));
            self.shared.wake.notify_one();
        }
        let gone: Vec<_> = self.jobs.extract_if(.., |job| job.fault.is_some() || job.is_painted()).collect();
        gone.into_iter().for_each(|job| self.end(job));
        Ok(())
    }

    /// Drops the jobs that failed, or that somebody has stopped, with all their canvases.
    fn drop_stopped(&mut self) {
        let gone: Vec<_> = self.jobs.extract_if(.., |job| job.fault.is_some() || job.claim.is_stopped()).collect();
        gone.into_iter().for_each(|job| self.end(job));
    }

    /// The job leaves the device; how it ended is written elsewhere.
    fn end(&self, job: Painting<E::Canvas, E::Frame>) {
        let ending = match (job.claim.close(), job.fault) {
            (Phase::Cancelled, _) => Ending::Cancelled,
            (Phase::Lost | Phase::HandedBack, _) => Ending::Abandoned,
            (_, Some(error)) => Ending::Failed(error.into()),
            (_, None) => Ending::Painted(job.frames),
        };
        self.shared.wake.notify_one();
        let ended = Ended { claim: job.claim, ending, warnings: job.warnings, times: job.times };
        // It can only fail when the runtime is being torn down, and with it whoever could settle the job; its lease runs out.
        if self.channels.ended.blocking_send(ended).is_err() {
            tracing::warn!("a job has ended that nobody can settle any more");
        }
    }
}

/// What the device holds when a group begins.
struct Company {
    canvases: usize,
    steps: u64,
}

/// Begins the next group of a job. A group that does not fit into memory is tried again later: smaller, or without company.
fn begin_group<E: Engine>(
    engine: &mut E,
    job: &mut Painting<E::Canvas, E::Frame>,
    room: usize,
    company: Company,
) -> Result<(), Lost> {
    let images = job.next_group(room);
    let start = Instant::now();
    let begun = guard::with_room(engine, &job.order.request.models(), |engine| engine.begin(&job.order, images.clone()))?;
    job.times.encode += start.elapsed();
    match begun {
        Ok(begun) if begun.canvases.len() == images.len() => {
            job.add_group(&images, begun.canvases, company.steps);
            job.add_warnings(begun.warnings);
            job.needs_empty_device = false;
        }
        Ok(begun) => {
            job.fault = Some(EngineError::Failed(format!("{} canvases for {} pictures", begun.canvases.len(), images.len())))
        }
        Err(EngineError::OutOfMemory(_)) if images.len() > 1 => job.group = images.len() / 2,
        Err(EngineError::OutOfMemory(_)) if company.canvases > 0 => job.needs_empty_device = true,
        Err(error) => job.fault = Some(error),
    }
    Ok(())
}

fn candidate<C: CanvasState>(slot: &Slot<C>) -> Candidate {
    let canvas = &slot.canvas;
    Candidate { key: canvas.batch_key(), rows: canvas.rows(), pixels: canvas.pixels(), last_step: slot.last_step }
}
