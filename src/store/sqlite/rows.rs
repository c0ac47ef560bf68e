//! Jobs to columns and back.

use std::{convert::Infallible, fmt::Display, str::FromStr};

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{remove::bury, unavailable};
use crate::{
    dispatch::ports::StoreError,
    domain::{Job, JobError, JobId, JobStatus, Owner, Timings},
};

/// A time as the database keeps it: exact, and of one length so that texts sort as times do.
pub(super) fn time(time: Timestamp) -> String {
    format!("{time:.9}")
}

pub(super) fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(unavailable)
}

/// Reads a row of all columns.
pub(super) fn job(row: &SqliteRow) -> Result<Job, StoreError> {
    Ok(Job {
        id: required(row, "id", str::parse)?,
        status: required(row, "status", JobStatus::from_str)?,
        created_at: required(row, "created_at", str::parse)?,
        started_at: optional(row, "started_at", str::parse)?,
        finished_at: optional(row, "finished_at", str::parse)?,
        request: required(row, "request", from_json)?,
        warnings: required(row, "warnings", from_json)?,
        images: required(row, "images", from_json)?,
        error: optional(row, "error", from_json)?,
        attempts: row.try_get("attempts").map_err(unavailable)?,
        timings: optional(row, "timings", from_json)?.unwrap_or_default(),
        cancel_requested: row.try_get("cancel_requested").map_err(unavailable)?,
        removal_requested: row.try_get("removal_requested").map_err(unavailable)?,
        request_id: row.try_get("request_id").map_err(unavailable)?,
        owner: required(row, "owner", |name| Ok::<_, Infallible>(Owner::named(name)))?,
        retry_of: optional(row, "retry_of", str::parse)?,
    })
}

/// Reads the models of a job by themselves. One whose models cannot be read holds nobody up: it has none, and fails when it is claimed.
pub(super) fn models(row: &SqliteRow) -> Result<Vec<String>, StoreError> {
    let text: &str = row.try_get("models").map_err(unavailable)?;
    Ok(from_json(text).unwrap_or_default())
}

/// Reads an id by itself.
pub(super) fn id(text: &str) -> Result<JobId, StoreError> {
    text.parse().map_err(|problem| unavailable(format!("the job id {text:?} cannot be read: {problem}")))
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text)
}

fn required<T, E: Display>(row: &SqliteRow, column: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<T, StoreError> {
    optional(row, column, parse)?.ok_or_else(|| unreadable(row, column, "it is empty"))
}

fn optional<T, E: Display>(
    row: &SqliteRow,
    column: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, StoreError> {
    let text: Option<&str> = row.try_get(column).map_err(unavailable)?;
    text.map(parse).transpose().map_err(|problem| unreadable(row, column, problem))
}

fn unreadable(row: &SqliteRow, column: &str, problem: impl Display) -> StoreError {
    let id: &str = row.try_get("id").unwrap_or("without an id");
    unavailable(format!("the {column} of job {id} cannot be read: {problem}"))
}

/// Ends a job without a worker's help; should the clock have been set back, no earlier than it came or began.
pub(super) fn end_now(job: &mut Job, status: JobStatus) {
    let now = Timestamp::now().max(job.started_at.unwrap_or(job.created_at)).max(job.created_at);
    let total_ms = now.duration_since(job.created_at).as_secs_f64() * 1e3;
    job.status = status;
    job.finished_at = Some(now);
    job.timings = Timings { total_ms, ..Timings::default() };
}

/// Writes how a job ended; one that was to vanish does. The caller has made sure, in the same transaction, that it has the right to.
pub(super) async fn write_end(connection: &mut SqliteConnection, job: &Job) -> Result<(), StoreError> {
    if job.removal_requested {
        return bury(connection, job.id).await;
    }
    sqlx::query(
        "UPDATE jobs SET status = ?, finished_at = ?, warnings = ?, images = ?, error = ?, timings = ?,
                         worker_id = NULL, lease_expires_at = NULL, alone = 0
         WHERE id = ?",
    )
    .bind(job.status.as_str())
    .bind(job.finished_at.map(time))
    .bind(json(&job.warnings)?)
    .bind(json(&job.images)?)
    .bind(job.error.as_ref().map(json).transpose()?)
    .bind(json(&job.timings)?)
    .bind(job.id.to_string())
    .execute(connection)
    .await
    .map(drop)
    .map_err(unavailable)
}

/// Puts a claimed job back to its old place in the queue. One that was suspect stays so.
pub(super) async fn queue_again(connection: &mut SqliteConnection, id: JobId, is_suspect: bool) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE jobs SET status = 'queued', suspect = (suspect OR ?), alone = 0, started_at = NULL, worker_id = NULL,
                         lease_expires_at = NULL
         WHERE id = ?",
    )
    .bind(is_suspect)
    .bind(id.to_string())
    .execute(connection)
    .await
    .map(drop)
    .map_err(unavailable)
}

/// Ends a claimed job whose row cannot be read, so that it does not stand in the way of the others for ever.
pub(super) async fn end_unreadable(
    connection: &mut SqliteConnection,
    row: &SqliteRow,
    problem: &StoreError,
) -> Result<(), StoreError> {
    let seq: i64 = row.try_get("seq").map_err(unavailable)?;
    tracing::error!(job.seq = seq, error = %problem, "a stored job cannot be read; it has failed");
    sqlx::query(
        "UPDATE jobs SET status = 'failed', finished_at = max(?, created_at), error = ?, worker_id = NULL, lease_expires_at = NULL, alone = 0
         WHERE seq = ?",
    )
    .bind(time(Timestamp::now()))
    .bind(json(&JobError::new("unreadable", problem.to_string()))?)
    .bind(seq)
    .execute(connection)
    .await
    .map(drop)
    .map_err(unavailable)
}
