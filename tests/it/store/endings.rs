//! How jobs end.

use easel::{
    dispatch::ports::{Cancellation, ClaimOutcome, JobStore, Outcome, Quotas},
    domain::{JobError, JobStatus},
};

use super::{CAPACITY, MINUTE, NO_TIME, TestStore, job, lease, settlement, success};
use crate::support::{IDLE, terms};

#[tokio::test]
async fn a_settled_job_shows_its_pictures_its_time_and_all_its_warnings() {
    let store = TestStore::new().await;
    let mut posted = job("a red house");
    posted.warnings = vec!["strength has no effect".to_owned()];
    store.insert(&posted, &terms(CAPACITY)).await.unwrap();
    let (claimed, _) = store.claim_next(MINUTE).await;
    let settled = store.settle(&lease(&claimed), success()).await.unwrap();

    assert_eq!(store.job(posted.id).await, settled);
    let wanted = success();
    let Outcome::Succeeded(images) = wanted.outcome else { panic!() };
    assert_eq!((settled.status, settled.images), (JobStatus::Succeeded, images));
    assert_eq!((settled.timings, settled.finished_at), (wanted.timings, Some(wanted.finished_at)));
    assert_eq!(settled.warnings, ["strength has no effect", "the prompt was cut"]);
    assert_eq!((settled.started_at, settled.error), (claimed.started_at, None));
}

#[tokio::test]
async fn a_failed_job_says_why() {
    let store = TestStore::new().await;
    let id = store.add("a red house").await;
    let (claimed, _) = store.claim_next(MINUTE).await;
    let error = JobError::new("not_finite", "the latents became NaN");
    store.settle(&lease(&claimed), settlement(Outcome::Failed(error.clone()))).await.unwrap();
    let failed = store.job(id).await;
    assert_eq!((failed.status, failed.error, failed.images), (JobStatus::Failed, Some(error), vec![]));
}

#[tokio::test]
async fn a_queued_job_is_cancelled_at_once() {
    let store = TestStore::new().await;
    let id = store.add("a red house").await;
    let Some(Cancellation::Cancelled(cancelled)) = store.cancel(id).await.unwrap() else { panic!() };
    assert_eq!(cancelled.status, JobStatus::Cancelled);
    assert!(cancelled.finished_at.is_some());
    assert_eq!(store.job(id).await, cancelled);
    assert_eq!(store.claim("worker", MINUTE, &IDLE, &Quotas::default()).await.unwrap(), ClaimOutcome::Empty);
}

#[tokio::test]
async fn a_running_job_is_marked_and_its_worker_stops_it() {
    let store = TestStore::new().await;
    store.add("a red house").await;
    let (claimed, _) = store.claim_next(MINUTE).await;
    for _ in 0..2 {
        let Some(Cancellation::Requested(marked)) = store.cancel(claimed.id).await.unwrap() else { panic!() };
        assert_eq!((marked.status, marked.cancel_requested), (JobStatus::Running, true));
        assert_eq!(store.job(claimed.id).await, marked);
    }
    let ended = store.settle(&lease(&claimed), settlement(Outcome::Cancelled)).await.unwrap();
    assert_eq!(ended.status, JobStatus::Cancelled);
}

#[tokio::test]
async fn a_job_that_finishes_before_it_hears_of_its_cancel_has_succeeded() {
    let store = TestStore::new().await;
    store.add("a red house").await;
    let (claimed, _) = store.claim_next(MINUTE).await;
    store.cancel(claimed.id).await.unwrap();
    let ended = store.settle(&lease(&claimed), success()).await.unwrap();
    assert_eq!((ended.status, ended.images.len()), (JobStatus::Succeeded, 1));
    assert_eq!(store.cancel(claimed.id).await.unwrap(), Some(Cancellation::AlreadyFinished(ended)));
}

#[tokio::test]
async fn a_job_that_shall_stop_does_not_run_again() {
    let store = TestStore::new().await;
    let (released, lost) = (store.add("released").await, store.add("lost").await);
    let (first, _) = store.claim_next(MINUTE).await;
    store.claim_next(NO_TIME).await;
    store.cancel(released).await.unwrap();
    store.cancel(lost).await.unwrap();

    store.release(&lease(&first)).await.unwrap();
    assert_eq!(store.job(released).await.status, JobStatus::Cancelled);
    let ended = store.recover(5).await.unwrap().ended;
    assert_eq!(ended, [store.job(lost).await]);
    assert_eq!(ended[0].status, JobStatus::Cancelled);
    assert!(ended[0].finished_at.is_some());
    assert_eq!(store.claim("worker", MINUTE, &IDLE, &Quotas::default()).await.unwrap(), ClaimOutcome::Empty);
}
