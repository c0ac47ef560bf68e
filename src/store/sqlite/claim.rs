//! Leases: claiming a job, keeping it, and taking back what a dead worker had.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{SqliteStore, commit, rows, unavailable};
use crate::{
    dispatch::ports::{ClaimOutcome, DeviceView, Lease, QueueHead, Quota, Quotas, Recovery, Renewal, StoreError},
    domain::{Job, JobError, JobId, JobStatus},
};

impl SqliteStore {
    /// The job whose turn it is or nothing: a suspect that waits for an empty device is not overtaken, or it would wait for ever.
    pub(super) async fn claim_next(
        &self,
        worker: &str,
        ttl: Duration,
        device: &DeviceView,
        quotas: &Quotas,
    ) -> Result<ClaimOutcome, StoreError> {
        loop {
            let mut transaction = self.begin().await?;
            if is_paused(&mut transaction).await? {
                return Ok(ClaimOutcome::Paused);
            }
            let heads = heads(&mut transaction, quotas).await?;
            let next = device.models.choose(&heads, self.clock.now_ms());
            let Some(&QueueHead { seq, suspect, .. }) = next else { return Ok(ClaimOutcome::Empty) };
            if suspect && !device.is_empty {
                return Ok(ClaimOutcome::WaitsForEmptyDevice);
            }
            let row = hold(&mut transaction, seq, worker, expiry(ttl)).await?;
            let claimed = match rows::job(&row) {
                Ok(job) => Some(ClaimOutcome::Claimed { job, alone: suspect }),
                Err(problem) => {
                    rows::end_unreadable(&mut transaction, &row, &problem).await?;
                    None
                }
            };
            commit(transaction).await?;
            if let Some(claimed) = claimed {
                return Ok(claimed);
            }
        }
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

    pub(super) async fn take_back(&self, max_attempts: u32) -> Result<Recovery, StoreError> {
        let mut transaction = self.begin().await?;
        let lost = sqlx::query(
            "UPDATE jobs SET strikes = strikes + (alone AND NOT cancel_requested) WHERE status = 'running' AND lease_expires_at <= ?
             RETURNING *",
        )
        .bind(Timestamp::now().as_millisecond())
        .fetch_all(&mut *transaction)
        .await
        .map_err(unavailable)?;
        let mut recovery = Recovery::default();
        for row in &lost {
            match last_word(row, max_attempts) {
                Ok(LastWord::Ended(job)) => {
                    rows::write_end(&mut transaction, &job).await?;
                    recovery.ended.push(job);
                }
                Ok(LastWord::RunsAgain(id)) => {
                    rows::queue_again(&mut transaction, id, true).await?;
                    recovery.requeued += 1;
                }
                Err(problem) => rows::end_unreadable(&mut transaction, row, &problem).await?,
            }
        }
        commit(transaction).await?;
        Ok(recovery)
    }
}

/// Whether nothing is to be claimed at all.
pub(super) async fn is_paused(connection: &mut SqliteConnection) -> Result<bool, StoreError> {
    sqlx::query_scalar("SELECT paused FROM queue").fetch_one(connection).await.map_err(unavailable)
}

/// Of each set of models that has queued jobs, the first that its owner's quota lets run. The sets are few and stand in an index, from each
/// of which the next is looked up, so that a long queue costs no more than a short one.
async fn heads(connection: &mut SqliteConnection, quotas: &Quotas) -> Result<Vec<QueueHead>, StoreError> {
    let limit = |quota: &Quota| quota.max_running_jobs.and_then(|limit| i64::try_from(limit).ok()).unwrap_or(i64::MAX);
    let named: BTreeMap<&str, i64> = quotas.named.iter().map(|(owner, quota)| (owner.as_str(), limit(quota))).collect();
    let rows: Vec<SqliteRow> = sqlx::query(
        "WITH RECURSIVE waiting (models) AS (
             SELECT min(models) FROM jobs INDEXED BY jobs_queued_models WHERE status = 'queued'
             UNION ALL
             SELECT (SELECT min(jobs.models) FROM jobs INDEXED BY jobs_queued_models WHERE status = 'queued' AND jobs.models > waiting.models)
             FROM waiting WHERE waiting.models IS NOT NULL
         )
         SELECT head.seq, head.models, head.turn_ms, head.arrived_ms, head.suspect FROM waiting JOIN jobs AS head ON head.seq = (
             SELECT seq FROM jobs INDEXED BY jobs_queued_models
             WHERE status = 'queued' AND jobs.models = waiting.models
               AND (SELECT count(*) FROM jobs AS run WHERE run.status = 'running' AND run.owner = jobs.owner)
                   < coalesce((SELECT value FROM json_each(?) WHERE key = jobs.owner), ?)
             ORDER BY turn_ms, seq LIMIT 1
         )",
    )
    .bind(rows::json(&named)?)
    .bind(limit(&quotas.everyone))
    .fetch_all(connection)
    .await
    .map_err(unavailable)?;
    rows.iter().map(queue_head).collect()
}

fn queue_head(row: &SqliteRow) -> Result<QueueHead, StoreError> {
    let number = |column: &str| row.try_get(column).map_err(unavailable);
    Ok(QueueHead {
        seq: number("seq")?,
        models: rows::models(row)?,
        turn_ms: number("turn_ms")?,
        arrived_ms: number("arrived_ms")?,
        suspect: row.try_get("suspect").map_err(unavailable)?,
    })
}

/// Takes the lease on a queued job.
async fn hold(connection: &mut SqliteConnection, seq: i64, worker: &str, expiry: i64) -> Result<SqliteRow, StoreError> {
    sqlx::query(
        // Should the clock have been set back, a job still begins no earlier than it came.
        "UPDATE jobs SET status = 'running', attempts = attempts + 1, started_at = max(?, created_at), worker_id = ?, lease_expires_at = ?,
                         alone = suspect
         WHERE seq = ? RETURNING *",
    )
    .bind(rows::time(Timestamp::now()))
    .bind(worker)
    .bind(expiry)
    .bind(seq)
    .fetch_one(connection)
    .await
    .map_err(unavailable)
}

/// What becomes of a job whose lease is lost.
#[allow(clippy::large_enum_variant, reason = "made once a lost lease and taken apart at once")]
enum LastWord {
    Ended(Job),
    RunsAgain(JobId),
}

fn last_word(row: &SqliteRow, max_attempts: u32) -> Result<LastWord, StoreError> {
    let mut job = rows::job(row)?;
    let strikes: u32 = row.try_get("strikes").map_err(unavailable)?;
    if job.cancel_requested {
        rows::end_now(&mut job, JobStatus::Cancelled);
    } else if strikes >= max_attempts {
        rows::end_now(&mut job, JobStatus::Failed);
        let times = if strikes == 1 { "once".to_owned() } else { format!("{strikes} times") };
        job.error = Some(JobError::new("too_many_deaths", format!("the server died {times} while this job ran alone")));
    } else {
        return Ok(LastWord::RunsAgain(job.id));
    }
    Ok(LastWord::Ended(job))
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
