//! Jobs of several models on a device that does not hold them all.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use easel::{
    dispatch::ports::JobStore,
    domain::{Event, JobId, JobStatus, Owner},
};
use serde_json::{Value, json};

use super::{Call, PATIENCE, Setup, Studio, shelf::Shelf, until};

/// A device that holds so many models, with none on it, and what lets its loads go on.
fn shelf_of(capacity: usize) -> (Setup, mpsc::Sender<()>) {
    let (gate, in_engine) = mpsc::channel();
    (Setup { shelf: Shelf::of(capacity, in_engine), ..Setup::default() }, gate)
}

fn of(model: &str, prompt: &str, steps: u32) -> Value {
    json!({"prompt": prompt, "model": model, "num_inference_steps": steps})
}

fn loads(calls: &[Call]) -> Vec<&str> {
    calls.iter().filter_map(|call| if let Call::Load(model) = call { Some(model.as_str()) } else { None }).collect()
}

async fn until_loading(studio: &mut Studio, model: &str) {
    while studio.next_call().await != Call::Load(model.to_owned()) {}
}

#[tokio::test]
async fn a_model_comes_on_its_first_use_and_stays() {
    let (setup, load) = shelf_of(2);
    drop(load);
    let studio = Studio::open(setup).await;
    for _ in 0..3 {
        let job = studio.submit(of("counter", "a house", 2)).await;
        assert_eq!(studio.end_of(job).await.job.status, JobStatus::Succeeded);
    }
    assert_eq!(loads(&studio.close().await), ["counter"]);
}

