//! The loop of a device's own thread: the only code that calls the engine. Nothing here waits for a reader or for a disk: the channels
//! of ended jobs and of previews never make it wait.

mod begin;
mod finish;
mod step;
mod told;
mod warm_up;

use std::{sync::Arc, time::Instant};

use tokio::sync::mpsc;

use self::{told::Told, warm_up::WarmUp};
use super::{
    deadlines,
    guard::{self, Lost},
    loader::{Arrival, Loader},
    models,
    outlook::OnDevice,
    painting::{Order, Painting, Slot},
    ports::{CanvasState, Engine},
    previews::RawPreview,
    running::Phase,
    settle::{Ended, Ending},
    shared::Shared,
    shares::Shares,
};
use crate::domain::Event;

/// Seconds after which what is foreseen is looked at anew although nobody has come or gone.
const LOOK_AHEAD: f64 = 0.125;

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
    /// How the batch keys share the time.
    shares: Shares,
    /// What the last step took, in seconds.
    last_step: f64,
    /// What the device has been told and was not yet known to have done, oldest first.
    told: Vec<Told<E::Mark>>,
    /// When the device's clock began.
    start: Instant,
    /// When the ends of the jobs were foreseen, by that clock; `None` when somebody has come or gone since.
    looked_ahead: Option<f64>,
    warm_up: WarmUp<E::Canvas>,
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
            start: engine.now(),
            engine,
            loader: Loader::new(),
            shared,
            channels,
            jobs: Vec::new(),
            waits_for_model: false,
            leaving: Vec::new(),
            steps: 0,
            shares: Shares::default(),
            last_step: 0.0,
            told: Vec::new(),
            looked_ahead: None,
            warm_up: WarmUp::default(),
        }
    }

    /// Seconds of the device's clock, which is that of this thread. A GPU's own tells only how long things took.
    fn now(&self) -> f64 {
        self.engine.now().saturating_duration_since(self.start).as_secs_f64()
    }

    /// Paints until no more orders can come and every job has left.
    ///
    /// # Errors
    /// When the device is lost. The jobs that it then holds are the caller's to release.
    pub(super) fn run(mut self) -> Result<(), Lost> {
        self.tell_models();
        self.plan_warm_up();
        while self.take_orders()? {
            self.drop_stopped();
            self.begin_waiting()?;
            self.step()?;
            // A cancel that came during the step stops the job here, before the VAE.
            self.drop_stopped();
            self.finish_done()?;
            self.tell_outlook(None);
            self.shared.doors.metrics.device_canvases.set(self.canvases() as i64);
            self.tell_models();
            self.catch_up();
        }
        Ok(())
    }

    fn canvases(&self) -> usize {
        self.jobs.iter().map(|job| job.slots.len()).sum()
    }

    /// Takes what has been ordered and what was loaded; waits only when there is nothing to paint, for anybody or for nobody. `false` when all
    /// is done.
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
        } else if self.jobs.is_empty() && (!self.channels.orders.is_empty() || !self.warm_up()?) {
            self.rest();
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
            waiting.for_each(|job| job.fault = Some(error.clone().into()));
        }
        Ok(())
    }

    fn take(&mut self, order: Order) {
        // What is on the device for nobody makes room.
        self.warm_up = WarmUp::default();
        if !order.claim.is_stopped() {
            let (job, attempt) = (order.claim.job(), order.claim.lease.attempt);
            self.shared.doors.events.begin_attempt(job, attempt);
            self.shared.doors.events.publish(job, Event::Started);
        }
        let clock = (self.shared.outlook.ageing(), self.now());
        self.jobs.push(Painting::new(order, self.shared.settings.step, clock));
        self.looked_ahead = None;
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

    /// Tells what the device holds now, and foresees when it will be done, if that may have changed. `decodes_after` as in [`OnDevice`].
    fn tell_outlook(&mut self, decodes_after: Option<f64>) {
        let now = self.now();
        let canvases =
            self.jobs.iter().flat_map(|job| job.slots.iter().map(|Slot { canvas, .. }| (canvas.batch_key(), job.kind(canvas))));
        let shares = self.shares.by(&canvases.collect());
        let work: Vec<_> = self.jobs.iter().map(Painting::work).collect();
        let is_idle = work.is_empty();
        self.shared.outlook.set_device(OnDevice { now, behind: self.behind(), decodes_after, work, shares });
        if is_idle || self.looked_ahead.is_some_and(|then| now - then < LOOK_AHEAD) {
            return;
        }
        // What nothing is known of yet may be known after the next step.
        self.looked_ahead = self.shared.outlook.look_ahead().then_some(now);
    }

    /// Drops the jobs that failed, that somebody has stopped or whose time is over, with all their canvases.
    fn drop_stopped(&mut self) {
        let now = self.now();
        let overdue = self.jobs.iter_mut().filter(|job| job.fault.is_none() && job.is_overdue(now));
        overdue.for_each(|job| job.fault = Some(deadlines::exceeded(&job.order.request)));
        let gone: Vec<_> = self.jobs.extract_if(.., |job| job.fault.is_some() || job.claim.is_stopped()).collect();
        gone.into_iter().for_each(|job| self.end(job));
    }

    /// The job leaves the device; how it ended is written elsewhere.
    fn end(&mut self, job: Painting<E::Canvas, E::Frame>) {
        self.looked_ahead = None;
        let ending = match (job.claim.close(), job.fault) {
            (Phase::Cancelled, _) => Ending::Cancelled,
            (Phase::Lost | Phase::HandedBack, _) => Ending::Abandoned,
            (_, Some(error)) => Ending::Failed(error),
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
