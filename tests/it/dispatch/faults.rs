//! What goes wrong on the device fails the job at fault, and no other.

use easel::{
    dispatch::{
        DispatchError,
        ports::{EngineError, JobStore, Quotas},
    },
    domain::{JobStatus, Origin},
};
use serde_json::json;

use super::{Call, Disk, Setup, Studio, many_steps, prompt};
use crate::support::BUSY;

/// Runs a job that goes wrong in company; answers its error's code.
async fn fails_in_company(text: &str) -> String {
    let mut studio = Studio::gated(Setup::default()).await;
    let first = studio.submit_in_company(many_steps("a house")).await;
    let bad = studio.submit_in_company(many_steps(text)).await;
    let last = studio.submit_in_company(many_steps("a tree")).await;
    studio.gather(3).await;
    studio.open_gate();
    let failed = studio.end_of(bad).await.job;
    assert_eq!(failed.status, JobStatus::Failed);
    for good in [first, last] {
        let job = studio.end_of(good).await.job;
        assert_eq!((job.status, job.images.len()), (JobStatus::Succeeded, 1));
    }
    failed.error.clone().unwrap().code
}

#[tokio::test]
async fn a_panic_in_one_canvas_fails_that_job_and_no_other() {
    assert_eq!(fails_in_company("panic").await, "engine_panicked");
}

#[tokio::test]
async fn latents_that_are_no_numbers_fail_that_job_and_no_other() {
    assert_eq!(fails_in_company("nan").await, "not_finite");
}

#[tokio::test]
async fn a_panic_while_decoding_fails_that_job_and_no_other() {
    assert_eq!(fails_in_company("decode panic").await, "engine_panicked");
}

#[tokio::test]
async fn a_panic_while_beginning_fails_that_job_and_no_other() {
    let studio = Studio::open(Setup::default()).await;
    let (bad, good) = (studio.submit(prompt("begin panic")).await, studio.submit(prompt("a house")).await);
    assert_eq!(studio.end_of(bad).await.job.error.as_ref().unwrap().code, "engine_panicked");
    assert_eq!(studio.end_of(good).await.job.status, JobStatus::Succeeded);
}

#[tokio::test]
async fn a_batch_that_does_not_fit_into_memory_is_split_and_tried_again() {
    let mut studio = Studio::gated(Setup { memory: 2, ..Setup::default() }).await;
    let mut jobs = Vec::new();
    for name in ["a", "b", "c"] {
        jobs.push(studio.submit_in_company(many_steps(name)).await);
    }
    studio.gather(3).await;
    studio.open_gate();
    assert_eq!(studio.next_step().await, ["a"]);
    assert_eq!(studio.next_step().await, ["b", "c"]);
    for job in jobs {
        assert_eq!(studio.end_of(job).await.job.status, JobStatus::Succeeded);
    }
}

#[tokio::test]
async fn pictures_that_do_not_fit_into_memory_together_begin_in_smaller_groups() {
    let studio = Studio::open(Setup { memory: 2, ..Setup::default() }).await;
    let job = studio.submit(json!({"prompt": "a house", "num_inference_steps": 2, "num_images": 5})).await;
    let ended = studio.end_of(job).await.job;
    assert_eq!((ended.status, ended.images.len()), (JobStatus::Succeeded, 5));
    let begun: Vec<_> = studio
        .close()
        .await
        .into_iter()
        .filter_map(|call| if let Call::Begin(_, images) = call { Some(images) } else { None })
        .collect();
    assert_eq!(begun, [0..5, 0..2, 2..4, 4..5]);
}

#[tokio::test]
async fn a_lost_device_blames_nobody_and_gives_its_jobs_back() {
    let mut studio = Studio::gated(Setup::default()).await;
    let company = studio.submit_in_company(many_steps("a house")).await;
    let trigger = studio.submit_in_company(many_steps("lost")).await;
    studio.gather(2).await;
    studio.open_gate();
    let lost = EngineError::DeviceLost("the context is dead".to_owned());
    assert_eq!(studio.workers.failed().await, lost);
    assert!(!studio.dispatcher.readiness().await.engine);
    assert_eq!(studio.workers.drain().await, Err(lost));
    for id in [company, trigger] {
        let job = studio.store.get(id).await.unwrap().unwrap();
        assert_eq!((job.status, job.error), (JobStatus::Queued, None));
    }
    // Nobody is suspect either: the first is claimed as if nothing had happened, beside others.
    let claim = studio.store.claim("next", std::time::Duration::from_secs(15), &BUSY, &Quotas::default()).await.unwrap();
    assert!(matches!(claim, easel::dispatch::ports::ClaimOutcome::Claimed { alone: false, .. }));
}

#[tokio::test]
async fn an_engine_that_cannot_be_loaded_ends_the_workers_with_its_error() {
    let error = EngineError::Failed("the folder is not there".to_owned());
    let mut studio = Studio::closed(Setup { load_error: Some(error.clone()), ..Setup::default() }).await;
    let job = studio.submit(prompt("a house")).await;
    studio.load();
    assert_eq!(studio.workers.failed().await, error);
    assert_eq!(studio.workers.drain().await, Err(error));
    assert_eq!(studio.store.get(job).await.unwrap().unwrap().status, JobStatus::Queued);
    assert!(matches!(
        studio.dispatcher.submit(super::submission(prompt("late")), &Origin::default()).await,
        Err(DispatchError::Draining)
    ));
}

#[tokio::test]
async fn a_task_that_panics_ends_the_workers_as_a_lost_device_does() {
    let studio = Studio::open(Setup { disk: Disk { panics: true, ..Disk::default() }, ..Setup::default() }).await;
    studio.submit(prompt("a house")).await;
    let lost = EngineError::DeviceLost("the settler panicked: a bug".to_owned());
    assert_eq!(studio.workers.failed().await, lost);
    assert!(!studio.dispatcher.readiness().await.engine);
    assert_eq!(studio.workers.drain().await, Err(lost));
}