#[tokio::test]
async fn canvases_of_other_models_go_on_while_a_model_comes() {
    let (setup, load) = shelf_of(2);
    let mut studio = Studio::open(setup).await;
    load.send(()).unwrap();
    let first = studio.submit(of("counter", "first", 3)).await;
    studio.end_of(first).await;
    let waiting = studio.submit(of("second", "waits", 3)).await;
    until_loading(&mut studio, "second").await;
    // The load stands at its gate, and stays there until all of this is painted.
    for number in 0..3 {
        let job = studio.submit(of("counter", &format!("goes on {number}"), 3)).await;
        assert_eq!(studio.end_of(job).await.job.status, JobStatus::Succeeded);
    }
    assert_eq!(studio.dispatcher.job(&Owner::anonymous(), waiting).await.unwrap().job.status, JobStatus::Running);
    drop(load);
    assert_eq!(studio.end_of(waiting).await.job.status, JobStatus::Succeeded);
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_fails_its_jobs_and_no_other() {
    let (setup, load) = shelf_of(2);
    let mut studio = Studio::open(setup).await;
    let broken = [studio.submit(of("broken", "one", 3)).await, studio.submit(of("broken", "two", 3)).await];
    until_loading(&mut studio, "broken").await;
    let good = studio.submit(of("counter", "a house", 3)).await;
    drop(load);
    for id in broken {
        let job = studio.end_of(id).await.job;
        assert_eq!((job.status, job.error.as_ref().unwrap().code.as_str()), (JobStatus::Failed, "engine_panicked"));
    }
    assert_eq!(studio.end_of(good).await.job.status, JobStatus::Succeeded);
    assert!(studio.dispatcher.readiness().await.engine);
}

#[tokio::test]
async fn a_job_is_cancelled_while_its_model_comes() {
    let (setup, load) = shelf_of(1);
    let mut studio = Studio::open(setup).await;
    let job = studio.submit(of("counter", "a house", 3)).await;
    until_loading(&mut studio, "counter").await;
    studio.dispatcher.cancel(&Owner::anonymous(), job).await.unwrap();
    // The load goes on behind the gate.
    assert_eq!(studio.end_of(job).await.job.status, JobStatus::Cancelled);
    drop(load);
    let next = studio.submit(of("counter", "a tree", 3)).await;
    assert_eq!(studio.end_of(next).await.job.status, JobStatus::Succeeded);
    assert_eq!(loads(&studio.close().await), [""; 0], "the model had come for the job that was cancelled");
}

#[tokio::test]
async fn jobs_that_alternate_between_two_models_share_loads_when_one_fits() {
    let (setup, load) = shelf_of(1);
    drop(load);
    let mut studio = Studio::closed(setup).await;
    let mut jobs: Vec<JobId> = Vec::new();
    for number in 0..20 {
        let model = ["counter", "second"][number % 2];
        jobs.push(studio.submit(of(model, &format!("{model} {number}"), 3)).await);
    }
    studio.load();
    studio.open_gate();
    for id in jobs {
        assert_eq!(studio.end_of(id).await.job.status, JobStatus::Succeeded);
    }
    assert_eq!(loads(&studio.close().await), ["counter", "second"]);
}

#[tokio::test]
async fn a_busy_model_is_not_disturbed_before_the_other_has_waited_its_time() {
    let (setup, load) = shelf_of(1);
    drop(load);
    let mut studio = Studio::gated(setup).await;
    let first = studio.submit(of("counter", "first", 5)).await;
    assert_eq!(studio.next_step().await, ["first"]);
    let other = studio.submit(of("second", "other", 5)).await;
    let second = studio.submit_in_company(of("counter", "second", 5)).await;
    assert_eq!(studio.dispatcher.job(&Owner::anonymous(), other).await.unwrap().job.status, JobStatus::Queued);
    studio.open_gate();
    for id in [first, second, other] {
        assert_eq!(studio.end_of(id).await.job.status, JobStatus::Succeeded);
    }
    assert_eq!(loads(&studio.close().await), ["second"]);
}

#[tokio::test]
async fn a_job_whose_time_has_come_lets_nobody_of_the_busy_model_in_until_it_has_begun() {
    let (mut setup, load) = shelf_of(1);
    drop(load);
    setup.settings.model_stay = Duration::ZERO;
    let mut studio = Studio::gated(setup).await;
    let first = studio.submit(of("counter", "first", 20)).await;
    assert_eq!(studio.next_step().await, ["first"]);
    let other = studio.submit_in_company(of("second", "other", 3)).await;
    let mut events = studio.dispatcher.subscribe(other).events;
    while !events.try_recv().is_ok_and(|numbered| matches!(numbered.event, Event::Started)) {
        studio.let_one_step_through();
        assert_eq!(studio.next_step().await, ["first"]);
    }
    // The device has the order, and says before its next step which model must leave.
    studio.let_one_step_through();
    assert_eq!(studio.next_step().await, ["first"]);
    let late = studio.submit(of("counter", "late", 3)).await;
    studio.open_gate();
    for id in [first, other, late] {
        assert_eq!(studio.end_of(id).await.job.status, JobStatus::Succeeded);
    }
    let calls = studio.close().await;
    let steps: Vec<Vec<String>> =
        calls.into_iter().filter_map(|call| if let Call::Step(prompts) = call { Some(prompts) } else { None }).collect();
    let place = |prompt: &str| steps.iter().position(|prompts| prompts.iter().any(|other| other == prompt)).unwrap();
    assert!(place("other") < place("late"));
    assert!(steps.iter().all(|prompts| prompts.len() == 1), "no two models share the device that holds one");
}

#[tokio::test]
async fn a_drain_takes_back_the_jobs_whose_model_does_not_come() {
    let (mut setup, load) = shelf_of(1);
    setup.settings.drain = Duration::ZERO;
    let mut studio = Studio::open(setup).await;
    let job = studio.submit(of("counter", "a house", 3)).await;
    until_loading(&mut studio, "counter").await;
    let Studio { workers, store, .. } = studio;
    let drained = tokio::spawn(workers.drain());
    until(async || store.get(job).await.unwrap().unwrap().status == JobStatus::Queued).await;
    drop(load);
    drained.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_model_that_nobody_uses_leaves_before_a_job_fails_for_want_of_memory() {
    let (setup, load) = shelf_of(2);
    drop(load);
    let studio = Studio::open(Setup { memory: 1, ..setup }).await;
    for model in ["counter", "second", "counter"] {
        let job = studio.submit(of(model, model, 3)).await;
        assert_eq!(studio.end_of(job).await.job.status, JobStatus::Succeeded);
    }
    let mut calls = studio.close().await;
    assert_eq!(loads(&calls), ["counter", "second", "counter"], "one canvas and one idle model are too much");
    calls.retain(|call| matches!(call, Call::Begin(..)));
    assert_eq!(calls.len(), 5, "what had no room at first was tried again at once");
}

#[tokio::test]
async fn a_drain_waits_for_no_model_that_nobody_wants_any_more() {
    let (mut setup, load) = shelf_of(1);
    setup.settings.drain = 10 * PATIENCE;
    let mut studio = Studio::open(setup).await;
    let job = studio.submit(of("counter", "a house", 3)).await;
    until_loading(&mut studio, "counter").await;
    studio.dispatcher.cancel(&Owner::anonymous(), job).await.unwrap();
    assert_eq!(studio.end_of(job).await.job.status, JobStatus::Cancelled);
    tokio::time::timeout(PATIENCE, studio.workers.drain()).await.unwrap().unwrap();
    drop(load);
}

#[tokio::test]
async fn a_client_of_one_job_at_a_time_finds_its_model_still_there() {
    let (mut setup, load) = shelf_of(1);
    drop(load);
    setup.shelf.rests_until = Some(Instant::now() + 10 * PATIENCE);
    setup.settings.model_stay = 10 * PATIENCE;
    let studio = Studio::open(setup).await;
    let first = studio.submit(of("counter", "first", 3)).await;
    studio.end_of(first).await;
    let other = studio.submit(of("second", "other", 3)).await;
    for number in 0..3 {
        let next = studio.submit(of("counter", &format!("next {number}"), 3)).await;
        assert_eq!(studio.end_of(next).await.job.status, JobStatus::Succeeded);
    }
    assert_eq!(studio.dispatcher.job(&Owner::anonymous(), other).await.unwrap().job.status, JobStatus::Queued);
    assert_eq!(loads(&studio.close().await), ["counter"]);
}

#[tokio::test]
async fn a_model_that_has_rested_keeps_nobody_waiting() {
    let (mut setup, load) = shelf_of(1);
    drop(load);
    setup.shelf.rests_until = Some(Instant::now());
    setup.settings.model_stay = 10 * PATIENCE;
    let studio = Studio::open(setup).await;
    for model in ["counter", "second"] {
        let job = studio.submit(of(model, model, 3)).await;
        assert_eq!(studio.end_of(job).await.job.status, JobStatus::Succeeded);
    }
    studio.close().await;
}
