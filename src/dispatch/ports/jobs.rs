//! The door to the job store.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;

use super::{ModelTurns, StoreError};
use crate::domain::{IdempotencyKey, Job, JobError, JobId, JobImage, JobStatus, Owner, Timings};

/// Remembers jobs. Every method is one short transaction; none is held while a device works.
#[async_trait]
pub trait JobStore: Send + Sync + 'static {
    /// Stores a queued job on these terms. Once this answers [`Admitted::New`] the job survives a crash.
    async fn insert(&self, job: &Job, terms: &Terms) -> Result<Admitted, StoreError>;

    /// What a request with this key would be answered, if its owner has used the key before: never [`Admitted::New`].
    async fn known(&self, owner: &Owner, idempotency: &IdempotencyKey) -> Result<Option<Admitted>, StoreError>;

    /// Whether a job of this owner would find a place in the queue.
    ///
    /// # Errors
    /// [`StoreError::QueueFull`] or [`StoreError::OwnerQueueFull`] when it would not.
    async fn check_room(&self, owner: &Owner, terms: &Terms) -> Result<(), StoreError>;

    /// The job, if it exists. One that is to vanish does until it has stopped.
    async fn get(&self, id: JobId) -> Result<Option<Job>, StoreError>;

    /// Whose job it was, if it has been removed; remembered until [`Self::forget`].
    async fn removed(&self, id: JobId) -> Result<Option<Owner>, StoreError>;

    /// Some of an owner's jobs, the newest first.
    async fn list(&self, query: &JobQuery) -> Result<JobPage, StoreError>;

    /// Every queued job in the order of claiming; the first is at position 1.
    async fn queue(&self) -> Result<Vec<JobId>, StoreError>;

    /// The first queued jobs in the order of claiming, at most `limit`.
    async fn first_queued(&self, limit: u32) -> Result<Vec<Job>, StoreError>;

    /// The queued jobs whose deadlines have passed; some of them if they are many.
    async fn overdue(&self) -> Result<Vec<Job>, StoreError>;

    /// Fails a job, if it still waits; answers it as it then is.
    async fn fail_queued(&self, id: JobId, error: JobError) -> Result<Option<Job>, StoreError>;

    /// The job's position in the queue, from 1; `None` when it does not wait.
    async fn queue_position(&self, id: JobId) -> Result<Option<u64>, StoreError>;

    /// How many jobs wait and run.
    async fn counts(&self) -> Result<JobCounts, StoreError>;

    /// Claims the next job, whose owner runs fewer than its quota allows, under a lease of `ttl`. Of the first such jobs of each model
    /// [`ModelTurns::choose`] says which is next. A suspect job is claimed only when the device is empty.
    async fn claim(&self, worker: &str, ttl: Duration, device: &DeviceView, quotas: &Quotas) -> Result<ClaimOutcome, StoreError>;

    /// Renews leases for another `ttl`, and tells which are lost and which jobs somebody wants to stop.
    async fn renew(&self, leases: &[Lease], ttl: Duration) -> Result<Renewal, StoreError>;

    /// Ends a job. Writes nothing and answers [`StoreError::StaleLease`] when the lease is no longer the job's last.
    async fn settle(&self, lease: &Lease, settlement: Settlement) -> Result<Job, StoreError>;

    /// Gives a claimed job back to its old place in the queue, blaming nobody; a cancelled one is cancelled instead. Answers the job
    /// as it then is.
    async fn release(&self, lease: &Lease) -> Result<Job, StoreError>;

    /// Cancels a queued job at once; marks a running one, which its worker then stops. `None` when there is no such job.
    async fn cancel(&self, id: JobId) -> Result<Option<Cancellation>, StoreError>;

    /// Removes a job: one that runs as soon as it has stopped, any other at once. `None` when there is no such job.
    async fn remove(&self, id: JobId) -> Result<Option<Removal>, StoreError>;

    /// Removes at most `limit` of the jobs that ended before a time, the oldest first, and names them.
    async fn expire(&self, ended_before: Timestamp, limit: u32) -> Result<Vec<JobId>, StoreError>;

    /// Forgets the removals before one time and the idempotency keys before another.
    async fn forget(&self, removed_before: Timestamp, keys_before: Timestamp) -> Result<(), StoreError>;

    /// Whether there is a job of this id, readable or not.
    async fn has_job(&self, id: JobId) -> Result<bool, StoreError>;

    /// Whether a job starts from the picture of this SHA-256.
    async fn has_input(&self, sha256: &str) -> Result<bool, StoreError>;

    /// Pauses the queue or lets it go on: while it is paused nothing is claimed. Survives a restart.
    async fn set_paused(&self, paused: bool) -> Result<(), StoreError>;

    /// Whether the queue is paused.
    async fn is_paused(&self) -> Result<bool, StoreError>;

    /// Takes back the jobs whose leases have run out: to the queue as suspects, or to `failed` when they have died alone
    /// `max_attempts` times.
    async fn recover(&self, max_attempts: u32) -> Result<Recovery, StoreError>;

    /// Whether the store answers.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// On what terms a job is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The most jobs that may wait.
    pub capacity: u64,
    /// The most jobs of one owner that may wait, if there is such a limit.
    pub owner_capacity: Option<u64>,
    /// The waiting time that weighs as much as one step of priority.
    pub ageing: Duration,
    /// The client's own name for the request.
    pub idempotency: Option<IdempotencyKey>,
}

/// What became of a job that was to be stored.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "made once a request and taken apart at once")]
pub enum Admitted {
    /// It waits.
    New,
    /// Nothing was stored: the same request has come before, and brought this job.
    Before(Job),
    /// Nothing was stored: the same request has come before, and its job has been removed.
    BeforeAndRemoved,
    /// Nothing was stored: another request has come with the same key.
    OtherRequest,
}

/// Which jobs to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobQuery {
    /// Whose.
    pub owner: Owner,
    /// In which states; empty is in any.
    pub statuses: Vec<JobStatus>,
    /// Only those that are older than this place, which the page before has given.
    pub before: Option<i64>,
    /// The most jobs of a page.
    pub limit: u32,
}

/// Some jobs, the newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// Where the next page begins; `None` when this is the last.
    pub next: Option<i64>,
}

/// What each owner may have in the queue and on the device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Of owners without a quota of their own.
    pub everyone: Quota,
    /// Of those with one.
    pub named: BTreeMap<Owner, Quota>,
}

/// What one owner may have; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// The most jobs that may wait.
    pub max_queued_jobs: Option<u64>,
    /// The most jobs that may run.
    pub max_running_jobs: Option<u64>,
}

impl Quotas {
    /// The quota of an owner.
    pub fn of(&self, owner: &Owner) -> Quota {
        self.named.get(owner).copied().unwrap_or(self.everyone)
    }
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

/// What a claim must know about the device that it is made for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceView {
    /// No job runs there.
    pub is_empty: bool,
    /// Which models are there.
    pub models: ModelTurns,
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
    /// Nothing waits that may run.
    Empty,
    /// The queue is paused.
    Paused,
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

/// What the removal of a job found.
#[derive(Debug, Clone, PartialEq)]
pub enum Removal {
    /// It waited, and is cancelled and gone.
    Cancelled(Job),
    /// It runs, stops at its next step boundary and is gone then.
    Requested(Job),
    /// It had ended, and is gone.
    Removed(Job),
}
