//! Jobs in one SQLite file, which one process has for itself.
//!
//! There is one write connection, whose transactions begin as writers, and a few read connections. A commit is on the disk before it
//! is answered.

mod admit;
mod claim;
mod clock;
mod end;
mod list;
mod open;
mod overdue;
mod remove;
mod rows;

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{Sqlite, SqlitePool, Transaction, query::QueryScalar, sqlite::SqliteArguments};

use super::{Proof, unavailable};
use crate::{
    dispatch::ports::{
        Admitted, Cancellation, ClaimOutcome, DeviceView, JobCounts, JobPage, JobQuery, JobStore, Lease, Quotas, Recovery, Removal,
        Renewal, Settlement, StoreError, Terms,
    },
    domain::{IdempotencyKey, Job, JobError, JobId, Owner},
};

pub use open::{SchemaVersion, migrate};

/// The jobs of one server, in a SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
    clock: clock::QueueClock,
    written: Proof,
    _lock: open::Lock,
}

impl SqliteStore {
    /// Opens the database that `url` names (`sqlite://relative/path.db` or `sqlite:///absolute/path.db`), makes it when it is not
    /// there, and brings its tables up to date.
    ///
    /// Nobody else has the file, so whoever held leases in it is dead: they are void from now on, and the next
    /// [`JobStore::recover`] takes their jobs back.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process has the file; [`StoreError::Unavailable`] when it cannot be opened, is damaged
    /// or was written by a newer version. A file that is refused is left as it is.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let (database, _) = open::database(url).await?;
        let readers = database.readers().await?;
        let clock = clock::QueueClock::start(&readers).await?;
        let store = Self { writer: database.writer, readers, clock, written: Proof::default(), _lock: database.lock };
        store.void_leases().await?;
        Ok(store)
    }

    /// The store's own random name. A copy of the database keeps it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn identity(&self) -> Result<String, StoreError> {
        sqlx::query_scalar("SELECT name FROM identity").fetch_one(&self.readers).await.map_err(unavailable)
    }

    /// Closes the connections, which folds the write-ahead log into the database file. Skipping this loses nothing.
    pub async fn close(self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn void_leases(&self) -> Result<(), StoreError> {
        let voided = sqlx::query("UPDATE jobs SET lease_expires_at = 0 WHERE status = 'running'")
            .execute(&self.writer)
            .await
            .map_err(unavailable)?
            .rows_affected();
        if voided > 0 {
            tracing::warn!(jobs = voided, "the server did not stop in order; the jobs that ran then will run again");
        }
        Ok(())
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        // A transaction that begins as a reader and then writes can fail half-way, when another has written in between.
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(unavailable)
    }

    /// Writes a header field that nothing uses to the value that it has: the smallest write that there is.
    async fn probe(&self) -> Result<(), StoreError> {
        sqlx::query("PRAGMA user_version = 0").execute(&self.writer).await.map_err(unavailable)?;
        self.written.renew();
        Ok(())
    }
}

async fn commit(transaction: Transaction<'static, Sqlite>) -> Result<(), StoreError> {
    transaction.commit().await.map_err(unavailable)
}

async fn exists(query: QueryScalar<'_, Sqlite, bool, SqliteArguments>, readers: &SqlitePool) -> Result<bool, StoreError> {
    query.fetch_one(readers).await.map_err(unavailable)
}

#[async_trait]
impl JobStore for SqliteStore {
    async fn insert(&self, job: &Job, terms: &Terms) -> Result<Admitted, StoreError> {
        self.admit(job, terms).await.inspect_err(|error| {
            if matches!(error, StoreError::Unavailable(_)) {
                self.written.void();
            }
        })
    }

    async fn known(&self, owner: &Owner, idempotency: &IdempotencyKey) -> Result<Option<Admitted>, StoreError> {
        self.known_request(owner, idempotency).await
    }

    async fn get(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        let row = sqlx::query("SELECT * FROM jobs WHERE id = ?").bind(id.to_string()).fetch_optional(&self.readers).await;
        row.map_err(unavailable)?.as_ref().map(rows::job).transpose()
    }

    async fn check_room(&self, owner: &Owner, terms: &Terms) -> Result<(), StoreError> {
        let mut connection = self.readers.acquire().await.map_err(unavailable)?;
        admit::check_room(&mut connection, owner, terms).await
    }

