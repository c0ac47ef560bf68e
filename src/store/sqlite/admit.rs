//! Admission: a job joins the queue, unless the queue is full or the same request has come before.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::{SqliteStore, commit, rows, unavailable};
use crate::{
    dispatch::ports::{Admitted, StoreError, Terms},
    domain::{IdempotencyKey, Job, Owner},
};

impl SqliteStore {
    /// The look at the key, the look at the queue and the insertion are one transaction: two requests at once with one key bring one job.
    pub(super) async fn admit(&self, job: &Job, terms: &Terms) -> Result<Admitted, StoreError> {
        let mut transaction = self.begin().await?;
        if let Some(idempotency) = &terms.idempotency
            && let Some(before) = before(&mut transaction, &job.owner, idempotency).await?
        {
            return Ok(before);
        }
        check_room(&mut transaction, &job.owner, terms).await?;
        self.store(&mut transaction, job, terms.ageing).await?;
        if let Some(idempotency) = &terms.idempotency {
            remember(&mut transaction, job, idempotency).await?;
        }
        commit(transaction).await?;
        Ok(Admitted::New)
    }

    pub(super) async fn known_request(&self, owner: &Owner, idempotency: &IdempotencyKey) -> Result<Option<Admitted>, StoreError> {
        let mut connection = self.readers.acquire().await.map_err(unavailable)?;
        before(&mut connection, owner, idempotency).await
    }

    async fn store(&self, connection: &mut SqliteConnection, job: &Job, ageing: Duration) -> Result<(), StoreError> {
        let arrived_ms = self.clock.now_ms();
        sqlx::query(
            "INSERT INTO jobs (id, created_at, request, warnings, request_id, owner, retry_of, arrived_ms, turn_ms, models, deadline_ms)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(job.id.to_string())
        .bind(rows::time(job.created_at))
        .bind(rows::json(&job.request)?)
        .bind(rows::json(&job.warnings)?)
        .bind(&job.request_id)
        .bind(job.owner.as_str())
        .bind(job.retry_of.map(|id| id.to_string()))
        .bind(arrived_ms)
        .bind(turn_ms(arrived_ms, job.request.priority, ageing))
        .bind(rows::json(&job.request.models())?)
        .bind(job.request.deadline_seconds.map(|seconds| arrived_ms.saturating_add(1000 * i64::from(seconds))))
        .execute(&mut *connection)
        .await
        .map_err(unavailable)?;
        store_inputs(connection, job).await
    }
}

/// Remembers which pictures the job starts from. The same file may be two of them.
async fn store_inputs(connection: &mut SqliteConnection, job: &Job) -> Result<(), StoreError> {
    for input in job.request.inputs() {
        sqlx::query("INSERT OR IGNORE INTO job_inputs (sha256, job_id) VALUES (?, ?)")
            .bind(&input.sha256)
            .bind(job.id.to_string())
            .execute(&mut *connection)
            .await
            .map_err(unavailable)?;
    }
    Ok(())
}

/// When it is a job's turn: a step of priority is worth as much as having come `ageing` earlier.
fn turn_ms(arrived_ms: i64, priority: u8, ageing: Duration) -> i64 {
    let step = i64::try_from(ageing.as_millis()).unwrap_or(i64::MAX);
    arrived_ms.saturating_sub(step.saturating_mul(i64::from(priority)))
}

async fn before(
    connection: &mut SqliteConnection,
    owner: &Owner,
    idempotency: &IdempotencyKey,
) -> Result<Option<Admitted>, StoreError> {
    let found: Option<(String, String)> =
        sqlx::query_as("SELECT body_sha256, job_id FROM idempotency_keys WHERE owner = ? AND key = ?")
            .bind(owner.as_str())
            .bind(&idempotency.key)
            .fetch_optional(&mut *connection)
            .await
            .map_err(unavailable)?;
    let Some((body_sha256, job)) = found else { return Ok(None) };
    if body_sha256 != idempotency.body_sha256 {
        return Ok(Some(Admitted::OtherRequest));
    }
    let row = sqlx::query("SELECT * FROM jobs WHERE id = ? AND removal_requested = 0").bind(job).fetch_optional(connection).await;
    let job = row.map_err(unavailable)?.as_ref().map(rows::job).transpose()?;
    Ok(Some(job.map_or(Admitted::BeforeAndRemoved, Admitted::Before)))
}

/// Whether the queue has a place for one more job of this owner.
pub(super) async fn check_room(connection: &mut SqliteConnection, owner: &Owner, terms: &Terms) -> Result<(), StoreError> {
    let (queued, of_owner): (u64, u64) = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE owner = ?) FROM jobs INDEXED BY jobs_queued WHERE status = 'queued'",
    )
    .bind(owner.as_str())
    .fetch_one(connection)
    .await
    .map_err(unavailable)?;
    match terms.owner_capacity {
        Some(capacity) if of_owner >= capacity => Err(StoreError::OwnerQueueFull { capacity }),
        _ if queued >= terms.capacity => Err(StoreError::QueueFull { capacity: terms.capacity }),
        _ => Ok(()),
    }
}

async fn remember(connection: &mut SqliteConnection, job: &Job, idempotency: &IdempotencyKey) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO idempotency_keys (owner, key, body_sha256, job_id, created_at) VALUES (?, ?, ?, ?, ?)")
        .bind(job.owner.as_str())
        .bind(&idempotency.key)
        .bind(&idempotency.body_sha256)
        .bind(job.id.to_string())
        .bind(rows::time(Timestamp::now()))
        .execute(connection)
        .await
        .map(drop)
        .map_err(unavailable)
}
