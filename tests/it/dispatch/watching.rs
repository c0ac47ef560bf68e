//! What watchers see, and that the device never waits for them.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use easel::{
    dispatch::ports::{JobStore, Quotas},
    domain::{Event, EventId, Job, JobStatus, Owner, PictureFormat, sha256_hex},
    store::SqliteStore,
};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use super::{Setup, Studio, engine::Call, many_steps, prompt, submission};
use crate::support::{IDLE, terms};

#[tokio::test]
async fn a_watcher_sees_the_whole_life_in_order() {
    let mut studio = Studio::closed(Setup::default()).await;
    let ahead = studio.submit(prompt("ahead")).await;
    let job = studio.submit(json!({"prompt": "a house", "num_inference_steps": 4, "preview_every": 0})).await;
    let mut events = studio.dispatcher.subscribe(job).events;
    studio.open_gate();
    studio.load();
    let (mut seen, mut ids) = (Vec::new(), Vec::new());
    while let Ok(numbered) = events.recv().await {
        ids.push(numbered.id.get());
        seen.push(match numbered.event {
            Event::Queued { queue_position, .. } => format!("queued {queue_position}"),
            Event::Started => "started".to_owned(),
            Event::Progress(progress) => format!("{} of {}", progress.step, progress.num_inference_steps),
            Event::Preview(_) => "preview".to_owned(),
            Event::Finished(job) => job.status.as_str().to_owned(),
        });
    }
    assert_eq!(seen, ["queued 1", "started", "1 of 4", "2 of 4", "3 of 4", "4 of 4", "succeeded"]);
    assert!(ids.is_sorted_by(|earlier, later| earlier < later), "{ids:?}");
    assert_eq!(ids.last(), Some(&1_999_999));
    studio.end_of(ahead).await;
}

#[tokio::test]
async fn a_job_that_is_seen_to_have_succeeded_has_its_pictures() {
    let studio = Studio::open(Setup::default()).await;
    let job = studio.submit(json!({"prompt": "a house", "num_inference_steps": 4, "num_images": 2})).await;
    let ended = studio.end_of(job).await.job;
    for image in &ended.images {
        let file = studio.dispatcher.picture(&Owner::anonymous(), job, image).await.unwrap();
        assert_eq!((image.sha256.as_str(), image.bytes), (sha256_hex(&file).as_str(), file.len() as u64));
    }
    let timings = ended.timings;
    assert!(timings.denoise_ms > 0.0 && timings.store_ms > 0.0 && timings.total_ms >= timings.denoise_ms + timings.store_ms);
    assert_eq!(studio.metrics.jobs_total.with_label_values(&["succeeded"]).get(), 1);
    assert_eq!(studio.metrics.stage_seconds.with_label_values(&["store"]).get_sample_count(), 1);
}

#[tokio::test]
async fn the_device_paints_on_while_a_finished_picture_becomes_a_file() {
    let (stuck, picture_gate) = mpsc::channel();
    let mut studio = Studio::open(Setup { picture_gate: Some(picture_gate), ..Setup::default() }).await;
    let first = studio.submit(json!({"prompt": "first", "output_format": "webp"})).await;
    while studio.next_call().await != Call::Finish(vec!["first".to_owned()]) {}
    let second = studio.submit(prompt("second")).await;
    assert_eq!(studio.end_of(second).await.job.status, JobStatus::Succeeded);
    assert_eq!(studio.dispatcher.job(&Owner::anonymous(), first).await.unwrap().job.status, JobStatus::Running);
    drop(stuck);
    let ended = studio.end_of(first).await.job;
    assert_eq!((ended.status, ended.images[0].content_type), (JobStatus::Succeeded, PictureFormat::WebP));
}

#[tokio::test]
async fn previews_come_every_so_many_steps_but_not_at_the_last() {
    let mut studio = Studio::closed(Setup::default()).await;
    let job = studio.submit(json!({"prompt": "a house", "num_inference_steps": 6, "preview_every": 2})).await;
    let mut events = studio.dispatcher.subscribe(job).events;
    studio.load();
    // Each preview is waited for before the next step, so that none comes after the end.
    let mut steps = Vec::new();
    for step in 1..=6 {
        studio.let_one_step_through();
        while step % 2 == 0 && step < 6 && steps.len() < step / 2 {
            if let Event::Preview(preview) = events.recv().await.unwrap().event {
                assert_eq!(image::load_from_memory(&preview.png).unwrap().width(), preview.width);
                steps.push(preview.step);
            }
        }
    }
    while let Ok(numbered) = events.recv().await {
        assert!(!matches!(numbered.event, Event::Preview(_)));
    }
    assert_eq!(steps, [2, 4]);
}

