//! Ends: settling a run, giving it back, cancelling a job.

use sqlx::SqliteConnection;

use super::{SqliteStore, commit, rows, unavailable};
use crate::{
    dispatch::ports::{Cancellation, Lease, Outcome, Settlement, StoreError},
    domain::{Job, JobId, JobStatus},
};

impl SqliteStore {
    /// The outcome stands as the worker gives it, also when a cancel came too late to change it.
    pub(super) async fn end_claimed(&self, lease: &Lease, settlement: Settlement) -> Result<Job, StoreError> {
        let mut transaction = self.begin().await?;
        let mut job = held(&mut transaction, lease).await?;
        match settlement.outcome {
            Outcome::Succeeded(images) => {
                job.status = JobStatus::Succeeded;
                job.images = images;
            }
            Outcome::Failed(error) => {
                job.status = JobStatus::Failed;
                job.error = Some(error);
            }
            Outcome::Cancelled => job.status = JobStatus::Cancelled,
        }
        // A retried job brings the warnings of its first run along.
        let is_new = |warning: &String| !job.warnings.contains(warning);
        let new: Vec<String> = settlement.warnings.into_iter().filter(is_new).collect();
        job.warnings.extend(new);
        job.timings = settlement.timings;
        job.finished_at = Some(settlement.finished_at);
        rows::write_end(&mut transaction, &job).await?;
        commit(transaction).await?;
        Ok(job)
    }

    /// Suspicion and strikes stay as they are: a run that was broken off in order says nothing about the job.
    pub(super) async fn give_back(&self, lease: &Lease) -> Result<Job, StoreError> {
        let mut transaction = self.begin().await?;
        let mut job = held(&mut transaction, lease).await?;
        if job.cancel_requested {
            rows::end_now(&mut job, JobStatus::Cancelled);
            rows::write_end(&mut transaction, &job).await?;
        } else {
            rows::queue_again(&mut transaction, job.id, false).await?;
            (job.status, job.started_at) = (JobStatus::Queued, None);
        }
        commit(transaction).await?;
        Ok(job)
    }

    pub(super) async fn cancel_any(&self, id: JobId) -> Result<Option<Cancellation>, StoreError> {
        let mut transaction = self.begin().await?;
        let row = sqlx::query("SELECT * FROM jobs WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(unavailable)?;
        let Some(mut job) = row.as_ref().map(rows::job).transpose()? else { return Ok(None) };
        let cancellation = match job.status {
            JobStatus::Queued => {
                rows::end_now(&mut job, JobStatus::Cancelled);
                rows::write_end(&mut transaction, &job).await?;
                Cancellation::Cancelled(job)
            }
            JobStatus::Running => {
                request_cancel(&mut transaction, id).await?;
                job.cancel_requested = true;
                Cancellation::Requested(job)
            }
            JobStatus::Succeeded | JobStatus::Failed | JobStatus::Cancelled => Cancellation::AlreadyFinished(job),
        };
        commit(transaction).await?;
        Ok(Some(cancellation))
    }
}

/// The job, if the lease on it is still held. The transaction is a writer's, so it stays held until the commit.
async fn held(connection: &mut SqliteConnection, lease: &Lease) -> Result<Job, StoreError> {
    let row = sqlx::query("SELECT * FROM jobs WHERE id = ? AND attempts = ? AND status = 'running'")
        .bind(lease.job.to_string())
        .bind(lease.attempt)
        .fetch_optional(connection)
        .await
        .map_err(unavailable)?;
    let row = row.ok_or(StoreError::StaleLease { job: lease.job, attempt: lease.attempt })?;
    rows::job(&row)
}

async fn request_cancel(connection: &mut SqliteConnection, id: JobId) -> Result<(), StoreError> {
    let marked = sqlx::query("UPDATE jobs SET cancel_requested = 1 WHERE id = ?").bind(id.to_string()).execute(connection).await;
    marked.map(drop).map_err(unavailable)
}
