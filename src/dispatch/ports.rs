//! The doors of the dispatcher: what it needs from an engine, a job store, a picture store and an event bus, and nothing more.
//!
//! The rooms behind the doors (`diffusion`, `store`) implement these traits and know nothing of each other.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use image::RgbImage;
use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::domain::{Event, EventId, GenerationRequest, Job, JobError, JobId, JobImage, Progress, Timings};

// ---------------------------------------------------------------------------------------------------------------- the engine

/// Paints canvases. Owned by one OS thread, so its methods may block.
pub trait Engine: Send {
    /// One picture in progress. Owns all that its picture depends on.
    type Canvas: CanvasState;
    /// Pixels still on their way from the device; resolved off the device's thread.
    type Frame: IntoRgb + Send + 'static;

    /// Encodes the prompts and, for img2img, the picture, and makes one canvas for each picture of `images`.
    ///
    /// # Errors
    /// When the device fails.
    fn begin(&mut self, order: &PaintOrder, images: Range<u32>) -> Result<Begun<Self::Canvas>, EngineError>;

    /// Moves canvases of one batch key forward by one step, in one UNet call; answers for each canvas.
    ///
    /// # Errors
    /// The outer error means that no canvas has moved.
    fn step(&mut self, canvases: &mut [&mut Self::Canvas]) -> Result<Vec<Result<(), EngineError>>, EngineError>;

    /// A cheap small picture of what the canvas will be; `None` when its model has no latent-to-RGB factors.
    ///
    /// # Errors
    /// When the device fails.
    fn preview(&mut self, canvas: &Self::Canvas) -> Result<Option<Self::Frame>, EngineError>;

    /// Decodes finished canvases to pixels, in order.
    ///
    /// # Errors
    /// When the device fails.
    fn finish(&mut self, canvases: &[&Self::Canvas]) -> Result<Vec<Self::Frame>, EngineError>;
}

/// What the dispatcher may know of a canvas.
pub trait CanvasState {
    /// Canvases with the same key may share a step. May change between steps.
    fn batch_key(&self) -> BatchKey;
    /// Rows of the UNet call that the canvas takes: 2 with guidance, 1 without.
    fn rows(&self) -> usize;
    /// Pixels of its picture, which is what one row weighs: time and memory of a UNet call grow with it.
    fn pixels(&self) -> usize;
    /// The user's steps done, and to be done.
    fn progress(&self) -> (u32, u32);

    /// Whether the last step is done.
    fn is_done(&self) -> bool {
        let (step, steps) = self.progress();
        step >= steps
    }
}

/// Pixels that may still be on the device.
pub trait IntoRgb {
    /// Waits for the pixels.
    ///
    /// # Errors
    /// When the device fails.
    fn into_rgb(self) -> Result<RgbImage, EngineError>;
}

/// A request with the picture that it starts from, ready to paint.
#[derive(Debug, Clone)]
pub struct PaintOrder {
    /// What to paint.
    pub request: Arc<GenerationRequest>,
    /// The decoded picture of an img2img request, in its own size.
    pub init_image: Option<Arc<RgbImage>>,
}

/// Canvases that have begun, and what the client should know about them.
#[derive(Debug)]
pub struct Begun<C> {
    /// One for each picture.
    pub canvases: Vec<C>,
    /// For example the part of a prompt that was too long and was cut.
    pub warnings: Vec<String>,
}

/// Names the canvases that may share a UNet call. Opaque: only equality means something.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BatchKey(Arc<str>);

impl BatchKey {
    /// A key; equal texts are equal keys.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }
}

/// What can go wrong on a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The request names a model that is not loaded.
    #[error("no model named {0:?} is loaded")]
    UnknownModel(String),
    /// The latents are no longer numbers.
    #[error("the picture's latents became NaN or infinite at step {step}")]
    NotFinite {
        /// The step, from 1.
        step: u32,
    },
    /// The device's memory does not suffice.
    #[error("the device is out of memory: {0}")]
    OutOfMemory(String),
    /// The device can do nothing any more until the process is started again.
    #[error("the device is lost: {0}")]
    DeviceLost(String),
    /// The code panicked.
    #[error("the engine panicked: {0}")]
    Panicked(String),
    /// Anything else that libtorch reports.
    #[error("the engine failed: {0}")]
    Failed(String),
}