#[tokio::test]
async fn a_slow_watcher_never_delays_a_step_and_still_gets_the_end() {
    let mut studio = Studio::closed(Setup::default()).await;
    let job = studio.submit(many_steps("a house")).await;
    let mut slow = studio.dispatcher.subscribe(job).events;
    studio.open_gate();
    studio.load();
    // It reads nothing until all is over.
    assert_eq!(studio.end_of(job).await.job.status, JobStatus::Succeeded);
    assert!(matches!(slow.recv().await, Err(RecvError::Lagged(_))));
    let mut last = None;
    while let Ok(numbered) = slow.recv().await {
        last = Some(numbered.event);
    }
    assert!(matches!(last, Some(Event::Finished(_))), "{last:?}");
}

#[tokio::test]
async fn previews_that_are_stuck_are_dropped_and_delay_nothing() {
    let (stuck, preview_gate) = mpsc::channel();
    let mut studio = Studio::closed(Setup { preview_gate: Some(preview_gate), ..Setup::default() }).await;
    let job = studio.submit(many_steps("a house")).await;
    let _watcher = studio.dispatcher.subscribe(job);
    studio.open_gate();
    studio.load();
    assert_eq!(studio.end_of(job).await.job.status, JobStatus::Succeeded);
    assert!(studio.metrics.previews_dropped_total.get() > 100);
    drop::<mpsc::Sender<()>>(stuck);
}

#[tokio::test]
async fn nobody_watching_means_no_previews() {
    let (stuck, preview_gate) = mpsc::channel();
    let studio = Studio::open(Setup { preview_gate: Some(preview_gate), ..Setup::default() }).await;
    let job = studio.submit(many_steps("a house")).await;
    super::until(async || studio.dispatcher.job(&Owner::anonymous(), job).await.unwrap().job.status.is_finished()).await;
    assert_eq!(studio.metrics.previews_dropped_total.get(), 0);
    // The gate was never taken by a preview: its receiver still lies in the engine.
    assert!(stuck.send(()).is_ok());
}

#[tokio::test]
async fn those_who_wait_are_told_when_a_job_ahead_of_them_is_cancelled() {
    let studio = Studio::closed(Setup::default()).await;
    let ahead = studio.submit(prompt("ahead")).await;
    let job = studio.submit(prompt("a house")).await;
    let mut events = studio.dispatcher.subscribe(job).events;
    studio.dispatcher.cancel(&Owner::anonymous(), ahead).await.unwrap();
    let told = tokio::time::timeout(super::PATIENCE, events.recv()).await.unwrap().unwrap();
    assert!(matches!(told.event, Event::Queued { queue_position: 1, .. }), "{told:?}");
}

#[tokio::test]
async fn what_is_told_of_a_job_that_ran_before_this_server_began_is_numbered_above_what_was_told_then() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&format!("sqlite://{}/easel.db", folder.path().display())).await.unwrap();
    let [ahead, job] = ["ahead", "a house"].map(|text| Job::queued(&submission(prompt(text)), "request"));
    for job in [&ahead, &job] {
        store.insert(job, &terms(10)).await.unwrap();
        store.claim("a dead server", Duration::ZERO, &IDLE, &Quotas::default()).await.unwrap();
    }
    store.recover(5).await.unwrap();
    let studio = Studio::with_store(Setup::default(), Arc::new(store), folder).await;
    let mut events = studio.dispatcher.subscribe(job.id).events;
    assert_eq!(studio.dispatcher.job(&Owner::anonymous(), job.id).await.unwrap().job.attempts, 1);
    studio.dispatcher.cancel(&Owner::anonymous(), ahead.id).await.unwrap();
    let told = tokio::time::timeout(super::PATIENCE, events.recv()).await.unwrap().unwrap();
    assert!(told.id > EventId::start_of(1), "{told:?}");
}
