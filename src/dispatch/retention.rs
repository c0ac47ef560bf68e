//! Removes what is too old, and what nobody owns: results after their time, and files that a crash or a removal has left.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, MissedTickBehavior};

use super::{ports::StoreError, shared::Shared, upkeep::every};

/// How long a file that no job owns is left alone: a picture is stored before the job that it belongs to.
const GRACE: Duration = Duration::from_secs(3600);
/// Jobs that one transaction removes: few, so that it is short.
const BATCH: u32 = 100;

/// How long what is over is kept.
#[derive(Debug, Clone)]
pub struct RetentionSettings {
    /// Jobs that have ended, with their pictures; `None` is for ever.
    pub results: Option<Duration>,
    /// The memory that a job has been removed.
    pub tombstones: Duration,
    /// Idempotency keys.
    pub idempotency_keys: Duration,
    /// The time between two looks for what is too old.
    pub period: Duration,
    /// The time between two looks for files that no job owns. They read the whole picture store.
    pub sweep_period: Duration,
}

/// Removes until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let settings = &shared.settings.retention;
    let mut removals = every(settings.period);
    // Not at the start: whoever has named a wrong place in the settings has time to see it.
    let mut sweeps = tokio::time::interval_at(Instant::now() + settings.sweep_period, settings.sweep_period);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let done = tokio::select! {
            _ = removals.tick() => expire(&shared, settings).await,
            _ = sweeps.tick() => sweep(&shared).await,
        };
        if let Err(error) = done {
            tracing::warn!(%error, "could not remove what is too old; trying again later");
        }
    }
}

async fn expire(shared: &Shared, settings: &RetentionSettings) -> Result<(), StoreError> {
    shared.doors.jobs.forget(ago(settings.tombstones), ago(settings.idempotency_keys)).await?;
    if let Some(results) = settings.results {
        let ended_before = ago(results);
        while expire_batch(shared, ended_before).await? == BATCH as usize {}
    }
    Ok(())
}

async fn expire_batch(shared: &Shared, ended_before: Timestamp) -> Result<usize, StoreError> {
    let expired = shared.doors.jobs.expire(ended_before, BATCH).await?;
    for job in &expired {
        shared.remove_outputs(*job).await;
    }
    if !expired.is_empty() {
        tracing::info!(jobs = expired.len(), "removed jobs that were too old");
        shared.doors.metrics.jobs_expired_total.inc_by(expired.len() as u64);
    }
    Ok(expired.len())
}

/// Files are listed first and looked up then: a job that is not there any more does not come back, and a new job's files are not on
/// the list.
async fn sweep(shared: &Shared) -> Result<(), StoreError> {
    let (jobs, pictures) = (&shared.doors.jobs, &shared.doors.pictures);
    let mut swept = pictures.remove_unfinished(GRACE).await?;
    for job in pictures.outputs().await? {
        if !jobs.has_job(job).await? {
            pictures.remove_outputs(job).await?;
            swept += 1;
        }
    }
    let written_before = ago(GRACE);
    for input in pictures.inputs().await? {
        if input.written_at < written_before && remove_unowned_input(shared, &input.sha256).await? {
            swept += 1;
        }
    }
    if swept > 0 {
        tracing::info!(files = swept, "swept files that no job owns");
        shared.doors.metrics.pictures_swept_total.inc_by(swept);
    }
    Ok(())
}

/// Removes an input that no job starts from, and answers whether it did. One that somebody may just be about to use stays for now.
pub(super) async fn remove_unowned_input(shared: &Shared, sha256: &str) -> Result<bool, StoreError> {
    let Ok(_nobody_comes) = shared.inputs.try_write() else { return Ok(false) };
    let is_unowned = !shared.doors.jobs.has_input(sha256).await?;
    if is_unowned {
        shared.doors.pictures.remove_input(sha256).await?;
    }
    Ok(is_unowned)
}

fn ago(age: Duration) -> Timestamp {
    let age = SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX);
    Timestamp::now().checked_sub(age).unwrap_or(Timestamp::MIN)
}
