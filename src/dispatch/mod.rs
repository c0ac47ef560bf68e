//! The motion: admits jobs, claims them, batches their canvases, steps them, publishes what happens and settles how it ended.

mod admission;
mod batcher;
mod claimer;
mod curve;
mod deadlines;
mod device;
mod events;
mod finished;
mod forecast;
mod guard;
mod jobs;
mod loader;
mod models;
mod outage;
mod outlook;
mod pace;
mod painting;
pub mod ports;
mod previews;
mod retention;
mod running;
mod settle;
mod shared;
mod shares;
mod step_times;
mod upkeep;
mod work;
mod worker;

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::timeout;

pub use self::{batcher::StepLimits, events::LocalEvents, retention::RetentionSettings, worker::Workers};
use self::{
    ports::{Engine, EngineError, EventBus, JobCounts, JobStore, PictureStore, Quotas, StoreError},
    shared::Shared,
};
use crate::{
    domain::{Job, JobId, ModelInfo, ModelStatus, Progress},
    telemetry::Metrics,
};

/// How long a store may take to show that it is alive.
const PING_PATIENCE: Duration = Duration::from_secs(2);

/// What the dispatcher works with, beside the engine.
#[derive(Clone)]
pub struct Doors {
    /// Remembers jobs.
    pub jobs: Arc<dyn JobStore>,
    /// Keeps pictures.
    pub pictures: Arc<dyn PictureStore>,
    /// Carries events to watchers.
    pub events: Arc<dyn EventBus>,
    /// Counts what happens.
    pub metrics: Metrics,
}

impl fmt::Debug for Doors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doors").finish_non_exhaustive()
    }
}

/// The dispatcher's settings.
#[derive(Debug, Clone)]
pub struct DispatchSettings {
    /// How long a claim lasts without being renewed.
    pub lease: Duration,
    /// How often a job may die alone before it fails.
    pub max_attempts: u32,
    /// The most jobs that may wait.
    pub max_queued_jobs: u64,
    /// The most canvases on the device at a time.
    pub max_canvases: usize,
    /// The most that one UNet call may take on.
    pub step: StepLimits,
    /// How long a drain waits for running canvases.
    pub drain: Duration,
    /// The waiting time that weighs as much as one step of priority.
    pub ageing: Duration,
    /// How long a job may wait for younger ones because its model is not on the device and theirs is.
    pub model_stay: Duration,
    /// Whether a device that nobody wants anything of yet paints pictures for nobody; `None` where more than its
    /// first calls are slow.
    pub warm_up: Option<bool>,
    /// What each client may have in the queue and on the device.
    pub quotas: Quotas,
    /// How long what is over is kept.
    pub retention: RetentionSettings,
}

/// The dispatcher's handle; cheap to clone.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

/// A job as a client should see it now: the stored job, and what only the running server knows.
#[derive(Debug, Clone)]
pub struct JobView {
    /// The stored job.
    pub job: Arc<Job>,
    /// Its place in the queue, from 1, while it waits.
    pub queue_position: Option<u64>,
    /// How far it is, while it runs.
    pub progress: Option<Progress>,
    /// Seconds until it has probably ended, while that is known.
    pub eta_seconds: Option<f64>,
}

/// An answer to a request to paint.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The job.
    pub view: JobView,
    /// The same request has come before, and brought this job then.
    pub came_before: bool,
}

/// The queue as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueState {
    /// Jobs that wait.
    pub queued: u64,
    /// Jobs that run.
    pub running: u64,
    /// Nothing is begun.
    pub paused: bool,
}