    async fn removed(&self, id: JobId) -> Result<Option<Owner>, StoreError> {
        self.removed_owner(id).await
    }

    async fn list(&self, query: &JobQuery) -> Result<JobPage, StoreError> {
        self.page(query).await
    }

    async fn queue(&self) -> Result<Vec<JobId>, StoreError> {
        let ids: Vec<String> = sqlx::query_scalar("SELECT id FROM jobs WHERE status = 'queued' ORDER BY turn_ms, seq")
            .fetch_all(&self.readers)
            .await
            .map_err(unavailable)?;
        ids.iter().map(|id| rows::id(id)).collect()
    }

    async fn first_queued(&self, limit: u32) -> Result<Vec<Job>, StoreError> {
        self.head_of_queue(limit).await
    }

    async fn overdue(&self) -> Result<Vec<Job>, StoreError> {
        self.waits_in_vain().await
    }

    async fn fail_queued(&self, id: JobId, error: JobError) -> Result<Option<Job>, StoreError> {
        self.fail_waiting(id, error).await
    }

    async fn queue_position(&self, id: JobId) -> Result<Option<u64>, StoreError> {
        sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM jobs AS ahead WHERE ahead.status = 'queued' AND (ahead.turn_ms, ahead.seq) <= (jobs.turn_ms, jobs.seq))
             FROM jobs WHERE id = ? AND status = 'queued'",
        )
        .bind(id.to_string())
        .fetch_optional(&self.readers)
        .await
        .map_err(unavailable)
    }

    async fn counts(&self) -> Result<JobCounts, StoreError> {
        let (queued, running) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM jobs INDEXED BY jobs_queued WHERE status = 'queued'),
                    (SELECT count(*) FROM jobs INDEXED BY jobs_running WHERE status = 'running')",
        )
        .fetch_one(&self.readers)
        .await
        .map_err(unavailable)?;
        Ok(JobCounts { queued, running })
    }

    async fn claim(&self, worker: &str, ttl: Duration, device: &DeviceView, quotas: &Quotas) -> Result<ClaimOutcome, StoreError> {
        self.claim_next(worker, ttl, device, quotas).await
    }

    async fn renew(&self, leases: &[Lease], ttl: Duration) -> Result<Renewal, StoreError> {
        self.renew_all(leases, ttl).await
    }

    async fn settle(&self, lease: &Lease, settlement: Settlement) -> Result<Job, StoreError> {
        self.end_claimed(lease, settlement).await
    }

    async fn release(&self, lease: &Lease) -> Result<Job, StoreError> {
        self.give_back(lease).await
    }

    async fn cancel(&self, id: JobId) -> Result<Option<Cancellation>, StoreError> {
        self.cancel_any(id).await
    }

    async fn remove(&self, id: JobId) -> Result<Option<Removal>, StoreError> {
        self.remove_any(id).await
    }

    async fn expire(&self, ended_before: Timestamp, limit: u32) -> Result<Vec<JobId>, StoreError> {
        self.expire_jobs(ended_before, limit).await
    }

    async fn forget(&self, removed_before: Timestamp, keys_before: Timestamp) -> Result<(), StoreError> {
        self.forget_old(removed_before, keys_before).await
    }

    async fn has_job(&self, id: JobId) -> Result<bool, StoreError> {
        exists(sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM jobs WHERE id = ?)").bind(id.to_string()), &self.readers).await
    }

    async fn has_input(&self, sha256: &str) -> Result<bool, StoreError> {
        exists(sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM job_inputs WHERE sha256 = ?)").bind(sha256), &self.readers).await
    }

    async fn set_paused(&self, paused: bool) -> Result<(), StoreError> {
        sqlx::query("UPDATE queue SET paused = ?").bind(paused).execute(&self.writer).await.map(drop).map_err(unavailable)
    }

    async fn is_paused(&self) -> Result<bool, StoreError> {
        let mut connection = self.readers.acquire().await.map_err(unavailable)?;
        claim::is_paused(&mut connection).await
    }

    async fn recover(&self, max_attempts: u32) -> Result<Recovery, StoreError> {
        self.take_back(max_attempts).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1 FROM jobs LIMIT 1").fetch_optional(&self.readers).await.map_err(unavailable)?;
        if self.written.is_fresh() { Ok(()) } else { self.probe().await }
    }
}
