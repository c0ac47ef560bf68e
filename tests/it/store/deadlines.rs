//! Jobs whose pictures are of no use after a while.

use easel::{
    dispatch::ports::JobStore,
    domain::{Job, JobError, JobStatus},
};
use serde_json::json;

use super::{MINUTE, TestStore, job, job_of};
use crate::support::terms;

fn with_deadline(prompt: &str, seconds: u32) -> Job {
    job_of(json!({"prompt": prompt, "deadline_seconds": seconds}))
}

/// Makes it seem that the deadlines up to this many seconds have passed.
async fn pass(store: &TestStore, seconds: i64) {
    let sooner = "UPDATE jobs SET deadline_ms = deadline_ms - ?";
    sqlx::query(sooner).bind(seconds * 1000).execute(&mut store.connect().await).await.unwrap();
}

#[tokio::test]
async fn jobs_that_wait_beyond_their_deadlines_are_found_also_after_a_restart() {
    let store = TestStore::new().await;
    let (soon, later) = (with_deadline("soon", 60), with_deadline("later", 6_000));
    for job in [&later, &soon, &job("whenever")] {
        store.insert(job, &terms(10)).await.unwrap();
    }
    assert!(store.overdue().await.unwrap().is_empty());
    pass(&store, 61).await;
    let store = store.after_a_crash().await;
    let overdue = store.overdue().await.unwrap();
    assert_eq!(overdue.iter().map(|job| job.id).collect::<Vec<_>>(), [soon.id]);
    assert_eq!(overdue[0].request.deadline_seconds, Some(60));
}

#[tokio::test]
async fn only_a_job_that_waits_is_failed_without_being_claimed() {
    let store = TestStore::new().await;
    let (waits, runs) = (with_deadline("waits", 60), with_deadline("runs", 60));
    store.insert(&runs, &terms(10)).await.unwrap();
    store.claim_next(MINUTE).await;
    store.insert(&waits, &terms(10)).await.unwrap();
    pass(&store, 61).await;
    assert_eq!(store.overdue().await.unwrap().iter().map(|job| job.id).collect::<Vec<_>>(), [waits.id]);
    let error = || JobError::new("deadline_exceeded", "too late".to_owned());
    let failed = store.fail_queued(waits.id, error()).await.unwrap().unwrap();
    assert_eq!((failed.status, failed.error), (JobStatus::Failed, Some(error())));
    assert_eq!(store.get(waits.id).await.unwrap().unwrap().status, JobStatus::Failed);
    assert_eq!(store.fail_queued(runs.id, error()).await.unwrap(), None);
    assert!(store.overdue().await.unwrap().is_empty() && store.first_queued(10).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_first_of_the_queue_come_in_the_order_of_claiming() {
    let store = TestStore::new().await;
    let mut ids = Vec::new();
    for prompt in ["a", "b", "c"] {
        ids.push(store.add(prompt).await);
    }
    let first = store.first_queued(2).await.unwrap();
    assert_eq!(first.iter().map(|job| job.id).collect::<Vec<_>>(), ids[..2]);
}
