//! Deadlines: jobs whose pictures are of no use any more take no more time of the device.

use super::{ports::StoreError, shared::Shared};
use crate::domain::{GenerationRequest, JobError};

/// The error of a job whose deadline has passed before its last step.
pub(super) fn exceeded(request: &GenerationRequest) -> JobError {
    let seconds = request.deadline_seconds.unwrap_or_default();
    JobError::new("deadline_exceeded", format!("the job was not done within {seconds} s, its deadline_seconds"))
}

/// Fails the jobs that wait and whose deadlines have passed.
pub(super) async fn end_overdue(shared: &Shared) -> Result<(), StoreError> {
    for job in shared.doors.jobs.overdue().await? {
        if let Some(job) = shared.doors.jobs.fail_queued(job.id, exceeded(&job.request)).await? {
            tracing::info!(job.id = %job.id, request.id = job.request_id, "a job that waited has missed its deadline");
            shared.move_queue();
            shared.end_broken_off(job).await;
        }
    }
    Ok(())
}
