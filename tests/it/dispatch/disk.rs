//! A picture store that does not work blames no job, unless it is the job's own file that cannot be read.

use std::time::Duration;

use easel::{
    dispatch::ports::JobStore,
    domain::{JobStatus, Owner},
};

use super::{Disk, Setup, Studio, prompt, with_picture};

/// How often a run tries to write a picture.
const TRIES_A_ROUND: u32 = 5;

#[tokio::test]
async fn a_disk_that_fails_for_a_moment_costs_no_job() {
    let disk = Disk { failing_writes: 2.into(), ..Disk::default() };
    let studio = Studio::open(Setup { disk, ..Setup::default() }).await;
    let job = studio.submit(prompt("a house")).await;
    let ended = studio.end_of(job).await.job;
    assert_eq!((ended.status, ended.attempts), (JobStatus::Succeeded, 1));
    assert!(studio.dispatcher.picture(&Owner::anonymous(), job, &ended.images[0]).await.is_ok());
}

#[tokio::test]
async fn a_disk_that_is_full_for_longer_than_a_job_may_die_fails_no_job() {
    let disk = Disk { failing_writes: (3 * TRIES_A_ROUND).into(), failing_pings: 1.into(), ..Disk::default() };
    let mut setup = Setup { disk, ..Setup::default() };
    setup.settings.max_attempts = 1;
    let studio = Studio::open(setup).await;
    let job = studio.submit(prompt("a house")).await;
    let ended = studio.end_of(job).await.job;
    assert_eq!((ended.status, ended.attempts), (JobStatus::Succeeded, 4));
}

#[tokio::test]
async fn a_picture_that_cannot_be_read_for_a_moment_costs_no_job() {
    let disk = Disk { failing_reads: 2.into(), ..Disk::default() };
    let studio = Studio::open(Setup { disk, ..Setup::default() }).await;
    let job = studio.submit(with_picture()).await;
    assert_eq!(studio.end_of(job).await.job.status, JobStatus::Succeeded);
}

#[tokio::test]
async fn a_picture_that_can_never_be_read_fails_its_job_and_lets_the_others_run() {
    let disk = Disk { failing_reads: u32::MAX.into(), ..Disk::default() };
    let mut studio = Studio::closed(Setup { disk, ..Setup::default() }).await;
    let bad = studio.submit(with_picture()).await;
    let good = studio.submit(prompt("a house")).await;
    studio.load();
    studio.open_gate();
    assert_eq!(studio.end_of(good).await.job.status, JobStatus::Succeeded);
    let failed = studio.store.get(bad).await.unwrap().unwrap();
    assert_eq!(failed.error.as_ref().map(|error| error.code.as_str()), Some("input_unreadable"));
    assert_eq!(studio.metrics.jobs_total.with_label_values(&["failed"]).get(), 1);
}

#[tokio::test]
async fn a_disk_that_hangs_does_not_keep_the_server_from_stopping() {
    let disk = Disk { hangs: true, ..Disk::default() };
    let mut setup = Setup { disk, ..Setup::default() };
    setup.settings.lease = Duration::from_secs(3);
    let studio = Studio::open(setup).await;
    let job = studio.submit(with_picture()).await;
    studio.until_running(1).await;
    studio.workers.drain().await.unwrap();
    assert_eq!(studio.store.get(job).await.unwrap().unwrap().status, JobStatus::Queued);
}
