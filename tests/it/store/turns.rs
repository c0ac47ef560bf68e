//! Whose turn it is: priorities, ageing, quotas, pauses.

use std::{collections::BTreeMap, time::Duration};

use easel::{
    dispatch::ports::{ClaimOutcome, DeviceView, JobStore, ModelStanding, ModelTurns, Quota, Quotas, StoreError, Terms},
    domain::{GenerationRequest, Job, JobId, Owner, Refiner},
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

/// A busy device with one model on it, beside which the other does not fit.
fn one_model_here(here: &str, away: &str) -> DeviceView {
    let on_device = ModelStanding { bytes: 1, is_here: true, is_busy: true, leaves: false };
    let elsewhere = ModelStanding { bytes: 1, ..ModelStanding::default() };
    let models = BTreeMap::from([(here.to_owned(), on_device), (away.to_owned(), elsewhere)]);
    DeviceView { is_empty: false, models: ModelTurns { stay: MINUTE, models, memory: Some(1) } }
}

async fn add_of(store: &TestStore, model: &str, owner: &str) -> JobId {
    let mut job = Job { owner: Owner::named(owner), ..job("a house") };
    job.request.model = model.to_owned();
    store.insert(&job, &terms(CAPACITY)).await.unwrap();
    job.id
}

async fn claim_on(store: &TestStore, device: &DeviceView) -> Option<JobId> {
    match store.claim("worker", MINUTE, device, &Quotas::default()).await.unwrap() {
        ClaimOutcome::Claimed { job, .. } => Some(job.id),
        other => {
            assert_eq!(other, ClaimOutcome::Empty);
            None
        }
    }
}

#[tokio::test]
async fn jobs_of_the_model_that_is_here_go_first_until_the_others_have_waited_their_time() {
    let store = TestStore::new().await;
    let away = add_of(&store, "away", "").await;
    let here = [add_of(&store, "here", "").await, add_of(&store, "here", "").await];
    let device = one_model_here("here", "away");
    assert_eq!(claim_on(&store, &device).await, Some(here[0]));
    assert_eq!(claim_on(&store, &device).await, Some(here[1]));
    assert_eq!(claim_on(&store, &device).await, None, "more work for the model that is here may come");
    let_pass(&store, 2).await;
    let late = add_of(&store, "here", "").await;
    assert_eq!(claim_on(&store, &device).await, Some(away));
    assert_eq!(claim_on(&store, &device).await, Some(late));
}

#[tokio::test]
async fn a_job_waits_whose_refiner_is_away_though_its_model_is_here() {
    let store = TestStore::new().await;
    let refined = |refiner: &str| {
        let refiner = Some(Refiner { refiner: refiner.to_owned(), refiner_start: 0.5 });
        let mut job = job("a house");
        job.request = GenerationRequest { model: "here".to_owned(), refiner, ..job.request };
        job
    };
    let (by_another, by_itself) = (refined("away"), refined("here"));
    for job in [&by_another, &by_itself] {
        store.insert(job, &terms(CAPACITY)).await.unwrap();
    }
    let mut device = one_model_here("here", "away");
    device.models.models.insert("another".to_owned(), device.models.models["here"]);
    device.models.memory = Some(2);
    assert_eq!(claim_on(&store, &device).await, Some(by_itself.id));
    assert_eq!(claim_on(&store, &device).await, None);
    let_pass(&store, 2).await;
    assert_eq!(claim_on(&store, &device).await, Some(by_another.id));
}

#[tokio::test]
async fn every_model_has_its_first_job_looked_at_and_no_owner_more_than_its_due() {
    let store = TestStore::new().await;
    let running = add_of(&store, "here", "ann").await;
    assert_eq!(store.claim_next(MINUTE).await.0.id, running);
    add_of(&store, "here", "ann").await;
    let (other, later) = (add_of(&store, "other", "bob").await, add_of(&store, "here", "bob").await);
    let quotas = Quotas { everyone: Quota { max_running_jobs: Some(1), ..Quota::default() }, ..Quotas::default() };
    let device = one_model_here("here", "nobody's");
    let ClaimOutcome::Claimed { job, .. } = store.claim("worker", MINUTE, &device, &quotas).await.unwrap() else { panic!() };
    assert_eq!(job.id, later, "ann runs as much as she may");
    assert_eq!(store.claim("worker", MINUTE, &device, &quotas).await.unwrap(), ClaimOutcome::Empty);
    assert!(claim_on(&store, &device).await.is_some());
    assert_eq!(claim_on(&store, &device).await, Some(other));
}

#[tokio::test]
async fn a_suspect_of_another_model_waits_for_an_empty_device_and_is_overtaken_no_more() {
    let store = TestStore::new().await;
    let suspect = add_of(&store, "away", "").await;
    store.claim_next(Duration::ZERO).await;
    store.recover(5).await.unwrap();
    let_pass(&store, 2).await;
    add_of(&store, "here", "").await;
    let device = one_model_here("here", "away");
    let claimed = store.claim("worker", MINUTE, &device, &Quotas::default()).await.unwrap();
    assert_eq!(claimed, ClaimOutcome::WaitsForEmptyDevice);
    let empty = DeviceView { is_empty: true, ..device };
    let claimed = store.claim("worker", MINUTE, &empty, &Quotas::default()).await.unwrap();
    assert!(matches!(claimed, ClaimOutcome::Claimed { job, alone: true } if job.id == suspect));
}
