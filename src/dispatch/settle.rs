//! Writes how jobs ended: pictures to files, files to the picture store, the end to the job store, and then the last event.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use super::{
    finished::{self, Unfinished},
    guard::supervise,
    painting::DeviceTimes,
    ports::{IntoRgb, Outcome, Settlement, StoreError},
    running::{Claim, Phase},
    shared::Shared,
};
use crate::domain::{Job, JobError, JobStatus, Timings};

/// Jobs that are settled side by side. More wait in the channel, and with it their pixels stay bounded.
const AT_ONCE: usize = 8;
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// A job that has left the device.
pub(super) struct Ended<F> {
    pub(super) claim: Arc<Claim>,
    pub(super) ending: Ending<F>,
    pub(super) warnings: Vec<String>,
    pub(super) times: DeviceTimes,
}

/// How a job left the device.
pub(super) enum Ending<F> {
    /// Every picture is there, by index.
    Painted(Vec<(u32, F)>),
    /// The engine failed.
    Failed(JobError),
    /// Somebody asked it to stop.
    Cancelled,
    /// The lease is lost or given back; there is nothing to write.
    Abandoned,
}

/// What is to be written about a job beside its outcome.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) warnings: Vec<String>,
    pub(super) timings: Timings,
}

/// Settles jobs until the device's thread has ended and every job that it sent is settled.
pub(super) async fn run<F: IntoRgb + Send + 'static>(shared: Arc<Shared>, mut ended: mpsc::Receiver<Ended<F>>) {
    let (permits, tasks) = (Arc::new(Semaphore::new(AT_ONCE)), TaskTracker::new());
    while let Some(job) = ended.recv().await {
        // The semaphore is never closed.
        let permit = permits.clone().acquire_owned().await;
        tasks.spawn(supervise(shared.clone(), "settler", {
            let shared = shared.clone();
            async move {
                end(&shared, job).await;
                drop(permit);
            }
        }));
    }
    tasks.close();
    tasks.wait().await;
}

async fn end<F: IntoRgb + Send + 'static>(shared: &Shared, job: Ended<F>) {
    let claim = job.claim;
    let mut report = Report { warnings: job.warnings, timings: device_timings(&job.times) };
    let outcome = match job.ending {
        Ending::Abandoned => return abandon(shared, &claim).await,
        Ending::Cancelled => Outcome::Cancelled,
        Ending::Failed(error) => Outcome::Failed(error),
        Ending::Painted(frames) => match finished::store(shared, &claim, frames, &mut report.timings).await {
            Ok(images) => Outcome::Succeeded(images),
            Err(Unfinished::Failed(error)) => Outcome::Failed(error),
            Err(Unfinished::Store(error)) => {
                tracing::error!(job.id = %claim.job(), request.id = claim.request_id, %error, "could not store the job's pictures");
                shared.outage.failed(Instant::now());
                return shared.give_back(&claim).await;
            }
            Err(Unfinished::DeviceLost(error)) => {
                shared.lose_device(error);
                return shared.give_back(&claim).await;
            }
        },
    };
    write(shared, &claim, outcome, report).await;
}

/// Fails a job that never reached the device, unless it was cancelled or lost meanwhile.
pub(super) async fn fail(shared: &Shared, claim: &Arc<Claim>, error: JobError) {
    let outcome = match claim.close() {
        Phase::Cancelled => Outcome::Cancelled,
        Phase::Lost | Phase::HandedBack => return abandon(shared, claim).await,
        Phase::Painting | Phase::Settling => Outcome::Failed(error),
    };
    write(shared, claim, outcome, Report::default()).await;
}

async fn write(shared: &Shared, claim: &Arc<Claim>, outcome: Outcome, report: Report) {
    // The clock may have been set back since: a job does not end before it began.
    let finished_at = Timestamp::now().max(claim.claimed_at);
    let queue_ms = milliseconds_between(claim.created_at, claim.claimed_at);
    let timings = Timings { queue_ms, total_ms: queue_ms + claim.since.elapsed().as_secs_f64() * 1000.0, ..report.timings };
    let settlement = Settlement { outcome, warnings: report.warnings, timings, finished_at };
    let settled = patiently(|| shared.doors.jobs.settle(&claim.lease, settlement.clone())).await;
    match settled {
        Ok(job) => {
            let job = announce(shared, claim, job);
            if job.removal_requested {
                shared.remove_files(&job).await;
            }
        }
        Err(StoreError::StaleLease { .. }) => return abandon(shared, claim).await,
        Err(error) => return run_again(shared, claim, &error),
    }
    shared.forget(claim);
}

fn announce(shared: &Shared, claim: &Claim, job: Job) -> Arc<Job> {
    shared.pace.job_ended(Instant::now());
    if job.status == JobStatus::Succeeded {
        shared.outlook.note_storing(job.timings.store_ms / 1000.0);
        observe_stages(shared, &job.timings);
    }
    tracing::info!(
        job.id = %job.id,
        request.id = claim.request_id,
        job.status = job.status.as_str(),
        job.error = job.error.as_ref().map(|error| error.message.as_str()),
        job.seconds = job.timings.total_ms / 1000.0,
        "job ended"
    );
    shared.announce_end(job)
}

fn observe_stages(shared: &Shared, timings: &Timings) {
    let Timings { queue_ms, encode_ms, denoise_ms, decode_ms, store_ms, total_ms: _ } = *timings;
    let stages = [("queue", queue_ms), ("encode", encode_ms), ("denoise", denoise_ms), ("decode", decode_ms), ("store", store_ms)];
    for (stage, milliseconds) in stages {
        shared.doors.metrics.stage_seconds.with_label_values(&[stage]).observe(milliseconds / 1000.0);
    }
}

/// Forgets a job whose end is somebody else's to write, and tells its watchers where it is.
async fn abandon(shared: &Shared, claim: &Claim) {
    let request_id = &claim.request_id;
    tracing::info!(job.id = %claim.job(), request.id = request_id, job.attempt = claim.lease.attempt, "dropped a job whose lease is gone");
    shared.forget(claim);
    if let Err(error) = shared.announce_present(claim.job()).await {
        tracing::warn!(job.id = %claim.job(), request.id = request_id, %error, "could not read the job that was dropped");
    }
}

fn run_again(shared: &Shared, claim: &Arc<Claim>, error: &StoreError) {
    let request_id = &claim.request_id;
    tracing::error!(job.id = %claim.job(), request.id = request_id, %error, "could not store the job's end; it will run again");
    shared.release_later(claim);
    shared.forget(claim);
}

/// Tries a write of the store again, with growing pauses, while the store does not answer.
pub(super) async fn patiently<T, W>(mut write: impl FnMut() -> W) -> Result<T, StoreError>
where
    W: Future<Output = Result<T, StoreError>>,
{
    let mut pause = FIRST_PAUSE;
    for _ in 1..TRIES {
        match write().await {
            Err(StoreError::Unavailable(problem)) => tracing::warn!(%problem, pause.seconds = pause.as_secs_f64(), "trying again"),
            other => return other,
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    write().await
}

fn device_timings(times: &DeviceTimes) -> Timings {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    Timings {
        encode_ms: milliseconds(times.encode),
        denoise_ms: milliseconds(times.denoise),
        decode_ms: milliseconds(times.decode),
        ..Timings::default()
    }
}

fn milliseconds_between(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0) * 1000.0
}
