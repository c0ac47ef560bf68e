//! The motion: admits jobs, claims them, batches their canvases, steps them, publishes what happens and settles how it ended.

mod batcher;
mod claimer;
mod device;
mod events;
mod finished;
mod guard;
mod outage;
mod pace;
mod painting;
pub mod ports;
mod previews;
mod running;
mod settle;
mod shared;
mod upkeep;
mod worker;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    sync::broadcast::error::RecvError,
    time::{timeout, timeout_at},
};

pub use self::{batcher::StepLimits, events::LocalEvents, worker::Workers};
use self::{
    ports::{Cancellation, Engine, EngineError, EventBus, JobCounts, JobStore, PictureKey, PictureStore, StoreError, Subscription},
    running::Phase,
    shared::Shared,
};
use crate::{
    domain::{Event, InputPicture, Job, JobId, JobImage, JobStatus, ModelInfo, Progress, Submission, sha256_hex},
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
}

/// Why a job cannot be accepted, found, or cancelled.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// As many jobs wait as may.
    #[error("the queue is full; try again in {} s", retry_after.as_secs())]
    QueueFull {
        /// When a place is likely to be free: whole seconds, at least 1.
        retry_after: Duration,
    },
    /// The server is about to stop.
    #[error("the server is draining and accepts no new jobs")]
    Draining,
    /// No job has this id.
    #[error("there is no such job")]
    UnknownJob,
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

    /// Accepts a job: stores its input picture, then the job. Once this returns `Ok` the job survives a crash.
    ///
    /// # Errors
    /// When the queue is full, the server is draining or a store does not answer.
    pub async fn submit(&self, submission: Submission, request_id: &str) -> Result<JobView, DispatchError> {
        if self.shared.draining.is_cancelled() {
            return Err(DispatchError::Draining);
        }
        if let Some(input) = &submission.input {
            self.store_input(input).await?;
        }
        let job = Job::queued(&submission, request_id);
        let capacity = self.shared.settings.max_queued_jobs;
        match self.shared.doors.jobs.insert(&job, capacity).await {
            Err(StoreError::QueueFull { .. }) => return Err(self.queue_full()),
            stored => stored?,
        }
        tracing::info!(job.id = %job.id, request.id = request_id, "accepted a job");
        self.shared.doors.metrics.jobs_accepted_total.inc();
        self.shared.wake.notify_one();
        // The job is safe: a store that fails now must not make the client send it again. Nobody can watch it yet. A job that no longer
        // waits has been claimed meanwhile, so it was the first.
        let queue_position = self.shared.doors.jobs.queue_position(job.id).await.ok().flatten().or(Some(1));
        Ok(JobView { job: Arc::new(job), queue_position, progress: None })
    }

    /// A full queue is found out before the picture is written, so that turning clients away does not fill the disk.
    async fn store_input(&self, input: &InputPicture) -> Result<(), DispatchError> {
        if self.shared.doors.jobs.counts().await?.queued >= self.shared.settings.max_queued_jobs {
            return Err(self.queue_full());
        }
        let key = PictureKey::Input { sha256: input.reference.sha256.clone() };
        Ok(self.shared.doors.pictures.put(&key, Bytes::from_owner(input.bytes.clone())).await?)
    }

    fn queue_full(&self) -> DispatchError {
        DispatchError::QueueFull { retry_after: self.shared.pace.retry_after(Instant::now()) }
    }

    /// The job as it is now.
    ///
    /// # Errors
    /// When there is none, or the store does not answer.
    pub async fn job(&self, id: JobId) -> Result<JobView, DispatchError> {
        let job = self.shared.doors.jobs.get(id).await?.ok_or(DispatchError::UnknownJob)?;
        self.shared.doors.events.continue_from(id, job.attempts);
        self.view(Arc::new(job)).await
    }

    async fn view(&self, job: Arc<Job>) -> Result<JobView, DispatchError> {
        let (mut queue_position, mut progress) = (None, None);
        match job.status {
            JobStatus::Queued => queue_position = self.shared.doors.jobs.queue_position(job.id).await?,
            JobStatus::Running => progress = self.shared.doors.events.progress(job.id),
            JobStatus::Succeeded | JobStatus::Failed | JobStatus::Cancelled => {}
        }
        Ok(JobView { job, queue_position, progress })
    }

    /// Cancels a queued job at once, and a running one at its next step boundary.
    ///
    /// # Errors
    /// When there is none, it has ended, or the store does not answer.
    pub async fn cancel(&self, id: JobId) -> Result<JobView, DispatchError> {
        let job = match self.shared.doors.jobs.cancel(id).await?.ok_or(DispatchError::UnknownJob)? {
            Cancellation::AlreadyFinished(job) => return Err(DispatchError::AlreadyFinished(Arc::new(job))),
            Cancellation::Cancelled(job) => {
                self.shared.move_queue();
                self.shared.announce_end(job)
            }
            Cancellation::Requested(job) => {
                self.shared.running.stop(id, Phase::Cancelled);
                Arc::new(job)
            }
        };
        tracing::info!(job.id = %id, job.status = job.status.as_str(), "asked to cancel a job");
        self.view(job).await
    }

    /// What is stored about a finished picture; its file is not touched.
    ///
    /// # Errors
    /// When there is none, or the store does not answer.
    pub async fn image(&self, id: JobId, index: u32) -> Result<JobImage, DispatchError> {
        let job = self.shared.doors.jobs.get(id).await?.ok_or(DispatchError::UnknownJob)?;
        job.images.into_iter().find(|image| image.index == index).ok_or(DispatchError::UnknownPicture(index))
    }

    /// The file of a finished picture, checked against its SHA-256. `image` is what [`Self::image`] has told about it.
    ///
    /// # Errors
    /// When the file is missing or damaged, or the picture store does not answer.
    pub async fn picture(&self, id: JobId, image: &JobImage) -> Result<Bytes, DispatchError> {
        let key = PictureKey::Output { job: id, index: image.index, format: image.content_type };
        let broken = |problem| DispatchError::BrokenPicture { job: id, index: image.index, problem };
        let file = self.shared.doors.pictures.get(&key).await?.ok_or_else(|| broken("missing"))?;
        let (bytes, sha256) = (file.clone(), image.sha256.clone());
        match tokio::task::spawn_blocking(move || sha256_hex(&bytes) == sha256).await {
            Ok(true) => Ok(file),
            Ok(false) | Err(_) => Err(broken("damaged")),
        }
    }

    /// Watches a job from now on. Subscribe first, then read the job: so nothing falls between.
    pub fn subscribe(&self, id: JobId) -> Subscription {
        self.shared.doors.events.subscribe(id)
    }

    /// Waits until the job has ended, for at most `patience`, and answers it as it then is.
    ///
    /// # Errors
    /// As for [`Self::job`].
    pub async fn wait(&self, id: JobId, patience: Duration) -> Result<JobView, DispatchError> {
        let mut events = self.subscribe(id).events;
        let view = self.job(id).await?;
        if view.job.status.is_finished() {
            return Ok(view);
        }
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            match timeout_at(deadline, events.recv()).await {
                Ok(Ok(numbered)) => {
                    if let Event::Finished(job) = numbered.event {
                        return self.view(job).await;
                    }
                }
                // What was missed is older than what is still to come, and the end is always the newest.
                Ok(Err(RecvError::Lagged(_))) => {}
                Ok(Err(RecvError::Closed)) | Err(_) => return self.job(id).await,
            }
        }
    }

    /// How many jobs wait and run.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn counts(&self) -> Result<JobCounts, DispatchError> {
        let counts = self.shared.doors.jobs.counts().await?;
        self.shared.doors.metrics.queue_depth.set(counts.queued as i64);
        Ok(counts)
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
