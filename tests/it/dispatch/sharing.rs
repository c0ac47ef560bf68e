//! Who shares the device with whom.

use std::{sync::Arc, time::Duration};

use easel::{
    dispatch::ports::{ClaimOutcome, JobStore, Quotas},
    domain::{Job, JobStatus, Owner},
    store::SqliteStore,
};
use serde_json::json;

use super::{Call, Costs, Setup, Studio, many_steps, prompt, submission};
use crate::support::{IDLE, terms};

#[tokio::test]
async fn a_job_joins_at_the_next_step_and_leaves_when_its_own_steps_are_done() {
    let mut studio = Studio::gated(Setup::default()).await;
    let long = studio.submit(many_steps("long")).await;
    // What one canvas takes is known after two steps; then others join.
    for _ in 0..2 {
        assert_eq!(studio.next_step().await, ["long"]);
        studio.let_one_step_through();
    }
    assert_eq!(studio.next_step().await, ["long"]);
    let short = studio.submit_in_company(json!({"prompt": "short", "num_inference_steps": 2})).await;
    studio.let_one_step_through();
    studio.gather(2).await;
    studio.let_one_step_through();
    assert_eq!(studio.next_step().await, ["long", "short"]);
    studio.let_one_step_through();
    assert_eq!(studio.next_call().await, Call::Finish(vec!["short".to_owned()]));
    assert_eq!(studio.next_step().await, ["long"]);
    assert_eq!(studio.end_of(short).await.job.status, JobStatus::Succeeded);
    assert_eq!(studio.dispatcher.job(&Owner::anonymous(), long).await.unwrap().job.status, JobStatus::Running);
    studio.open_gate();
    assert_eq!(studio.end_of(long).await.job.status, JobStatus::Succeeded);
}

#[tokio::test]
async fn jobs_of_other_sizes_take_turns() {
    let costs = Costs { step: 0.5, ..Costs::default() };
    let mut studio = Studio::gated(Setup { costs, ..Setup::default() }).await;
    studio.submit(json!({"prompt": "small", "num_inference_steps": 150})).await;
    studio.next_step().await;
    studio.submit_in_company(json!({"prompt": "large", "num_inference_steps": 150, "width": 128})).await;
    studio.let_one_step_through();
    studio.step_until(|prompts| prompts == ["large"]).await;
    for turn in ["small", "large", "small", "large"] {
        studio.let_one_step_through();
        assert_eq!(studio.next_step().await, [turn]);
    }
}

#[tokio::test]
async fn a_job_of_more_pictures_than_the_device_holds_is_painted_in_groups() {
    let mut setup = Setup::default();
    setup.settings.max_canvases = 2;
    let studio = Studio::open(setup).await;
    // Two go together when it is known what one takes.
    let first = studio.submit(prompt("first")).await;
    studio.end_of(first).await;
    let job = studio.submit(json!({"prompt": "a house", "num_inference_steps": 3, "num_images": 5, "seed": 40})).await;
    let ended = studio.end_of(job).await.job;
    let seeds: Vec<(u32, u64)> = ended.images.iter().map(|image| (image.index, image.seed)).collect();
    assert_eq!(seeds, [(0, 40), (1, 41), (2, 42), (3, 43), (4, 44)]);
    assert_eq!(ended.warnings, ["a remark"], "said once, not once a group");
    let calls = studio.close().await;
    let largest = calls.iter().map(|call| if let Call::Step(prompts) = call { prompts.len() } else { 0 }).max();
    assert_eq!(largest, Some(2));
    let begun: Vec<_> =
        calls.into_iter().filter_map(|call| if let Call::Begin(_, images) = call { Some(images) } else { None }).collect();
    assert_eq!(begun, [0..1, 0..2, 2..4, 4..5]);
}

#[tokio::test]
async fn no_more_is_claimed_than_the_device_has_room_for() {
    let mut setup = Setup::default();
    setup.settings.max_canvases = 2;
    let mut studio = Studio::closed(setup).await;
    for name in ["a", "b", "c"] {
        studio.submit(many_steps(name)).await;
    }
    studio.load();
    studio.gather(2).await;
    let counts = studio.dispatcher.queue().await.unwrap();
    assert_eq!((counts.queued, counts.running), (1, 2));
}

#[tokio::test]
async fn a_suspect_has_the_device_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&format!("sqlite://{}/easel.db", folder.path().display())).await.unwrap());
    let suspect = Job::queued(&submission(prompt("suspect")), "request");
    store.insert(&suspect, &terms(10)).await.unwrap();
    let claimed = store.claim("a dead server", Duration::ZERO, &IDLE, &Quotas::default()).await.unwrap();
    assert!(matches!(claimed, ClaimOutcome::Claimed { .. }));
    store.recover(5).await.unwrap();
    let mut studio = Studio::with_store(Setup::default(), store, folder).await;
    let innocent = studio.submit(prompt("innocent")).await;
    studio.load();
    studio.open_gate();
    for id in [suspect.id, innocent] {
        assert_eq!(studio.end_of(id).await.job.status, JobStatus::Succeeded);
    }
    let calls = studio.close().await;
    let steps: Vec<_> =
        calls.into_iter().filter_map(|call| if let Call::Step(prompts) = call { Some(prompts) } else { None }).collect();
    let alone: Vec<_> = ["suspect"; 6].into_iter().chain(["innocent"; 6]).map(|prompt| vec![prompt]).collect();
    assert_eq!(steps, alone);
}

#[tokio::test]
async fn large_pictures_begin_and_step_only_as_many_at_a_time_as_their_pixels_allow() {
    let mut setup = Setup::default();
    setup.settings.step.pixels = 2 * 2 * 256 * 256;
    let studio = Studio::open(setup).await;
    let body = json!({"prompt": "a house", "num_inference_steps": 3, "num_images": 5, "width": 256, "height": 256});
    let job = studio.submit(body).await;
    assert_eq!(studio.end_of(job).await.job.images.len(), 5);
    let largest = studio.close().await.into_iter().map(|call| match call {
        Call::Begin(_, images) => images.len(),
        Call::Step(prompts) => prompts.len(),
        Call::Finish(_) | Call::Load(_) => 0,
    });
    assert_eq!(largest.max(), Some(2));
}