impl EngineError {
    /// The stable code of the job error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownModel(_) => "unknown_model",
            Self::NotFinite { .. } => "not_finite",
            Self::OutOfMemory(_) => "out_of_memory",
            Self::DeviceLost(_) => "device_lost",
            Self::Panicked(_) => "engine_panicked",
            Self::Failed(_) => "engine_failed",
        }
    }
}

impl From<EngineError> for JobError {
    fn from(error: EngineError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

// -------------------------------------------------------------------------------------------------------------- the job store

/// Remembers jobs. Every method is one short transaction; none is held while a device works.
#[async_trait]
pub trait JobStore: Send + Sync + 'static {
    /// Stores a queued job, unless `capacity` jobs wait already. Once this returns `Ok` the job survives a crash.
    async fn insert(&self, job: &Job, capacity: u64) -> Result<(), StoreError>;

    /// The job, if it exists.
    async fn get(&self, id: JobId) -> Result<Option<Job>, StoreError>;

    /// Every queued job in the order of claiming; the first is at position 1.
    async fn queue(&self) -> Result<Vec<JobId>, StoreError>;

    /// The job's position in the queue, from 1; `None` when it does not wait.
    async fn queue_position(&self, id: JobId) -> Result<Option<u64>, StoreError>;

    /// How many jobs wait and run.
    async fn counts(&self) -> Result<JobCounts, StoreError>;

    /// Claims the next job under a lease of `ttl`. A suspect job is claimed only when `device_is_empty`.
    async fn claim(&self, worker: &str, ttl: Duration, device_is_empty: bool) -> Result<ClaimOutcome, StoreError>;

    /// Renews leases for another `ttl`, and tells which are lost and which jobs somebody wants to stop.
    async fn renew(&self, leases: &[Lease], ttl: Duration) -> Result<Renewal, StoreError>;

    /// Ends a job. Writes nothing and answers [`StoreError::StaleLease`] when the lease is no longer the job's last.
    async fn settle(&self, lease: &Lease, settlement: Settlement) -> Result<Job, StoreError>;

    /// Gives a claimed job back to its old place in the queue, blaming nobody; a cancelled one is cancelled instead. Answers the job
    /// as it then is.
    async fn release(&self, lease: &Lease) -> Result<Job, StoreError>;

    /// Cancels a queued job at once; marks a running one, which its worker then stops. `None` when there is no such job.
    async fn cancel(&self, id: JobId) -> Result<Option<Cancellation>, StoreError>;

    /// Takes back the jobs whose leases have run out: to the queue as suspects, or to `failed` when they have died alone
    /// `max_attempts` times.
    async fn recover(&self, max_attempts: u32) -> Result<Recovery, StoreError>;

    /// Whether the store answers.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// How many jobs wait and run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Waiting.
    pub queued: u64,
    /// Claimed.
    pub running: u64,
}

/// The right to run a job and to write its end, until it is lost. `attempt` is the fencing number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The job.
    pub job: JobId,
    /// The job's `attempts` when it was claimed.
    pub attempt: u32,
}

/// What a claim found.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "made once a claim and taken apart at once")]
pub enum ClaimOutcome {
    /// A job, now running under a lease.
    Claimed {
        /// The job; its `attempts` is the lease's number.
        job: Job,
        /// It lost a lease before, and must have the device for itself.
        alone: bool,
    },
    /// The next job must run alone: claim again when the device is empty.
    WaitsForEmptyDevice,
    /// Nothing waits.
    Empty,
}

/// What a worker learns when it renews its leases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Renewal {
    /// Leases that are no longer held; their results would be refused.
    pub lost: Vec<JobId>,
    /// Jobs that somebody has asked to stop.
    pub cancel_requested: Vec<JobId>,
}

/// What has become of the jobs whose leases had run out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recovery {
    /// The jobs that this has ended.
    pub ended: Vec<Job>,
    /// How many wait again.
    pub requeued: u64,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The pictures are stored.
    Succeeded(Vec<JobImage>),
    /// The engine or the picture store failed.
    Failed(JobError),
    /// It was asked to stop.
    Cancelled,
}

