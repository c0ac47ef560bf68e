//! Jobs that wait, looked at before they are claimed: the first of them, and those whose deadlines have passed.

use super::{SqliteStore, commit, rows, unavailable};
use crate::{
    dispatch::ports::StoreError,
    domain::{Job, JobError, JobId, JobStatus},
};

/// Jobs that are failed at a time.
const AT_ONCE: u32 = 100;

impl SqliteStore {
    /// Those that cannot be read are left out; they fail when they are claimed.
    pub(super) async fn head_of_queue(&self, limit: u32) -> Result<Vec<Job>, StoreError> {
        let first = sqlx::query("SELECT * FROM jobs INDEXED BY jobs_queued WHERE status = 'queued' ORDER BY turn_ms, seq LIMIT ?");
        let rows = first.bind(limit).fetch_all(&self.readers).await.map_err(unavailable)?;
        Ok(rows.iter().filter_map(|row| rows::job(row).ok()).collect())
    }

    pub(super) async fn waits_in_vain(&self) -> Result<Vec<Job>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM jobs INDEXED BY jobs_deadline
             WHERE status = 'queued' AND deadline_ms IS NOT NULL AND deadline_ms <= ? ORDER BY deadline_ms LIMIT ?",
        )
        .bind(self.clock.now_ms())
        .bind(AT_ONCE)
        .fetch_all(&self.readers)
        .await
        .map_err(unavailable)?;
        Ok(rows.iter().filter_map(|row| rows::job(row).ok()).collect())
    }

    pub(super) async fn fail_waiting(&self, id: JobId, error: JobError) -> Result<Option<Job>, StoreError> {
        let mut transaction = self.begin().await?;
        let row = sqlx::query("SELECT * FROM jobs WHERE id = ? AND status = 'queued'")
            .bind(id.to_string())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(unavailable)?;
        let Some(mut job) = row.as_ref().map(rows::job).transpose()? else { return Ok(None) };
        rows::end_now(&mut job, JobStatus::Failed);
        job.error = Some(error);
        rows::write_end(&mut transaction, &job).await?;
        commit(transaction).await?;
        Ok(Some(job))
    }
}
