//! What survives when a process dies. The process is a real one: this test binary, started once more and killed.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use easel::{
    dispatch::ports::{ClaimOutcome, JobStore, Quotas, StoreError},
    domain::{JobId, JobStatus},
    store::SqliteStore,
};

use super::{CAPACITY, MINUTE, TestStore, job, lease, success, url};
use crate::support::{BUSY, IDLE, terms};

const DATABASE: &str = "EASEL_TEST_STORE_URL";

#[tokio::test]
async fn leases_found_at_a_start_are_void_at_once() {
    let store = TestStore::new().await;
    let (finished, running) = (store.add("finished").await, store.add("running").await);
    let (job, _) = store.claim_next(MINUTE).await;
    let settled = store.settle(&lease(&job), success()).await.unwrap();
    let (lost, _) = store.claim_next(MINUTE).await;
    assert_eq!(store.recover(5).await.unwrap().ended, [], "a living lease was taken back");

    let store = store.after_a_crash().await;
    assert_eq!(store.recover(5).await.unwrap().ended, []);
    assert_eq!(store.job(finished).await, settled);
    assert_eq!(store.job(running).await.status, JobStatus::Queued);
    assert!(matches!(store.settle(&lease(&lost), success()).await, Err(StoreError::StaleLease { .. })));
    let (again, alone) = store.claim_next(MINUTE).await;
    assert_eq!((again.id, again.attempts, alone), (running, 2, true));
}

#[tokio::test]
async fn every_job_that_was_accepted_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::durability::a_process_that_accepts_jobs_until_it_is_killed", "--ignored", "--nocapture"])
        .env(DATABASE, url(&folder))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut accepted = BufReader::new(process.stdout.take().unwrap()).lines().filter_map(|line| line.unwrap().parse().ok());
    let mut ids: Vec<JobId> = accepted.by_ref().take(20).collect();
    assert!(matches!(SqliteStore::open(&url(&folder)).await, Err(StoreError::Locked(_))));
    process.kill().unwrap();
    process.wait().unwrap();
    ids.extend(accepted);

    let store = TestStore { store: SqliteStore::open(&url(&folder)).await.unwrap(), folder };
    store.recover(5).await.unwrap();
    let queue = store.queue().await.unwrap();
    // The kill may fall between a commit and the line that tells of it, so that there is one more at the end.
    assert!(ids.len() >= 20 && queue.len() <= ids.len() + 1);
    assert_eq!(queue[..ids.len()], ids);
    assert_eq!(store.claim("worker", MINUTE, &BUSY, &Quotas::default()).await.unwrap(), ClaimOutcome::WaitsForEmptyDevice);
}

/// Not a test by itself: what [`every_job_that_was_accepted_survives_a_kill`] starts and kills.
#[tokio::test]
#[ignore = "started by another test"]
async fn a_process_that_accepts_jobs_until_it_is_killed() {
    let Ok(url) = std::env::var(DATABASE) else { return };
    let store = SqliteStore::open(&url).await.unwrap();
    for number in 0..CAPACITY {
        let job = job(&format!("house {number}"));
        store.insert(&job, &terms(CAPACITY)).await.unwrap();
        if number == 0 {
            store.claim("worker", MINUTE, &IDLE, &Quotas::default()).await.unwrap();
        }
        // The test runner writes before the first line without ending its own.
        println!("\n{}", job.id);
    }
    std::future::pending().await
}
