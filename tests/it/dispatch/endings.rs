//! Cancelling, draining, losing a lease.

use std::time::Duration;

use easel::{
    dispatch::{
        DispatchError,
        ports::{JobStore, Lease, Outcome, Settlement},
    },
    domain::{JobStatus, Origin, Owner, Timings},
};

use super::{Call, Setup, Studio, many_steps, prompt, submission, until};

#[tokio::test]
async fn a_cancelled_job_stops_at_the_next_step() {
    let mut studio = Studio::gated(Setup::default()).await;
    let job = studio.submit(many_steps("a house")).await;
    for _ in 0..3 {
        assert_eq!(studio.next_step().await, ["a house"]);
        studio.let_one_step_through();
    }
    studio.next_step().await;
    let asked = studio.dispatcher.cancel(&Owner::anonymous(), job).await.unwrap().job;
    assert_eq!((asked.status, asked.cancel_requested), (JobStatus::Running, true));
    studio.let_one_step_through();
    assert_eq!(studio.end_of(job).await.job.status, JobStatus::Cancelled);
    assert!(studio.close().await.is_empty(), "no step and no decoding may follow");
}

#[tokio::test]
async fn a_job_that_is_cancelled_in_its_last_step_is_not_decoded() {
    let mut studio = Studio::gated(Setup::default()).await;
    let job = studio.submit(serde_json::json!({"prompt": "a house", "num_inference_steps": 1})).await;
    studio.next_step().await;
    studio.dispatcher.cancel(&Owner::anonymous(), job).await.unwrap();
    studio.open_gate();
    assert_eq!(studio.end_of(job).await.job.status, JobStatus::Cancelled);
    assert!(studio.close().await.is_empty());
}

#[tokio::test]
async fn a_job_that_is_cancelled_while_it_waits_never_begins() {
    let mut studio = Studio::closed(Setup::default()).await;
    let cancelled = studio.submit(prompt("never")).await;
    let mut events = studio.dispatcher.subscribe(cancelled).events;
    assert_eq!(studio.dispatcher.cancel(&Owner::anonymous(), cancelled).await.unwrap().job.status, JobStatus::Cancelled);
    assert!(matches!(events.recv().await.unwrap().event, easel::domain::Event::Finished(_)));
    assert!(matches!(studio.dispatcher.cancel(&Owner::anonymous(), cancelled).await, Err(DispatchError::AlreadyFinished(_))));
    let painted = studio.submit(prompt("a house")).await;
    studio.load();
    studio.open_gate();
    assert_eq!(studio.end_of(painted).await.job.status, JobStatus::Succeeded);
    assert!(studio.close().await.iter().all(|call| !matches!(call, Call::Begin(prompt, _) if prompt == "never")));
}

#[tokio::test]
async fn a_job_that_is_cancelled_between_its_claim_and_the_device_never_begins() {
    let mut studio = Studio::gated(Setup::default()).await;
    let first = studio.submit(many_steps("a house")).await;
    studio.next_step().await;
    // The device stands at the gate: the second job can be claimed, but not taken.
    let second = studio.submit_in_company(prompt("never")).await;
    studio.dispatcher.cancel(&Owner::anonymous(), second).await.unwrap();
    studio.let_one_step_through();
    let dispatcher = studio.dispatcher.clone();
    let end = tokio::spawn(async move { dispatcher.wait(&Owner::anonymous(), second, super::PATIENCE).await });
    while !end.is_finished() {
        assert_eq!(studio.next_step().await, ["a house"]);
        studio.let_one_step_through();
    }
    assert_eq!(end.await.unwrap().unwrap().job.status, JobStatus::Cancelled);
    assert_eq!(studio.dispatcher.job(&Owner::anonymous(), first).await.unwrap().job.status, JobStatus::Running);
    assert!(studio.close().await.iter().all(|call| !matches!(call, Call::Begin(prompt, _) if prompt == "never")));
}

#[tokio::test]
async fn a_drain_hands_back_what_does_not_finish() {
    let mut setup = Setup::default();
    setup.settings.drain = Duration::ZERO;
    let mut studio = Studio::gated(setup).await;
    let job = studio.submit(many_steps("a house")).await;
    studio.next_step().await;
    let mut events = studio.dispatcher.subscribe(job).events;
    let drain = tokio::spawn(studio.workers.drain());
    // Given back while the device is still in the middle of a step.
    until(async || studio.store.get(job).await.unwrap().unwrap().status == JobStatus::Queued).await;
    studio.gate = None;
    drain.await.unwrap().unwrap();
    let job = studio.store.get(job).await.unwrap().unwrap();
    assert_eq!((job.status, job.error, job.images.len()), (JobStatus::Queued, None, 0));
    while events.recv().await.is_ok() {}
    assert!(studio.calls.try_recv().is_err(), "the device dropped it at the step boundary");
}

#[tokio::test]
async fn a_drain_lets_running_jobs_finish_and_takes_no_more() {
    let mut studio = Studio::gated(Setup::default()).await;
    let job = studio.submit(prompt("a house")).await;
    studio.next_step().await;
    let drain = tokio::spawn(studio.workers.drain());
    until(async || studio.dispatcher.readiness().await.draining).await;
    let refused = studio.dispatcher.submit(submission(prompt("late")), &Origin::default()).await;
    assert!(matches!(refused, Err(DispatchError::Draining)));
    studio.gate = None;
    drain.await.unwrap().unwrap();
    let job = studio.store.get(job).await.unwrap().unwrap();
    assert_eq!((job.status, job.images.len()), (JobStatus::Succeeded, 1));
}

#[tokio::test]
async fn what_was_painted_under_a_lost_lease_changes_nothing() {
    let mut studio = Studio::gated(Setup::default()).await;
    let job = studio.submit(prompt("a house")).await;
    studio.next_step().await;
    let settlement = Settlement {
        outcome: Outcome::Cancelled,
        warnings: vec!["ended by another".to_owned()],
        timings: Timings::default(),
        finished_at: jiff::Timestamp::now(),
    };
    studio.store.settle(&Lease { job, attempt: 1 }, settlement).await.unwrap();
    let watcher = studio.dispatcher.subscribe(job);
    studio.open_gate();
    let mut events = watcher.events;
    let mut last = None;
    while let Ok(numbered) = events.recv().await {
        last = Some(numbered.event);
    }
    let Some(easel::domain::Event::Finished(ended)) = last else { panic!("no end, but {last:?}") };
    assert_eq!((ended.status, ended.images.len()), (JobStatus::Cancelled, 0));
    assert_eq!(ended.warnings, ["ended by another"]);
}

#[tokio::test]
async fn a_cancelled_job_that_a_drain_gives_back_is_counted_once() {
    let mut setup = Setup::default();
    setup.settings.drain = Duration::ZERO;
    let mut studio = Studio::gated(setup).await;
    let job = studio.submit(many_steps("a house")).await;
    studio.next_step().await;
    studio.dispatcher.cancel(&Owner::anonymous(), job).await.unwrap();
    let drain = tokio::spawn(studio.workers.drain());
    // The device stands in the middle of a step: it is the drain that ends the job.
    until(async || studio.store.get(job).await.unwrap().unwrap().status == JobStatus::Cancelled).await;
    studio.gate = None;
    drain.await.unwrap().unwrap();
    assert_eq!(studio.metrics.jobs_total.with_label_values(&["cancelled"]).get(), 1);
}
