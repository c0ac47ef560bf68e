//! Rows that this version cannot read, which must not stand in the way of the others.

use easel::{
    dispatch::ports::{JobQuery, JobStore},
    domain::{JobId, Owner},
};
use sqlx::Row;

use super::{MINUTE, NO_TIME, TestStore};

/// Makes a job's row unreadable.
async fn spoil(store: &TestStore, id: JobId) {
    let spoilt = sqlx::query("UPDATE jobs SET request = '{}' WHERE id = ?").bind(id.to_string());
    assert_eq!(spoilt.execute(&mut store.connect().await).await.unwrap().rows_affected(), 1);
}

async fn assert_failed_as_unreadable(store: &TestStore, id: JobId) {
    let row = sqlx::query("SELECT status, error FROM jobs WHERE id = ?").bind(id.to_string());
    let row = row.fetch_one(&mut store.connect().await).await.unwrap();
    let (status, error): (String, String) = (row.get("status"), row.get("error"));
    assert!(status == "failed" && error.contains("\"unreadable\""), "{status}: {error}");
}

#[tokio::test]
async fn a_queued_job_that_cannot_be_read_fails_and_the_next_is_claimed() {
    let store = TestStore::new().await;
    let (bad, good) = (store.add("bad").await, store.add("good").await);
    spoil(&store, bad).await;
    assert_eq!(store.claim_next(MINUTE).await.0.id, good);
    assert_failed_as_unreadable(&store, bad).await;
}

#[tokio::test]
async fn a_running_job_that_cannot_be_read_does_not_keep_others_from_being_recovered() {
    let store = TestStore::new().await;
    let (bad, good) = (store.add("bad").await, store.add("good").await);
    store.claim_next(NO_TIME).await;
    store.claim_next(NO_TIME).await;
    spoil(&store, bad).await;
    let recovery = store.recover(5).await.unwrap();
    assert_eq!((recovery.ended.len(), recovery.requeued), (0, 1));
    assert_eq!(store.queue().await.unwrap(), [good]);
    assert_failed_as_unreadable(&store, bad).await;
}

#[tokio::test]
async fn a_job_that_cannot_be_read_hides_no_other_from_the_list() {
    let store = TestStore::new().await;
    let (first, bad, last) = (store.add("first").await, store.add("bad").await, store.add("last").await);
    spoil(&store, bad).await;
    let query = JobQuery { owner: Owner::anonymous(), statuses: Vec::new(), before: None, limit: 10 };
    let listed: Vec<JobId> = store.list(&query).await.unwrap().jobs.iter().map(|job| job.id).collect();
    assert_eq!(listed, [last, first]);
}
