//! Leases: claiming a job, keeping it, and taking back what a dead worker had.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{SqliteStore, commit, rows, unavailable};
use crate::{
    dispatch::ports::{ClaimOutcome, Lease, Renewal, StoreError},
    domain::{Job, JobError, JobStatus},
};

impl SqliteStore {
    /// The head of the queue or nothing: a suspect that waits for an empty device is not overtaken, or it would wait for ever.
    pub(super) async fn claim_next(&self, worker: &str, ttl: Duration, device_is_empty: bool) -> Result<ClaimOutcome, StoreError> {
        let mut transaction = self.begin().await?;
        let head: Option<(i64, bool)> =
            sqlx::query_as("SELECT seq, suspect FROM jobs WHERE status = 'queued' ORDER BY seq LIMIT 1")
                .fetch_optional(&mut *transaction)
                .await
                .map_err(unavailable)?;
        let Some((seq, suspect)) = head else { return Ok(ClaimOutcome::Empty) };
        if suspect && !device_is_empty {
            return Ok(ClaimOutcome::WaitsForEmptyDevice);
        }
        let claimed = sqlx::query(
            "UPDATE jobs SET status = 'running', attempts = attempts + 1, started_at = ?, worker_id = ?, lease_expires_at = ?,
                             alone = suspect
             WHERE seq = ? RETURNING *",
        )
        .bind(rows::time(Timestamp::now()))
        .bind(worker)
        .bind(expiry(ttl))
        .bind(seq)
        .fetch_one(&mut *transaction)
        .await
        .map_err(unavailable)?;
        let job = rows::job(&claimed)?;
        commit(transaction).await?;
        Ok(ClaimOutcome::Claimed { job, alone: suspect })
    }

    /// A lease that has run out and that nobody has taken back yet is as good as any.
    pub(super) async fn renew_all(&self, leases: &[Lease], ttl: Duration) -> Result<Renewal, StoreError> {
        let mut renewal = Renewal::default();
        if leases.is_empty() {
            return Ok(renewal);
        }
        let mut transaction = self.begin().await?;
        for lease in leases {
            match renew_one(&mut transaction, lease, expiry(ttl)).await? {
                None => renewal.lost.push(lease.job),
                Some(true) => renewal.cancel_requested.push(lease.job),
                Some(false) => {}
            }
        }
        commit(transaction).await?;
        Ok(renewal)
    }

    pub(super) async fn take_back(&self, max_attempts: u32) -> Result<Vec<Job>, StoreError> {
        let mut transaction = self.begin().await?;
        let lost = sqlx::query(
            "UPDATE jobs SET strikes = strikes + (alone AND NOT cancel_requested) WHERE status = 'running' AND lease_expires_at <= ?
             RETURNING *",
        )
        .bind(Timestamp::now().as_millisecond())
        .fetch_all(&mut *transaction)
        .await
        .map_err(unavailable)?;
        let mut ended = Vec::new();
        for row in &lost {
            match last_word(row, max_attempts)? {
                Some(job) => {
                    rows::write_end(&mut transaction, &job).await?;
                    ended.push(job);
                }
                None => queue_as_suspect(&mut transaction, row).await?,
            }
        }
        commit(transaction).await?;
        Ok(ended)
    }
}

/// The job as it ends when its lease is lost; `None` when it shall run again.
fn last_word(row: &SqliteRow, max_attempts: u32) -> Result<Option<Job>, StoreError> {
    let mut job = rows::job(row)?;
    let strikes: u32 = row.try_get("strikes").map_err(unavailable)?;
    if job.cancel_requested {
        rows::end_now(&mut job, JobStatus::Cancelled);
    } else if strikes >= max_attempts {
        rows::end_now(&mut job, JobStatus::Failed);
        let times = if strikes == 1 { "once".to_owned() } else { format!("{strikes} times") };
        job.error = Some(JobError::new("too_many_deaths", format!("the server died {times} while this job ran alone")));
    } else {
        return Ok(None);
    }
    Ok(Some(job))
}

async fn queue_as_suspect(connection: &mut SqliteConnection, row: &SqliteRow) -> Result<(), StoreError> {
    let seq: i64 = row.try_get("seq").map_err(unavailable)?;
    sqlx::query(
        "UPDATE jobs SET status = 'queued', suspect = 1, alone = 0, started_at = NULL, worker_id = NULL, lease_expires_at = NULL
         WHERE seq = ?",
    )
    .bind(seq)
    .execute(connection)
    .await
    .map(drop)
    .map_err(unavailable)
}

/// Whether somebody has asked the job to stop; `None` when the lease is lost.
async fn renew_one(connection: &mut SqliteConnection, lease: &Lease, expiry: i64) -> Result<Option<bool>, StoreError> {
    sqlx::query_scalar(
        "UPDATE jobs SET lease_expires_at = ? WHERE id = ? AND attempts = ? AND status = 'running' RETURNING cancel_requested",
    )
    .bind(expiry)
    .bind(lease.job.to_string())
    .bind(lease.attempt)
    .fetch_optional(connection)
    .await
    .map_err(unavailable)
}

/// When a lease taken now runs out, in milliseconds since 1970.
fn expiry(ttl: Duration) -> i64 {
    Timestamp::now().as_millisecond().saturating_add(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX))
}
