//! The door to the event bus.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::broadcast;

use crate::domain::{Event, EventId, JobId, Progress};

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

    /// As [`Self::subscribe`], for one who looks at no previews.
    fn subscribe_without_previews(&self, job: JobId) -> Subscription;

    /// How far the job is, if it runs here.
    fn progress(&self, job: JobId) -> Option<Progress>;

    /// Whether anybody looks at the job's previews, which are not made for nobody.
    fn wants_previews(&self, job: JobId) -> bool;

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
    /// By this the bus counts those who look at no previews, for as long as they hold it.
    pub without_previews: Option<Arc<()>>,
}
