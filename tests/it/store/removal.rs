//! Jobs that are removed, and what is remembered of them.

use base64::Engine as _;
use easel::{
    dispatch::ports::{JobStore, Removal, StoreError, Terms},
    domain::{IdempotencyKey, Job, JobStatus, Owner},
};
use jiff::{Timestamp, ToSpan};
use serde_json::json;

use super::{CAPACITY, MINUTE, NO_TIME, TestStore, job, job_of, lease, settlement, success};
use crate::support::terms;

fn in_an_hour() -> Timestamp {
    Timestamp::now().checked_add(1.hour()).unwrap()
}

#[tokio::test]
async fn a_removed_job_is_remembered_with_its_owner_until_it_is_forgotten() {
    let store = TestStore::new().await;
    let owned = Job { owner: Owner::named("ann"), ..job("a house") };
    store.insert(&owned, &terms(CAPACITY)).await.unwrap();
    let Some(Removal::Cancelled(gone)) = store.remove(owned.id).await.unwrap() else { panic!() };
    assert_eq!((gone.id, gone.status), (owned.id, JobStatus::Cancelled));
    assert_eq!((store.get(owned.id).await.unwrap(), store.has_job(owned.id).await.unwrap()), (None, false));
    assert_eq!(store.removed(owned.id).await.unwrap(), Some(Owner::named("ann")));
    store.forget(Timestamp::MIN, Timestamp::MIN).await.unwrap();
    assert!(store.removed(owned.id).await.unwrap().is_some());
    store.forget(in_an_hour(), Timestamp::MIN).await.unwrap();
    assert_eq!((store.removed(owned.id).await.unwrap(), store.remove(owned.id).await.unwrap()), (None, None));
}

#[tokio::test]
async fn a_picture_is_wanted_while_a_job_starts_from_it_as_image_or_as_mask() {
    let store = TestStore::new().await;
    let picture = |shade: u8| {
        let file = easel::domain::encode_png(&image::RgbImage::from_pixel(1, 1, image::Rgb([shade; 3])), None).unwrap();
        (base64::engine::general_purpose::STANDARD.encode(&file), easel::domain::sha256_hex(&file))
    };
    let ((one, one_sha256), (other, other_sha256)) = (picture(1), picture(2));
    let mut jobs = Vec::new();
    for (image, mask) in [(&one, &other), (&other, &other)] {
        let job = job_of(json!({"prompt": "a house", "image": image, "mask_image": mask}));
        store.insert(&job, &terms(CAPACITY)).await.unwrap();
        jobs.push(job.id);
    }
    let wanted = async || (store.has_input(&one_sha256).await.unwrap(), store.has_input(&other_sha256).await.unwrap());
    assert_eq!(wanted().await, (true, true));
    store.remove(jobs[0]).await.unwrap();
    assert_eq!(wanted().await, (false, true));
    store.remove(jobs[1]).await.unwrap();
    assert_eq!(wanted().await, (false, false));
}

#[tokio::test]
async fn a_running_job_is_gone_when_it_has_ended_whichever_way() {
    let store = TestStore::new().await;
    for number in 0..3 {
        store.add(&format!("house {number}")).await;
    }
    let (settled, _) = store.claim_next(MINUTE).await;
    let (released, _) = store.claim_next(MINUTE).await;
    let (lost, _) = store.claim_next(NO_TIME).await;
    for running in [&settled, &released, &lost] {
        assert!(matches!(store.remove(running.id).await.unwrap(), Some(Removal::Requested(_))));
        assert!(store.job(running.id).await.removal_requested);
    }
    let ended = store.settle(&lease(&settled), success()).await.unwrap();
    assert!(ended.removal_requested, "whoever settles must know that the pictures are to go");
    store.release(&lease(&released)).await.unwrap();
    store.recover(5).await.unwrap();
    for running in [settled, released, lost] {
        assert_eq!(store.get(running.id).await.unwrap(), None);
        assert_eq!(store.removed(running.id).await.unwrap(), Some(Owner::anonymous()));
    }
}

#[tokio::test]
async fn a_lease_on_a_job_that_is_gone_is_stale() {
    let store = TestStore::new().await;
    store.add("a house").await;
    let (claimed, _) = store.claim_next(MINUTE).await;
    store.settle(&lease(&claimed), success()).await.unwrap();
    store.remove(claimed.id).await.unwrap();
    assert!(matches!(store.settle(&lease(&claimed), success()).await, Err(StoreError::StaleLease { .. })));
}

#[tokio::test]
async fn what_ended_before_a_time_expires_oldest_first_and_the_rest_stays() {
    let store = TestStore::new().await;
    let mut ended = Vec::new();
    for year in [2024, 2022, 2023, 2025] {
        store.add("a house").await;
        let (claimed, _) = store.claim_next(MINUTE).await;
        let finished_at = format!("{year}-01-01T00:00:00Z").parse().unwrap();
        let end = easel::dispatch::ports::Settlement { finished_at, ..settlement(easel::dispatch::ports::Outcome::Cancelled) };
        store.settle(&lease(&claimed), end).await.unwrap();
        ended.push(claimed.id);
    }
    let waiting = store.add("still waits").await;
    let cut: Timestamp = "2024-06-01T00:00:00Z".parse().unwrap();
    assert_eq!(store.expire(cut, 2).await.unwrap(), [ended[1], ended[2]]);
    assert_eq!(store.expire(cut, 2).await.unwrap(), [ended[0]]);
    assert!(store.expire(cut, 2).await.unwrap().is_empty());
    assert!(store.has_job(ended[3]).await.unwrap() && store.has_job(waiting).await.unwrap());
}

#[tokio::test]
async fn an_idempotency_key_is_forgotten_after_its_time_and_not_before() {
    let store = TestStore::new().await;
    let key = IdempotencyKey { key: "k".to_owned(), body_sha256: "ab".repeat(32) };
    let terms = Terms { idempotency: Some(key.clone()), ..terms(CAPACITY) };
    store.insert(&job("a house"), &terms).await.unwrap();
    store.forget(Timestamp::MIN, Timestamp::MIN).await.unwrap();
    assert!(store.known(&Owner::anonymous(), &key).await.unwrap().is_some());
    assert_eq!(store.known(&Owner::named("ann"), &key).await.unwrap(), None, "each owner has its own keys");
    store.forget(Timestamp::MIN, in_an_hour()).await.unwrap();
    assert_eq!(store.known(&Owner::anonymous(), &key).await.unwrap(), None);
}
