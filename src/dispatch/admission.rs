//! Admission: from a request to a job that survives a crash.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use super::{
    Accepted, DispatchError, Dispatcher, JobView,
    outlook::Expectation,
    pace::whole_seconds,
    ports::{Admitted, PictureKey, StoreError, Terms},
    work::Work,
};
use crate::domain::{InputPictures, Job, JobId, JobStatus, Origin, Submission};

impl Dispatcher {
    /// Accepts a job: stores its input pictures, then the job. Once this returns `Ok` the job survives a crash.
    ///
    /// # Errors
    /// When the queue is full, the job would not be done before its deadline, the idempotency key belongs to another request, the server is
    /// draining or a store does not answer.
    pub async fn submit(&self, submission: Submission, origin: &Origin) -> Result<Accepted, DispatchError> {
        if let Some(before) = self.came_before(origin).await? {
            return Ok(before);
        }
        self.check_draining()?;
        let _inputs_stay = self.shared.inputs.read().await;
        let job = Job { owner: origin.owner.clone(), ..Job::queued(&submission, &origin.request_id) };
        let work = self.expect(&job)?;
        self.store_inputs(&submission.inputs, origin).await?;
        self.admit((job, work), origin).await
    }

    /// Runs a job that failed or was cancelled again: as a new job with the same request, its seed included. The old one stays.
    ///
    /// # Errors
    /// As for [`Self::submit`], and when there is no such job or it has neither failed nor been cancelled.
    pub async fn retry(&self, id: JobId, origin: &Origin) -> Result<Accepted, DispatchError> {
        if let Some(before) = self.came_before(origin).await? {
            return Ok(before);
        }
        let _inputs_stay = self.shared.inputs.read().await;
        let old = self.find(&origin.owner, id).await?;
        if !matches!(old.status, JobStatus::Failed | JobStatus::Cancelled) {
            return Err(DispatchError::NotRetryable(Arc::new(old)));
        }
        self.check_draining()?;
        let submission = Submission { request: old.request, inputs: InputPictures::default(), warnings: old.warnings };
        let again = Job::queued(&submission, &origin.request_id);
        let job = Job { owner: origin.owner.clone(), retry_of: Some(id), ..again };
        let work = self.expect(&job)?;
        self.admit((job, work), origin).await
    }

    fn check_draining(&self) -> Result<(), DispatchError> {
        if self.shared.draining.is_cancelled() { Err(DispatchError::Draining) } else { Ok(()) }
    }

    /// What a job that would come now has to be expected by.
    ///
    /// # Errors
    /// When it would be done after its deadline.
    fn expect(&self, job: &Job) -> Result<Work, DispatchError> {
        let outlook = &self.shared.outlook;
        let work = Work::queued(job.id, &job.request, (outlook.ageing(), unix_seconds(job)));
        let Some(deadline) = job.request.deadline_seconds else { return Ok(work) };
        let Expectation { at_least: seconds, .. } = outlook.expect(&work);
        if seconds <= f64::from(deadline) {
            return Ok(work);
        }
        let retry_after = whole_seconds(seconds - f64::from(deadline));
        Err(DispatchError::DeadlineUnreachable { deadline, seconds, retry_after })
    }

    async fn admit(&self, (job, work): (Job, Work), origin: &Origin) -> Result<Accepted, DispatchError> {
        let admitted = self.shared.doors.jobs.insert(&job, &self.terms(origin)).await.map_err(|error| self.refusal(error))?;
        if admitted != Admitted::New {
            return self.answer_again(admitted).await;
        }
        tracing::info!(job.id = %job.id, request.id = origin.request_id, client = %origin.owner, "accepted a job");
        self.shared.doors.metrics.jobs_accepted_total.inc();
        // Only now those are known that have come meanwhile, and go before it.
        let expectation = self.shared.outlook.expect(&work);
        self.shared.outlook.came(work, expectation);
        // The job is safe: a store that fails now must not make the client send it again. Nobody can watch it yet. A job that no longer
        // waits has been claimed meanwhile, so it was the first.
        let queue_position = self.shared.doors.jobs.queue_position(job.id).await.ok().flatten().or(Some(1));
        self.wake_claimer(queue_position).await;
        let view = JobView { job: Arc::new(job), queue_position, progress: None, eta_seconds: expectation.end };
        Ok(Accepted { view, came_before: false })
    }

    /// Work has come. Those whom it goes before by its priority have moved back; behind the last nobody has.
    async fn wake_claimer(&self, queue_position: Option<u64>) {
        let queued = self.shared.doors.jobs.counts().await.map_or(0, |counts| counts.queued);
        if queue_position < Some(queued) {
            self.shared.move_queue();
        } else {
            self.shared.wake.notify_one();
        }
    }

    /// What the same request was answered, if it has come before: also while the queue is full or the server drains.
    async fn came_before(&self, origin: &Origin) -> Result<Option<Accepted>, DispatchError> {
        let Some(idempotency) = &origin.idempotency else { return Ok(None) };
        let Some(admitted) = self.shared.doors.jobs.known(&origin.owner, idempotency).await? else { return Ok(None) };
        self.answer_again(admitted).await.map(Some)
    }

    async fn answer_again(&self, admitted: Admitted) -> Result<Accepted, DispatchError> {
        match admitted {
            Admitted::Before(job) => Ok(Accepted { view: self.view(Arc::new(job)).await?, came_before: true }),
            Admitted::OtherRequest => Err(DispatchError::IdempotencyKeyReused),
            Admitted::New | Admitted::BeforeAndRemoved => Err(DispatchError::Gone),
        }
    }

    fn terms(&self, origin: &Origin) -> Terms {
        let settings = &self.shared.settings;
        Terms {
            capacity: settings.max_queued_jobs,
            owner_capacity: settings.quotas.of(&origin.owner).max_queued_jobs,
            ageing: settings.ageing,
            idempotency: origin.idempotency.clone(),
        }
    }

    /// A full queue is found out before a picture is written, so that turning clients away does not fill the disk.
    async fn store_inputs(&self, inputs: &InputPictures, origin: &Origin) -> Result<(), DispatchError> {
        if inputs.iter().next().is_none() {
            return Ok(());
        }
        let room = self.shared.doors.jobs.check_room(&origin.owner, &self.terms(origin)).await;
        room.map_err(|error| self.refusal(error))?;
        for input in inputs.iter() {
            let key = PictureKey::Input { sha256: input.reference.sha256.clone() };
            self.shared.doors.pictures.put(&key, Bytes::from_owner(input.bytes.clone())).await?;
        }
        Ok(())
    }

    fn refusal(&self, error: StoreError) -> DispatchError {
        let foreseen = self.shared.outlook.until_next_claim().map(whole_seconds);
        let retry_after = foreseen.unwrap_or_else(|| self.shared.pace.retry_after(Instant::now()));
        match error {
            StoreError::QueueFull { .. } => DispatchError::QueueFull { retry_after },
            StoreError::OwnerQueueFull { capacity } => DispatchError::OwnerQueueFull { capacity, retry_after },
            other => DispatchError::Store(other),
        }
    }
}

/// When a job came, as the queue's order has it.
pub(super) fn unix_seconds(job: &Job) -> f64 {
    job.created_at.as_millisecond() as f64 / 1000.0
}