/// The last word on a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// How it ended.
    pub outcome: Outcome,
    /// Added to the job's warnings.
    pub warnings: Vec<String>,
    /// Where the time went.
    pub timings: Timings,
    /// When it ended.
    pub finished_at: Timestamp,
}

/// What a cancel found.
#[derive(Debug, Clone, PartialEq)]
pub enum Cancellation {
    /// It was queued and is cancelled now.
    Cancelled(Job),
    /// It runs, and stops at its next step boundary.
    Requested(Job),
    /// It had ended already.
    AlreadyFinished(Job),
}

/// What can go wrong in a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// As many jobs wait as may.
    #[error("the queue is full: {capacity} jobs wait")]
    QueueFull {
        /// The most that may wait.
        capacity: u64,
    },
    /// Somebody else has the job, or it has ended: this worker's lease is void.
    #[error("the lease on job {job} (attempt {attempt}) is no longer held")]
    StaleLease {
        /// The job.
        job: JobId,
        /// The attempt that is no longer the last.
        attempt: u32,
    },
    /// Another process has the store for itself.
    #[error("{0} is in use by another easel process; a SQLite store serves one process at a time")]
    Locked(String),
    /// The store does not answer, or answers nonsense.
    #[error("the store failed: {0}")]
    Unavailable(String),
}

// ---------------------------------------------------------------------------------------------------------- the picture store

/// Keeps picture files by key. A file is there whole or not at all.
#[async_trait]
pub trait PictureStore: Send + Sync + 'static {
    /// Writes a file; replaces one of the same key.
    async fn put(&self, key: &PictureKey, bytes: Bytes) -> Result<(), StoreError>;

    /// Reads a file; `None` when there is none.
    async fn get(&self, key: &PictureKey) -> Result<Option<Bytes>, StoreError>;

    /// Whether the store answers.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// Where a picture is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PictureKey {
    /// A picture that a client sent, by the SHA-256 of its file: `inputs/{sha256}`.
    Input {
        /// In hexadecimal.
        sha256: String,
    },
    /// A painted picture: `pictures/{job}/{index}.png`.
    Output {
        /// The job.
        job: JobId,
        /// Its place in the request.
        index: u32,
    },
}

// -------------------------------------------------------------------------------------------------------------- the event bus

/// Carries the events of jobs to whoever watches. Never blocks a publisher: a slow watcher misses progress, never the end.
pub trait EventBus: Send + Sync + 'static {
    /// A run begins: numbers continue from the start of this attempt.
    fn begin_attempt(&self, job: JobId, attempt: u32);

    /// A run is over: the job may wait again. Does nothing when another attempt has begun since.
    fn end_attempt(&self, job: JobId, attempt: u32);

    /// The job has been claimed `attempts` times, maybe before this process began: its numbers are to be above those of then.
    fn continue_from(&self, job: JobId, attempts: u32);

    /// Tells everybody who watches the job.
    fn publish(&self, job: JobId, event: Event);

    /// Watches a job from now on.
    fn subscribe(&self, job: JobId) -> Subscription;

    /// How far the job is, if it runs here.
    fn progress(&self, job: JobId) -> Option<Progress>;

    /// Whether anybody watches the job; previews are not made for nobody.
    fn is_watched(&self, job: JobId) -> bool;

    /// Every job that somebody watches.
    fn watched(&self) -> Vec<JobId>;

    /// Ends every watcher's stream, and those of watchers to come: the process is about to stop.
    fn close(&self);
}

/// An event with its number.
#[derive(Debug, Clone)]
pub struct Numbered {
    /// Rises within the job.
    pub id: EventId,
    /// What happened.
    pub event: Event,
    /// What the first reader has made of it to send it on, so that hundreds of others need not do the same work again.
    pub rendered: Arc<OnceLock<Bytes>>,
}

/// A watcher's end of the bus.
#[derive(Debug)]
pub struct Subscription {
    /// The number of the last event before those that will come; `None` when this process has published none of the job's.
    pub last_id: Option<EventId>,
    /// The events to come. A lagging receiver loses the oldest, never the newest.
    pub events: broadcast::Receiver<Numbered>,
}
