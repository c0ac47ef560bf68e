//! What stores answer when they cannot do what they are asked.

use crate::domain::JobId;

/// What can go wrong in a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// As many jobs wait as may.
    #[error("the queue is full: {capacity} jobs wait")]
    QueueFull {
        /// The most that may wait.
        capacity: u64,
    },
    /// As many jobs of this owner wait as may.
    #[error("{capacity} jobs of this client wait, which is the most")]
    OwnerQueueFull {
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