/// Why a job cannot be accepted, found, or ended.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// As many jobs wait as may.
    #[error("the queue is full; try again in {} s", retry_after.as_secs())]
    QueueFull {
        /// When a place is likely to be free: whole seconds, at least 1.
        retry_after: Duration,
    },
    /// As many jobs of this client wait as may.
    #[error("{capacity} of your jobs wait, which is the most; try again in {} s", retry_after.as_secs())]
    OwnerQueueFull {
        /// The most that may wait.
        capacity: u64,
        /// When a place is likely to be free: whole seconds, at least 1.
        retry_after: Duration,
    },
    /// The job could not be done before its deadline.
    #[error("the job would be done in about {} s, and its deadline_seconds are {deadline}", seconds.ceil())]
    DeadlineUnreachable {
        /// What was asked for: seconds.
        deadline: u32,
        /// What is expected, or the least that is.
        seconds: f64,
        /// When the deadline could be kept, if nothing else comes: whole seconds, at least 1.
        retry_after: Duration,
    },
    /// The idempotency key came with another body before.
    #[error("this Idempotency-Key came with another body before; a key names one request")]
    IdempotencyKeyReused,
    /// The server is about to stop.
    #[error("the server is draining and accepts no new jobs")]
    Draining,
    /// No job has this id.
    #[error("there is no such job")]
    UnknownJob,
    /// The job was deleted, or was older than the server keeps them.
    #[error("the job has been removed")]
    Gone,
    /// Only jobs that failed or were cancelled are run again.
    #[error("the job is {}; only one that has failed or was cancelled can be retried", .0.status.as_str())]
    NotRetryable(Arc<Job>),
    /// No picture has this index.
    #[error("the job has no picture {0}")]
    UnknownPicture(u32),
    /// The picture was painted, and its file is not what was stored.
    #[error("the file of picture {index} of job {job} is {problem}")]
    BrokenPicture {
        /// The job.
        job: JobId,
        /// The picture's place in the request.
        index: u32,
        /// Missing or damaged.
        problem: &'static str,
    },
    /// The job has ended, so it cannot be cancelled.
    #[error("the job has already {}", .0.status.as_str())]
    AlreadyFinished(Arc<Job>),
    /// A store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the server is not ready; ready when every part is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// The models are loaded and the device works.
    pub engine: bool,
    /// The job store and the picture store answer.
    pub store: bool,
    /// The server is about to stop.
    pub draining: bool,
}

impl Dispatcher {
    /// Starts the device's thread, which loads the engine, and the tasks around it. Jobs are accepted at once and claimed when the
    /// engine is loaded. Must be called within a Tokio runtime.
    pub fn start<E: Engine>(
        doors: Doors,
        models: Vec<ModelInfo>,
        settings: DispatchSettings,
        load: impl FnOnce() -> Result<E, EngineError> + Send + 'static,
    ) -> (Self, Workers) {
        let shared = Arc::new(Shared::new(doors, models, settings));
        let workers = Workers::start(shared.clone(), load);
        (Self { shared }, workers)
    }

    /// The models that are served, the default one first.
    pub fn models(&self) -> &[ModelInfo] {
        &self.shared.models
    }

    /// Where each of [`Self::models`] is. While the server starts all are on their way.
    pub fn model_statuses(&self) -> Vec<ModelStatus> {
        self.shared.models.iter().map(|model| self.shared.residence.status(&model.name)).collect()
    }

    /// How many jobs wait and run, and whether the queue is paused.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn queue(&self) -> Result<QueueState, DispatchError> {
        let jobs = &self.shared.doors.jobs;
        let (JobCounts { queued, running }, paused) = tokio::try_join!(jobs.counts(), jobs.is_paused())?;
        self.shared.doors.metrics.queue_depth.set(queued as i64);
        self.shared.doors.metrics.queue_paused.set(i64::from(paused));
        Ok(QueueState { queued, running, paused })
    }

    /// Pauses the queue, or lets it go on. While it is paused jobs are accepted and none is begun; those that run go on. A restart
    /// changes nothing about it.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn set_paused(&self, paused: bool) -> Result<QueueState, DispatchError> {
        self.shared.doors.jobs.set_paused(paused).await?;
        tracing::info!(queue.paused = paused, "the queue was paused or let go on");
        if paused {
            self.shared.outlook.set_queue(None, true);
        }
        self.shared.wake.notify_one();
        self.queue().await
    }

    /// Whether the server can accept and paint jobs.
    pub async fn readiness(&self) -> Readiness {
        let both = async { tokio::try_join!(self.shared.doors.jobs.ping(), self.shared.doors.pictures.ping()) };
        let store = match timeout(PING_PATIENCE, both).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                tracing::warn!(%error, "not ready");
                false
            }
            Err(_) => {
                tracing::warn!("not ready: a store does not answer");
                false
            }
        };
        Readiness { engine: self.shared.is_ready(), store, draining: self.shared.draining.is_cancelled() }
    }
}
