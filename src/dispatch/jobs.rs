//! Jobs that are in the store: asked for, listed, ended, removed and waited for. Nobody is told of somebody else's.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::broadcast::error::RecvError, time::timeout_at};

use super::{
    DispatchError, Dispatcher, JobView,
    ports::{Cancellation, JobPage, JobQuery, PictureKey, Removal, Subscription},
    running::Phase,
};
use crate::domain::{Event, Job, JobId, JobImage, JobStatus, Owner, sha256_hex};

impl Dispatcher {
    /// The job as it is now.
    ///
    /// # Errors
    /// When there is none of this owner, it has been removed, or the store does not answer.
    pub async fn job(&self, owner: &Owner, id: JobId) -> Result<JobView, DispatchError> {
        let job = self.find(owner, id).await?;
        self.shared.doors.events.continue_from(id, job.attempts);
        self.view(Arc::new(job)).await
    }

    /// Some of an owner's jobs, the newest first.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list(&self, query: &JobQuery) -> Result<(Vec<JobView>, Option<i64>), DispatchError> {
        let JobPage { jobs, next } = self.shared.doors.jobs.list(query).await?;
        let mut views = Vec::with_capacity(jobs.len());
        for job in jobs {
            views.push(self.view(Arc::new(job)).await?);
        }
        Ok((views, next))
    }

    /// The stored job, if it is this owner's.
    pub(super) async fn find(&self, owner: &Owner, id: JobId) -> Result<Job, DispatchError> {
        let jobs = &self.shared.doors.jobs;
        match jobs.get(id).await? {
            Some(job) if job.owner != *owner => Err(DispatchError::UnknownJob),
            Some(job) if job.removal_requested => Err(DispatchError::Gone),
            Some(job) => Ok(job),
            None if jobs.removed(id).await?.as_ref() == Some(owner) => Err(DispatchError::Gone),
            None => Err(DispatchError::UnknownJob),
        }
    }

    pub(super) async fn view(&self, job: Arc<Job>) -> Result<JobView, DispatchError> {
        let (mut queue_position, mut progress) = (None, None);
        match job.status {
            JobStatus::Queued => queue_position = self.shared.doors.jobs.queue_position(job.id).await?,
            JobStatus::Running => progress = self.shared.doors.events.progress(job.id),
            JobStatus::Succeeded | JobStatus::Failed | JobStatus::Cancelled => {}
        }
        let eta_seconds = if job.status.is_finished() { None } else { self.shared.outlook.eta(job.id) };
        Ok(JobView { job, queue_position, progress, eta_seconds })
    }

    /// Cancels a queued job at once, and a running one at its next step boundary.
    ///
    /// # Errors
    /// When there is none of this owner, it has ended or been removed, or the store does not answer.
    pub async fn cancel(&self, owner: &Owner, id: JobId) -> Result<JobView, DispatchError> {
        self.find(owner, id).await?;
        let job = match self.shared.doors.jobs.cancel(id).await?.ok_or(DispatchError::Gone)? {
            Cancellation::AlreadyFinished(job) => return Err(DispatchError::AlreadyFinished(Arc::new(job))),
            Cancellation::Cancelled(job) => {
                self.shared.move_queue();
                self.shared.announce_end(job)
            }
            Cancellation::Requested(job) => {
                self.shared.running.stop(id, Phase::Cancelled);
                Arc::new(job)
            }
        };
        tracing::info!(job.id = %id, job.status = job.status.as_str(), "asked to cancel a job");
        self.view(job).await
    }

    /// Removes a job with its pictures: one that runs is stopped, and nobody is told of it any more from now on.
    ///
    /// # Errors
    /// When there is none of this owner, it has been removed already, or the store does not answer.
    pub async fn remove(&self, owner: &Owner, id: JobId) -> Result<(), DispatchError> {
        self.find(owner, id).await?;
        match self.shared.doors.jobs.remove(id).await?.ok_or(DispatchError::Gone)? {
            Removal::Cancelled(job) => {
                self.shared.move_queue();
                self.shared.end_broken_off(job).await;
            }
            Removal::Requested(_) => self.shared.running.stop(id, Phase::Cancelled),
            Removal::Removed(job) => self.shared.remove_files(&job).await,
        }
        tracing::info!(job.id = %id, "removed a job");
        Ok(())
    }

    /// What is stored about a finished picture; its file is not touched.
    ///
    /// # Errors
    /// When there is none, or the store does not answer.
    pub async fn image(&self, owner: &Owner, id: JobId, index: u32) -> Result<JobImage, DispatchError> {
        let job = self.find(owner, id).await?;
        job.images.into_iter().find(|image| image.index == index).ok_or(DispatchError::UnknownPicture(index))
    }

    /// The file of a finished picture, checked against its SHA-256. `image` is what [`Self::image`] has told about it.
    ///
    /// # Errors
    /// When the file is missing or damaged, or a store does not answer.
    pub async fn picture(&self, owner: &Owner, id: JobId, image: &JobImage) -> Result<Bytes, DispatchError> {
        let key = PictureKey::Output { job: id, index: image.index, format: image.content_type };
        let broken = |problem| DispatchError::BrokenPicture { job: id, index: image.index, problem };
        let Some(file) = self.shared.doors.pictures.get(&key).await? else {
            // It may have been removed between the look at the job and the look at the file.
            self.find(owner, id).await?;
            return Err(broken("missing"));
        };
        let (bytes, sha256) = (file.clone(), image.sha256.clone());
        match tokio::task::spawn_blocking(move || sha256_hex(&bytes) == sha256).await {
            Ok(true) => Ok(file),
            Ok(false) | Err(_) => Err(broken("damaged")),
        }
    }

    /// Watches a job from now on. Subscribe first, then read the job: so nothing falls between.
    pub fn subscribe(&self, id: JobId) -> Subscription {
        self.shared.doors.events.subscribe(id)
    }

    /// Waits until the job has ended, for at most `patience`, and answers it as it then is.
    ///
    /// # Errors
    /// As for [`Self::job`].
    pub async fn wait(&self, owner: &Owner, id: JobId, patience: Duration) -> Result<JobView, DispatchError> {
        let mut watcher = self.shared.doors.events.subscribe_without_previews(id);
        let view = self.job(owner, id).await?;
        if view.job.status.is_finished() {
            return Ok(view);
        }
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            match timeout_at(deadline, watcher.events.recv()).await {
                Ok(Ok(numbered)) => {
                    if let Event::Finished(job) = numbered.event {
                        return self.view(job).await;
                    }
                }
                // What was missed is older than what is still to come, and the end is always the newest.
                Ok(Err(RecvError::Lagged(_))) => {}
                Ok(Err(RecvError::Closed)) | Err(_) => return self.job(owner, id).await,
            }
        }
    }
}
