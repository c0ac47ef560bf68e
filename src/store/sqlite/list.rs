//! Pages of an owner's jobs.

use std::cmp::Reverse;

use sqlx::{Row, sqlite::SqliteRow};

use super::{SqliteStore, rows, unavailable};
use crate::{
    dispatch::ports::{JobPage, JobQuery, StoreError},
    domain::{Job, JobStatus},
};

impl SqliteStore {
    /// One row more than the page holds tells whether another page follows.
    pub(super) async fn page(&self, query: &JobQuery) -> Result<JobPage, StoreError> {
        let mut found = Vec::new();
        for status in wanted(&query.statuses) {
            found.extend(self.newest(query, status).await?);
        }
        found.sort_by_key(|(seq, _)| Reverse(*seq));
        let more = found.len() > query.limit as usize;
        found.truncate(query.limit as usize);
        let next = found.last().filter(|_| more).map(|(seq, _)| *seq);
        Ok(JobPage { jobs: found.iter().filter_map(|(_, row)| readable(row)).collect(), next })
    }

    /// The newest jobs of one status, or of any, each with its place. Of one status at a time, so that a page costs what it holds however
    /// many jobs of other statuses are kept.
    async fn newest(&self, query: &JobQuery, status: Option<JobStatus>) -> Result<Vec<(i64, SqliteRow)>, StoreError> {
        let statement = match status {
            None => "SELECT * FROM jobs WHERE owner = ?1 AND seq < ?2 AND removal_requested = 0 ORDER BY seq DESC LIMIT ?3",
            Some(_) => {
                "SELECT * FROM jobs INDEXED BY jobs_owner_status
                 WHERE owner = ?1 AND seq < ?2 AND removal_requested = 0 AND status = ?4 ORDER BY seq DESC LIMIT ?3"
            }
        };
        let rows = sqlx::query(statement)
            .bind(query.owner.as_str())
            .bind(query.before.unwrap_or(i64::MAX))
            .bind(i64::from(query.limit) + 1);
        let rows = if let Some(status) = status { rows.bind(status.as_str()) } else { rows };
        let rows = rows.fetch_all(&self.readers).await.map_err(unavailable)?;
        rows.into_iter().map(|row| Ok((row.try_get("seq").map_err(unavailable)?, row))).collect()
    }
}

/// Each status once, or one look at all of them.
fn wanted(statuses: &[JobStatus]) -> Vec<Option<JobStatus>> {
    let named = JobStatus::ALL.into_iter().filter(|status| statuses.contains(status));
    if statuses.is_empty() { vec![None] } else { named.map(Some).collect() }
}

/// A job that cannot be read must not hide the others.
fn readable(row: &SqliteRow) -> Option<Job> {
    rows::job(row).inspect_err(|problem| tracing::error!(error = %problem, "a stored job cannot be listed")).ok()
}
