//! The memory: real SQLite files and real folders, one of each for every test.

mod deadlines;
mod durability;
mod endings;
mod leases;
mod opening;
mod pictures;
mod queue;
mod removal;
mod turns;
mod unreadable;
mod upgrade;

use std::{ops::Deref, path::PathBuf, time::Duration};

use easel::{
    dispatch::ports::{ClaimOutcome, JobStore, Lease, Outcome, Quotas, Settlement},
    domain::{Job, JobId, JobImage, PictureFormat, Submission, Timings},
    store::SqliteStore,
};
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use crate::support::{IDLE, model_info, terms};

const MINUTE: Duration = Duration::from_secs(60);
/// A lease that has run out as soon as it is taken: its holder might as well be dead.
const NO_TIME: Duration = Duration::ZERO;
const CAPACITY: u64 = 1000;

/// A store with a database of its own, which goes with it.
struct TestStore {
    store: SqliteStore,
    folder: TempDir,
}

impl TestStore {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&url(&folder)).await.unwrap();
        Self { store, folder }
    }

    /// The same database after its process has died and another has started.
    async fn after_a_crash(self) -> Self {
        drop(self.store);
        let store = SqliteStore::open(&url(&self.folder)).await.unwrap();
        Self { store, folder: self.folder }
    }

    /// The folder of the database, which nobody has open any more.
    async fn close(self) -> TempDir {
        self.store.close().await;
        self.folder
    }

    async fn add(&self, prompt: &str) -> JobId {
        let job = job(prompt);
        self.insert(&job, &terms(CAPACITY)).await.unwrap();
        job.id
    }

    /// Claims the next job for a device that is empty.
    async fn claim_next(&self, ttl: Duration) -> (Job, bool) {
        match self.claim("worker", ttl, &IDLE, &Quotas::default()).await.unwrap() {
            ClaimOutcome::Claimed { job, alone } => (job, alone),
            other => panic!("nothing was claimed: {other:?}"),
        }
    }

    /// A second connection to the database, for what no door of the store does.
    async fn connect(&self) -> SqliteConnection {
        SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(database(&self.folder))).await.unwrap()
    }

    async fn job(&self, id: JobId) -> Job {
        self.get(id).await.unwrap().unwrap()
    }
}

impl Deref for TestStore {
    type Target = SqliteStore;

    fn deref(&self) -> &SqliteStore {
        &self.store
    }
}

fn database(folder: &TempDir) -> PathBuf {
    folder.path().join("jobs/easel.db")
}

fn url(folder: &TempDir) -> String {
    format!("sqlite://{}", database(folder).display())
}

fn job(prompt: &str) -> Job {
    job_of(json!({ "prompt": prompt }))
}

fn job_of(body: Value) -> Job {
    Job::queued(&Submission::parse(body, &[model_info("demo")], 7).unwrap(), "request-1")
}

fn lease(job: &Job) -> Lease {
    Lease { job: job.id, attempt: job.attempts }
}

fn success() -> Settlement {
    let image = JobImage {
        index: 0,
        seed: 7,
        width: 128,
        height: 128,
        content_type: PictureFormat::Png,
        bytes: 12_345,
        sha256: "ab".repeat(32),
    };
    settlement(Outcome::Succeeded(vec![image]))
}

fn settlement(outcome: Outcome) -> Settlement {
    Settlement {
        outcome,
        warnings: vec!["the prompt was cut".to_owned()],
        timings: Timings { queue_ms: 1.5, encode_ms: 2.0, denoise_ms: 300.25, decode_ms: 4.0, store_ms: 5.0, total_ms: 312.75 },
        finished_at: "2026-01-02T03:04:05.678901234Z".parse().unwrap(),
    }
}
