//! Jobs that wait.

use std::collections::HashSet;

use easel::{
    dispatch::ports::{ClaimOutcome, JobCounts, JobStore, Quotas, StoreError},
    domain::{JobId, JobStatus, encode_png},
};
use futures::future::join_all;
use serde_json::json;

use super::{CAPACITY, MINUTE, TestStore, job, job_of, lease, success};
use crate::support::{IDLE, terms};

#[tokio::test]
async fn a_job_comes_back_as_it_was_stored() {
    let store = TestStore::new().await;
    let picture = encode_png(&image::RgbImage::new(64, 72), None).unwrap();
    let mut stored = job_of(json!({
        "prompt": "a red house, \"quoted\" and 赤い家", "negative_prompt": "", "guidance_scale": 6.3730269999999996, "num_images": 3,
        "image": base64::Engine::encode(&base64::engine::general_purpose::STANDARD, picture), "strength": 0.9402539999999999,
        "metadata": {"order": "17"},
    }));
    stored.created_at = "2026-01-02T03:04:05.000000001Z".parse().unwrap();
    stored.warnings = vec!["a remark".to_owned()];
    store.insert(&stored, &terms(CAPACITY)).await.unwrap();
    assert!(stored.request.img2img.is_some());
    assert_eq!(store.get(stored.id).await.unwrap(), Some(stored));
}

#[tokio::test]
async fn a_job_that_nobody_stored_is_none() {
    let store = TestStore::new().await;
    assert_eq!(store.get(JobId::random()).await.unwrap(), None);
    assert_eq!(store.queue_position(JobId::random()).await.unwrap(), None);
    assert_eq!(store.cancel(JobId::random()).await.unwrap(), None);
    assert_eq!(store.claim("worker", MINUTE, &IDLE, &Quotas::default()).await.unwrap(), ClaimOutcome::Empty);
}

#[tokio::test]
async fn jobs_are_claimed_in_the_order_of_their_posts_whatever_the_clock_says() {
    let store = TestStore::new().await;
    let mut ids = Vec::new();
    for year in [2026, 2024, 2025] {
        let mut job = job("a red house");
        job.created_at = format!("{year}-01-01T00:00:00Z").parse().unwrap();
        store.insert(&job, &terms(CAPACITY)).await.unwrap();
        ids.push(job.id);
    }
    assert_eq!(store.queue().await.unwrap(), ids);
    for id in ids {
        let (claimed, alone) = store.claim_next(MINUTE).await;
        assert_eq!((claimed.id, claimed.status, claimed.attempts, alone), (id, JobStatus::Running, 1, false));
        assert!(claimed.started_at.is_some());
        assert_eq!(store.job(id).await, claimed);
    }
}

#[tokio::test]
async fn positions_count_from_one_and_move_up() {
    let store = TestStore::new().await;
    let (first, second) = (store.add("first").await, store.add("second").await);
    assert_eq!(store.queue_position(first).await.unwrap(), Some(1));
    assert_eq!(store.queue_position(second).await.unwrap(), Some(2));
    store.claim_next(MINUTE).await;
    assert_eq!(store.queue_position(first).await.unwrap(), None);
    assert_eq!(store.queue_position(second).await.unwrap(), Some(1));
}

#[tokio::test]
async fn counts_tell_who_waits_and_who_runs() {
    let store = TestStore::new().await;
    for prompt in ["one", "two", "three"] {
        store.add(prompt).await;
    }
    let (first, _) = store.claim_next(MINUTE).await;
    store.claim_next(MINUTE).await;
    assert_eq!(store.counts().await.unwrap(), JobCounts { queued: 1, running: 2 });
    store.settle(&lease(&first), success()).await.unwrap();
    assert_eq!(store.counts().await.unwrap(), JobCounts { queued: 1, running: 1 });
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_posts_at_once_never_overfill_the_queue() {
    let store = TestStore::new().await;
    let jobs: Vec<_> = (0..50).map(|number| job(&format!("house {number}"))).collect();
    let few = terms(20);
    let answers = join_all(jobs.iter().map(|job| store.insert(job, &few))).await;
    let full = answers.iter().filter(|answer| matches!(answer, Err(StoreError::QueueFull { capacity: 20 }))).count();
    assert_eq!((full, answers.iter().filter(|answer| answer.is_ok()).count()), (30, 20));
    let accepted: HashSet<JobId> = jobs.iter().zip(&answers).filter(|(_, answer)| answer.is_ok()).map(|(job, _)| job.id).collect();
    assert_eq!(store.queue().await.unwrap().into_iter().collect::<HashSet<_>>(), accepted);
}

#[tokio::test]
async fn running_jobs_take_no_place_in_the_queue() {
    let store = TestStore::new().await;
    store.insert(&job("one"), &terms(1)).await.unwrap();
    assert!(matches!(store.insert(&job("two"), &terms(1)).await, Err(StoreError::QueueFull { capacity: 1 })));
    store.claim_next(MINUTE).await;
    store.insert(&job("two"), &terms(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_claims_get_the_same_job() {
    let store = TestStore::new().await;
    for number in 0..20 {
        store.add(&format!("house {number}")).await;
    }
    let quotas = Quotas::default();
    let claims = join_all((0..30).map(|_| store.claim("worker", MINUTE, &IDLE, &quotas))).await;
    let mut claimed = HashSet::new();
    for claim in claims {
        match claim.unwrap() {
            ClaimOutcome::Claimed { job, .. } => assert!(claimed.insert(job.id), "{} was claimed twice", job.id),
            other => assert_eq!(other, ClaimOutcome::Empty),
        }
    }
    assert_eq!(claimed.len(), 20);
}
