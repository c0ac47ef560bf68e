//! Removal: what a client no longer wants, and what is too old.

use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::{SqliteStore, commit, rows, unavailable};
use crate::{
    dispatch::ports::{Removal, StoreError},
    domain::{JobId, JobStatus, Owner},
};

impl SqliteStore {
    pub(super) async fn remove_any(&self, id: JobId) -> Result<Option<Removal>, StoreError> {
        let mut transaction = self.begin().await?;
        let row = sqlx::query("SELECT * FROM jobs WHERE id = ?").bind(id.to_string()).fetch_optional(&mut *transaction).await;
        let Some(mut job) = row.map_err(unavailable)?.as_ref().map(rows::job).transpose()? else { return Ok(None) };
        job.removal_requested = true;
        let removal = match job.status {
            JobStatus::Queued => {
                rows::end_now(&mut job, JobStatus::Cancelled);
                bury(&mut transaction, id).await?;
                Removal::Cancelled(job)
            }
            JobStatus::Running => {
                request(&mut transaction, id).await?;
                job.cancel_requested = true;
                Removal::Requested(job)
            }
            JobStatus::Succeeded | JobStatus::Failed | JobStatus::Cancelled => {
                bury(&mut transaction, id).await?;
                Removal::Removed(job)
            }
        };
        commit(transaction).await?;
        Ok(Some(removal))
    }

    pub(super) async fn removed_owner(&self, id: JobId) -> Result<Option<Owner>, StoreError> {
        let owner: Option<String> = sqlx::query_scalar("SELECT owner FROM removed_jobs WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await
            .map_err(unavailable)?;
        Ok(owner.as_deref().map(Owner::named))
    }

    pub(super) async fn expire_jobs(&self, ended_before: Timestamp, limit: u32) -> Result<Vec<JobId>, StoreError> {
        let mut transaction = self.begin().await?;
        let ids: Vec<String> = sqlx::query_scalar("SELECT id FROM jobs WHERE finished_at < ? ORDER BY finished_at LIMIT ?")
            .bind(rows::time(ended_before))
            .bind(limit)
            .fetch_all(&mut *transaction)
            .await
            .map_err(unavailable)?;
        let ids = ids.iter().map(|id| rows::id(id)).collect::<Result<Vec<_>, _>>()?;
        for id in &ids {
            bury(&mut transaction, *id).await?;
        }
        commit(transaction).await?;
        Ok(ids)
    }

    pub(super) async fn forget_old(&self, removed_before: Timestamp, keys_before: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        for (statement, time) in [
            ("DELETE FROM removed_jobs WHERE removed_at < ?", removed_before),
            ("DELETE FROM idempotency_keys WHERE created_at < ?", keys_before),
        ] {
            sqlx::query(statement).bind(rows::time(time)).execute(&mut *transaction).await.map_err(unavailable)?;
        }
        commit(transaction).await
    }
}

/// Takes a job out of the table and remembers only that it was there, and whose it was.
pub(super) async fn bury(connection: &mut SqliteConnection, id: JobId) -> Result<(), StoreError> {
    sqlx::query("INSERT OR IGNORE INTO removed_jobs (id, owner, removed_at) SELECT id, owner, ? FROM jobs WHERE id = ?")
        .bind(rows::time(Timestamp::now()))
        .bind(id.to_string())
        .execute(&mut *connection)
        .await
        .map_err(unavailable)?;
    sqlx::query("DELETE FROM jobs WHERE id = ?").bind(id.to_string()).execute(connection).await.map(drop).map_err(unavailable)
}

async fn request(connection: &mut SqliteConnection, id: JobId) -> Result<(), StoreError> {
    sqlx::query("UPDATE jobs SET cancel_requested = 1, removal_requested = 1 WHERE id = ?")
        .bind(id.to_string())
        .execute(connection)
        .await
        .map(drop)
        .map_err(unavailable)
}
