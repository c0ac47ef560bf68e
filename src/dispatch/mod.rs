//! The motion: admits jobs, claims them, batches their canvases, steps them, publishes what happens and settles how it ended.

pub mod ports;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::domain::{Job, JobId, JobImage, ModelInfo, Progress, Submission};
use ports::{JobCounts, StoreError, Subscription};

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
    /// The most rows of one UNet call.
    pub max_step_rows: usize,
    /// How long a drain waits for running canvases.
    pub drain: Duration,
}

/// The dispatcher's handle; cheap to clone.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    inner: Arc<()>,
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
    /// The models that are served, the default one first.
    pub fn models(&self) -> &[ModelInfo] {
        todo!()
    }

    /// Accepts a job: stores its input picture, then the job. Once this returns `Ok` the job survives a crash.
    ///
    /// # Errors
    /// When the queue is full, the server is draining or a store does not answer.
    pub async fn submit(&self, _submission: Submission, _request_id: &str) -> Result<JobView, DispatchError> {
        todo!()
    }

    /// The job as it is now.
    ///
    /// # Errors
    /// When there is none, or the store does not answer.
    pub async fn job(&self, _id: JobId) -> Result<JobView, DispatchError> {
        todo!()
    }

    /// Cancels a queued job at once, and a running one at its next step boundary.
    ///
    /// # Errors
    /// When there is none, it has ended, or the store does not answer.
    pub async fn cancel(&self, _id: JobId) -> Result<JobView, DispatchError> {
        todo!()
    }

    /// The file of a finished picture, checked against its SHA-256.
    ///
    /// # Errors
    /// When there is none, or a store does not answer.
    pub async fn picture(&self, _id: JobId, _index: u32) -> Result<(JobImage, Bytes), DispatchError> {
        todo!()
    }

    /// Watches a job from now on. Subscribe first, then read the job: so nothing falls between.
    pub fn subscribe(&self, _id: JobId) -> Subscription {
        todo!()
    }

    /// Waits until the job has ended, for at most `patience`, and answers it as it then is.
    ///
    /// # Errors
    /// As for [`Self::job`].
    pub async fn wait(&self, _id: JobId, _patience: Duration) -> Result<JobView, DispatchError> {
        todo!()
    }

    /// How many jobs wait and run.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn counts(&self) -> Result<JobCounts, DispatchError> {
        todo!()
    }

    /// Whether the server can accept and paint jobs.
    pub async fn readiness(&self) -> Readiness {
        todo!()
    }
}
