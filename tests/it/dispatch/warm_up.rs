//! Pictures that are painted for nobody.

use easel::dispatch::ports::JobStore;
use serde_json::json;

use super::{Call, Setup, Studio, many_steps, shelf::MODELS};

fn warm() -> Setup {
    let mut setup = Setup::default();
    setup.settings.warm_up = Some(true);
    setup
}

fn steps_of(calls: &[Call]) -> Vec<usize> {
    let canvases = |call: &Call| if let Call::Step(prompts) = call { Some(prompts.len()) } else { None };
    calls.iter().filter_map(canvases).collect()
}

#[tokio::test]
async fn a_device_that_nobody_wants_warms_up_with_more_and_more_pictures_and_knows_then_what_jobs_take() {
    let mut studio = Studio::open(warm()).await;
    let mut calls = Vec::new();
    // The first model is warm when the last of its numbers of pictures is done.
    while calls.iter().filter(|call| matches!(call, Call::Finish(_))).count() < 4 {
        calls.push(studio.next_call().await);
    }
    assert_eq!(steps_of(&calls), [[1; 2], [2; 2], [4; 2], [8; 2]].concat());
    let seconds = studio.metrics.step_estimate_seconds.with_label_values(&["counter", "16"]).get();
    assert!((seconds - 0.00001).abs() < 1e-9, "{seconds}");
    studio.close().await;
}

#[tokio::test]
async fn a_job_that_comes_while_the_device_warms_up_waits_for_one_call_and_ends_that() {
    let mut studio = Studio::gated(warm()).await;
    assert_eq!(studio.next_step().await, [""]);
    let job = studio.submit_in_company(json!({"prompt": "a house", "num_inference_steps": 6})).await;
    studio.until_sent().await;
    studio.let_one_step_through();
    assert_eq!(studio.next_step().await, ["a house"]);
    studio.open_gate();
    studio.end_of(job).await;
    let calls = studio.close().await;
    assert!(!calls.contains(&Call::Step(vec![String::new()])), "what had to make room does not come back: {calls:?}");
}

#[tokio::test]
async fn a_drain_ends_a_warm_up() {
    let Studio { workers, mut calls, gate, loading, store, folder: _folder, .. } = Studio::gated(warm()).await;
    let gate = gate.unwrap();
    drop(loading);
    let drained = tokio::spawn(workers.drain());
    let mut steps = 0;
    while let Some(call) = calls.recv().await {
        if matches!(call, Call::Step(_)) {
            // Time enough for the claimer to hear of the drain.
            store.counts().await.unwrap();
            steps += 1;
            gate.send(()).unwrap();
        }
    }
    drained.await.unwrap().unwrap();
    let all = MODELS.len() * 2 * 4;
    assert!(steps < all, "{steps} steps of the {all} that it takes to warm up in two steps of 1, 2, 4 and 8 pictures");
}

#[tokio::test]
async fn a_device_that_is_not_to_warm_up_waits_for_jobs() {
    let mut studio = Studio::gated(Setup::default()).await;
    studio.submit(many_steps("first")).await;
    assert_eq!(studio.next_call().await, Call::Begin("first".to_owned(), 0..1));
    studio.open_gate();
    studio.close().await;
}
