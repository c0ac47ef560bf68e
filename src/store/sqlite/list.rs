//! Pages of an owner's jobs.

use sqlx::{Row, sqlite::SqliteRow};

use super::{SqliteStore, rows, unavailable};
use crate::{
    dispatch::ports::{JobPage, JobQuery, StoreError},
    domain::{Job, JobStatus},
};

impl SqliteStore {
    /// One row more than the page holds tells whether another page follows.
    pub(super) async fn page(&self, query: &JobQuery) -> Result<JobPage, StoreError> {
        let statuses: Vec<&str> = query.statuses.iter().copied().map(JobStatus::as_str).collect();
        let mut found = sqlx::query(
            "SELECT * FROM jobs WHERE owner = ?1 AND seq < ?2 AND removal_requested = 0
                AND (?3 = '[]' OR status IN (SELECT value FROM json_each(?3)))
             ORDER BY seq DESC LIMIT ?4",
        )
        .bind(query.owner.as_str())
        .bind(query.before.unwrap_or(i64::MAX))
        .bind(rows::json(&statuses)?)
        .bind(i64::from(query.limit) + 1)
        .fetch_all(&self.readers)
        .await
        .map_err(unavailable)?;
        let more = found.len() > query.limit as usize;
        found.truncate(query.limit as usize);
        let next = found.last().filter(|_| more).map(|row| row.try_get("seq")).transpose().map_err(unavailable)?;
        Ok(JobPage { jobs: found.iter().filter_map(readable).collect(), next })
    }
}

/// A job that cannot be read must not hide the others.
fn readable(row: &SqliteRow) -> Option<Job> {
    rows::job(row).inspect_err(|problem| tracing::error!(error = %problem, "a stored job cannot be listed")).ok()
}
