//! What may come in, and in what state it is found.

use std::{fs, time::Duration};

use easel::{
    dispatch::ports::Quotas,
    dispatch::{DispatchError, ports::JobStore},
    domain::{JobId, JobStatus, Origin, Owner},
};

use super::{Setup, Studio, prompt, submission, until, with_picture};
use crate::support::{IDLE, terms};

#[tokio::test]
async fn a_full_queue_says_when_to_come_back_and_stores_nothing() {
    let mut setup = Setup::default();
    setup.settings.max_queued_jobs = 2;
    let studio = Studio::closed(setup).await;
    studio.submit(prompt("a")).await;
    studio.submit(prompt("b")).await;
    for body in [prompt("c"), with_picture()] {
        let refused = studio.dispatcher.submit(submission(body), &Origin::default()).await;
        let Err(DispatchError::QueueFull { retry_after }) = refused else { panic!("{refused:?}") };
        assert!((1..=3600).contains(&retry_after.as_secs()) && retry_after.subsec_nanos() == 0);
    }
    assert!(!studio.folder.path().join("pictures/inputs").exists());
}

#[tokio::test]
async fn waiting_jobs_know_their_place() {
    let studio = Studio::closed(Setup::default()).await;
    let first = studio.submit(prompt("a")).await;
    let second = studio.dispatcher.submit(submission(prompt("b")), &Origin::default()).await.unwrap();
    assert_eq!(second.view.queue_position, Some(2));
    studio.dispatcher.cancel(&Owner::anonymous(), first).await.unwrap();
    assert_eq!(studio.dispatcher.job(&Owner::anonymous(), second.view.job.id).await.unwrap().queue_position, Some(1));
}

#[tokio::test]
async fn a_picture_to_start_from_reaches_the_device() {
    let studio = Studio::open(Setup::default()).await;
    let job = studio.submit(with_picture()).await;
    assert_eq!(studio.end_of(job).await.job.status, JobStatus::Succeeded);
}

#[tokio::test]
async fn a_picture_that_is_gone_or_damaged_fails_the_job_and_no_other() {
    let mut studio = Studio::closed(Setup::default()).await;
    let bad = studio.submit(with_picture()).await;
    let good = studio.submit(prompt("a house")).await;
    let file = fs::read_dir(studio.folder.path().join("pictures/inputs")).unwrap().next().unwrap().unwrap().path();
    fs::write(file, b"not what was sent").unwrap();
    studio.load();
    studio.open_gate();
    let failed = studio.end_of(bad).await.job;
    assert_eq!(failed.error.as_ref().unwrap().code, "input_missing");
    assert_eq!(studio.end_of(good).await.job.status, JobStatus::Succeeded);
}

#[tokio::test]
async fn the_server_is_ready_when_the_engine_is_loaded() {
    let mut studio = Studio::closed(Setup::default()).await;
    let readiness = studio.dispatcher.readiness().await;
    assert!(!readiness.engine && readiness.store && !readiness.draining);
    studio.load();
    until(async || studio.dispatcher.readiness().await.engine).await;
}

#[tokio::test]
async fn waiting_ends_with_patience() {
    let studio = Studio::closed(Setup::default()).await;
    let job = studio.submit(prompt("a house")).await;
    let view = studio.dispatcher.wait(&Owner::anonymous(), job, Duration::ZERO).await.unwrap();
    assert_eq!(view.job.status, JobStatus::Queued);
}

#[tokio::test]
async fn an_unknown_job_is_unknown_everywhere() {
    let studio = Studio::closed(Setup::default()).await;
    let nobody = JobId::random();
    assert!(matches!(studio.dispatcher.job(&Owner::anonymous(), nobody).await, Err(DispatchError::UnknownJob)));
    assert!(matches!(studio.dispatcher.cancel(&Owner::anonymous(), nobody).await, Err(DispatchError::UnknownJob)));
    assert!(matches!(studio.dispatcher.wait(&Owner::anonymous(), nobody, Duration::ZERO).await, Err(DispatchError::UnknownJob)));
    assert!(matches!(studio.dispatcher.image(&Owner::anonymous(), nobody, 0).await, Err(DispatchError::UnknownJob)));
    let known = studio.submit(prompt("a house")).await;
    assert!(matches!(studio.dispatcher.image(&Owner::anonymous(), known, 0).await, Err(DispatchError::UnknownPicture(0))));
}

#[tokio::test]
async fn jobs_whose_worker_died_are_found_and_run() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/easel.db", folder.path().display());
    let store = std::sync::Arc::new(easel::store::SqliteStore::open(&url).await.unwrap());
    let orphan = easel::domain::Job::queued(&submission(prompt("orphan")), "request");
    store.insert(&orphan, &terms(10)).await.unwrap();
    store.claim("a dead server", Duration::ZERO, &IDLE, &Quotas::default()).await.unwrap();
    let mut studio = Studio::with_store(Setup::default(), store, folder).await;
    studio.load();
    studio.open_gate();
    let ended = studio.end_of(orphan.id).await.job;
    assert_eq!((ended.status, ended.attempts), (JobStatus::Succeeded, 2));
}
