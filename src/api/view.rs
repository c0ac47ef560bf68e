//! A job as the API shows it.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    dispatch::JobView,
    domain::{GenerationRequest, Job, JobError, JobId, JobImage, JobStatus, Progress, Timings},
};

/// The job document. Every field is always there; one that does not apply is null.
#[derive(Serialize)]
pub(super) struct JobJson<'a> {
    id: JobId,
    status: JobStatus,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    queue_position: Option<u64>,
    eta_seconds: Option<f64>,
    progress: Option<Progress>,
    request: &'a GenerationRequest,
    warnings: &'a [String],
    images: Vec<ImageJson<'a>>,
    error: Option<&'a JobError>,
    attempts: u32,
    retry_of: Option<JobId>,
    timings: &'a Timings,
    urls: UrlsJson,
}

#[derive(Serialize)]
struct ImageJson<'a> {
    url: String,
    #[serde(flatten)]
    image: &'a JobImage,
}

#[derive(Serialize)]
struct UrlsJson {
    #[serde(rename = "self")]
    itself: String,
    events: String,
    cancel: String,
}

impl<'a> From<&'a JobView> for JobJson<'a> {
    fn from(view: &'a JobView) -> Self {
        let job = &view.job;
        let image = |image| ImageJson { url: image_url(job.id, image), image };
        Self {
            id: job.id,
            status: job.status,
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            queue_position: view.queue_position.filter(|_| job.status == JobStatus::Queued),
            eta_seconds: view.eta_seconds.filter(|_| !job.status.is_finished()),
            progress: view.progress.filter(|_| job.status == JobStatus::Running),
            request: &job.request,
            warnings: &job.warnings,
            images: job.images.iter().map(image).collect(),
            error: job.error.as_ref(),
            attempts: job.attempts,
            retry_of: job.retry_of,
            timings: &job.timings,
            urls: UrlsJson { itself: job_url(job.id), events: job_url(job.id) + "/events", cancel: job_url(job.id) + "/cancel" },
        }
    }
}

/// Where a job is found.
pub(super) fn job_url(id: JobId) -> String {
    format!("/v1/jobs/{id}")
}

fn image_url(id: JobId, image: &JobImage) -> String {
    format!("{}/images/{}", job_url(id), image.index)
}

/// The view of a job that has ended: nothing about it is known but what is stored.
pub(super) fn finished(job: Arc<Job>) -> JobView {
    JobView { job, queue_position: None, progress: None, eta_seconds: None }
}
