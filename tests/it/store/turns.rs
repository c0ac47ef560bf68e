//! Whose turn it is: priorities, ageing, quotas, pauses.

use std::{collections::BTreeMap, time::Duration};

use easel::{
    dispatch::ports::{ClaimOutcome, JobStore, Quota, Quotas, StoreError, Terms},
    domain::{Job, JobId, Owner},
};
use serde_json::json;

use super::{CAPACITY, MINUTE, TestStore, job, job_of, lease, success};
use crate::support::{IDLE, terms};

async fn add(store: &TestStore, priority: u8) -> JobId {
    let job = job_of(json!({"prompt": "a house", "priority": priority}));
    store.insert(&job, &terms(CAPACITY)).await.unwrap();
    job.id
}

async fn add_for(store: &TestStore, owner: &str) -> JobId {
    let job = Job { owner: Owner::named(owner), ..job("a house") };
    store.insert(&job, &terms(CAPACITY)).await.unwrap();
    job.id
}

/// As if everything that waits had come so much earlier.
async fn let_pass(store: &TestStore, minutes: i64) {
    let earlier = sqlx::query("UPDATE jobs SET arrived_ms = arrived_ms - ?1, turn_ms = turn_ms - ?1").bind(minutes * 60_000);
    earlier.execute(&mut store.connect().await).await.unwrap();
}

#[tokio::test]
async fn a_higher_priority_goes_first() {
    let store = TestStore::new().await;
    let (low, middle, high) = (add(&store, 0).await, add(&store, 5).await, add(&store, 9).await);
    assert_eq!(store.queue().await.unwrap(), [high, middle, low]);
    assert_eq!(store.queue_position(low).await.unwrap(), Some(3));
    assert_eq!(store.claim_next(MINUTE).await.0.id, high);
}

#[tokio::test]
async fn waiting_makes_up_for_priority_so_that_nothing_starves() {
    let store = TestStore::new().await;
    let low = add(&store, 0).await;
    let_pass(&store, 8).await;
    let early = add(&store, 9).await;
    assert_eq!(store.queue().await.unwrap(), [early, low], "nine steps are worth nine minutes");
    let_pass(&store, 2).await;
    let late = add(&store, 9).await;
    assert_eq!(store.queue().await.unwrap(), [early, low, late]);
}

#[tokio::test]
async fn a_clock_that_was_set_back_while_the_server_was_away_lets_nobody_overtake() {
    let store = TestStore::new().await;
    let first = add(&store, 5).await;
    let_pass(&store, -60).await;
    let store = store.after_a_crash().await;
    let second = add(&store, 5).await;
    assert_eq!(store.queue().await.unwrap(), [first, second]);
}

#[tokio::test]
async fn a_job_that_is_given_back_keeps_its_turn() {
    let store = TestStore::new().await;
    let (first, second) = (add(&store, 5).await, add(&store, 5).await);
    let (claimed, _) = store.claim_next(MINUTE).await;
    store.release(&lease(&claimed)).await.unwrap();
    assert_eq!(store.queue().await.unwrap(), [first, second]);
}

#[tokio::test]
async fn an_owner_who_runs_as_much_as_it_may_is_overtaken() {
    let store = TestStore::new().await;
    let (first, waiting) = (add_for(&store, "ann").await, add_for(&store, "ann").await);
    let others = [add_for(&store, "bob").await, add_for(&store, "bob").await, add_for(&store, "bob").await];
    let one = Quota { max_running_jobs: Some(1), ..Quota::default() };
    let two = Quota { max_running_jobs: Some(2), ..Quota::default() };
    let quotas = Quotas { everyone: two, named: BTreeMap::from([(Owner::named("ann"), one)]) };
    let mut claimed = Vec::new();
    while let ClaimOutcome::Claimed { job, .. } = store.claim("worker", MINUTE, &IDLE, &quotas).await.unwrap() {
        claimed.push(job);
    }
    assert_eq!(claimed.iter().map(|job| job.id).collect::<Vec<_>>(), [first, others[0], others[1]]);
    store.settle(&lease(&claimed[0]), success()).await.unwrap();
    let ClaimOutcome::Claimed { job, .. } = store.claim("worker", MINUTE, &IDLE, &quotas).await.unwrap() else { panic!() };
    assert_eq!(job.id, waiting);
}

#[tokio::test]
async fn an_owner_whose_part_of_the_queue_is_full_is_turned_away_and_others_are_not() {
    let store = TestStore::new().await;
    let terms = Terms { owner_capacity: Some(1), ..terms(2) };
    let of = |name: &str| Job { owner: Owner::named(name), ..job("a house") };
    store.insert(&of("ann"), &terms).await.unwrap();
    assert!(matches!(store.insert(&of("ann"), &terms).await, Err(StoreError::OwnerQueueFull { capacity: 1 })));
    store.insert(&of("bob"), &terms).await.unwrap();
    assert!(matches!(store.insert(&of("eve"), &terms).await, Err(StoreError::QueueFull { capacity: 2 })));
}

#[tokio::test]
async fn a_paused_queue_gives_nothing_to_claim() {
    let store = TestStore::new().await;
    let id = store.add("a house").await;
    store.set_paused(true).await.unwrap();
    assert_eq!(store.claim("worker", MINUTE, &IDLE, &Quotas::default()).await.unwrap(), ClaimOutcome::Paused);
    let store = store.after_a_crash().await;
    assert!(store.is_paused().await.unwrap());
    store.set_paused(false).await.unwrap();
    assert_eq!(store.claim_next(Duration::from_secs(1)).await.0.id, id);
}
