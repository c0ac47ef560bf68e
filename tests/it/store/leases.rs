//! Leases that are kept, lost and taken back.

use easel::{
    dispatch::ports::{ClaimOutcome, JobStore, Lease, Quotas, Renewal, StoreError},
    domain::JobStatus,
};

use super::{MINUTE, NO_TIME, TestStore, lease, success};
use crate::support::BUSY;

#[tokio::test]
async fn a_worker_whose_lease_is_lost_can_write_nothing() {
    let store = TestStore::new().await;
    let id = store.add("a red house").await;
    let (lost, _) = store.claim_next(NO_TIME).await;
    store.recover(5).await.unwrap();
    let (again, _) = store.claim_next(MINUTE).await;
    assert_eq!((again.id, again.attempts), (id, 2));

    let stale = store.settle(&lease(&lost), success()).await;
    assert!(matches!(stale, Err(StoreError::StaleLease { job, attempt: 1 }) if job == id));
    assert!(matches!(store.release(&lease(&lost)).await, Err(StoreError::StaleLease { .. })));
    assert_eq!(store.job(id).await, again);
    store.settle(&lease(&again), success()).await.unwrap();
}

#[tokio::test]
async fn a_job_is_settled_once() {
    let store = TestStore::new().await;
    store.add("a red house").await;
    let (job, _) = store.claim_next(MINUTE).await;
    let settled = store.settle(&lease(&job), success()).await.unwrap();
    assert!(matches!(store.settle(&lease(&job), success()).await, Err(StoreError::StaleLease { .. })));
    assert!(matches!(store.release(&lease(&job)).await, Err(StoreError::StaleLease { .. })));
    assert_eq!(store.job(job.id).await, settled);
}

#[tokio::test]
async fn a_job_that_waits_again_cannot_be_settled_by_its_old_worker() {
    let store = TestStore::new().await;
    let id = store.add("a red house").await;
    let (lost, _) = store.claim_next(NO_TIME).await;
    store.recover(5).await.unwrap();
    let waiting = store.job(id).await;
    assert_eq!((waiting.status, waiting.started_at), (JobStatus::Queued, None));
    assert!(matches!(store.settle(&lease(&lost), success()).await, Err(StoreError::StaleLease { .. })));
    assert_eq!(store.job(id).await, waiting);
}

#[tokio::test]
async fn a_renewed_lease_is_not_taken_back() {
    let store = TestStore::new().await;
    store.add("a red house").await;
    let (job, _) = store.claim_next(NO_TIME).await;
    assert_eq!(store.renew(&[lease(&job)], MINUTE).await.unwrap(), Renewal::default());
    assert_eq!(store.recover(1).await.unwrap().ended, []);
    assert_eq!(store.job(job.id).await, job);
}

#[tokio::test]
async fn a_renewal_tells_what_is_lost_and_what_shall_stop() {
    let store = TestStore::new().await;
    for prompt in ["kept", "stopped", "lost"] {
        store.add(prompt).await;
    }
    let ((kept, _), (stopped, _)) = (store.claim_next(MINUTE).await, store.claim_next(MINUTE).await);
    let (lost, _) = store.claim_next(NO_TIME).await;
    store.cancel(stopped.id).await.unwrap();
    store.recover(5).await.unwrap();
    let renewal = store.renew(&[lease(&kept), lease(&stopped), lease(&lost)], MINUTE).await.unwrap();
    assert_eq!(renewal, Renewal { lost: vec![lost.id], cancel_requested: vec![stopped.id] });
    let wrong_attempt = Lease { job: kept.id, attempt: 2 };
    assert_eq!(store.renew(&[wrong_attempt], MINUTE).await.unwrap().lost, [kept.id]);
}

#[tokio::test]
async fn a_suspect_runs_alone_and_nobody_overtakes_it() {
    let store = TestStore::new().await;
    let suspect = store.add("suspect").await;
    store.claim_next(NO_TIME).await;
    let innocent = store.add("innocent").await;
    store.recover(5).await.unwrap();

    assert_eq!(store.queue().await.unwrap(), [suspect, innocent]);
    assert_eq!(store.claim("worker", MINUTE, &BUSY, &Quotas::default()).await.unwrap(), ClaimOutcome::WaitsForEmptyDevice);
    let (job, alone) = store.claim_next(MINUTE).await;
    assert_eq!((job.id, alone), (suspect, true));
    let ClaimOutcome::Claimed { job, alone } = store.claim("worker", MINUTE, &BUSY, &Quotas::default()).await.unwrap() else {
        panic!()
    };
    assert_eq!((job.id, alone), (innocent, false));
}

#[tokio::test]
async fn only_deaths_while_alone_count_and_enough_of_them_end_the_job() {
    let store = TestStore::new().await;
    let id = store.add("a red house").await;
    // The first lease is lost in company, so it counts for nothing; the next two are lost alone.
    for attempt in 1..=2 {
        store.claim_next(NO_TIME).await;
        assert_eq!(store.recover(2).await.unwrap().ended, [], "attempt {attempt}");
        assert_eq!(store.job(id).await.status, JobStatus::Queued);
    }
    store.claim_next(NO_TIME).await;
    let ended = store.recover(2).await.unwrap().ended;
    assert_eq!(ended, [store.job(id).await]);
    let error = ended[0].error.clone().unwrap();
    assert_eq!((ended[0].status, error.code.as_str()), (JobStatus::Failed, "too_many_deaths"));
    assert_eq!(error.message, "the server died 2 times while this job ran alone");
    assert!(ended[0].finished_at.is_some());
}

#[tokio::test]
async fn a_released_job_keeps_its_place_and_its_good_name() {
    let store = TestStore::new().await;
    let (first, second) = (store.add("first").await, store.add("second").await);
    let (job, _) = store.claim_next(MINUTE).await;
    store.release(&lease(&job)).await.unwrap();
    assert_eq!(store.queue().await.unwrap(), [first, second]);
    assert_eq!(store.job(first).await.started_at, None);
    let ClaimOutcome::Claimed { job, alone } = store.claim("worker", MINUTE, &BUSY, &Quotas::default()).await.unwrap() else {
        panic!()
    };
    assert_eq!((job.id, job.attempts, alone), (first, 2, false));
}

#[tokio::test]
async fn a_released_suspect_stays_suspect_without_a_strike() {
    let store = TestStore::new().await;
    let id = store.add("a red house").await;
    store.claim_next(NO_TIME).await;
    store.recover(1).await.unwrap();
    let (job, _) = store.claim_next(MINUTE).await;
    store.release(&lease(&job)).await.unwrap();
    assert_eq!(store.claim("worker", MINUTE, &BUSY, &Quotas::default()).await.unwrap(), ClaimOutcome::WaitsForEmptyDevice);
    assert_eq!(store.recover(1).await.unwrap().ended, []);
    assert_eq!(store.job(id).await.status, JobStatus::Queued);
}
