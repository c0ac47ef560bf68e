//! What the handle, the tasks and the device's thread share.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    sync::{Notify, RwLock, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    DispatchSettings, Doors, PING_PATIENCE,
    models::Residence,
    outage::Outage,
    outlook::Outlook,
    pace::Pace,
    ports::{EngineError, StoreError},
    retention,
    running::{Claim, Running},
};
use crate::domain::{Event, Job, JobId, JobStatus, ModelInfo};

/// Where the device's thread is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DeviceState {
    /// The models are being loaded.
    Loading,
    /// It paints, or waits for work.
    Ready,
    /// A drain has ended it.
    Stopped,
    /// It can do nothing any more.
    Lost(EngineError),
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) doors: Doors,
    pub(super) models: Vec<ModelInfo>,
    pub(super) settings: DispatchSettings,
    /// This process, as the store knows it.
    pub(super) worker: String,
    pub(super) running: Running,
    pub(super) residence: Residence,
    /// Claims that the store could not take back when they were given back.
    unreleased: Mutex<Vec<Arc<Claim>>>,
    pub(super) pace: Pace,
    pub(super) outlook: Outlook,
    /// Wakes the claimer: a job has come, or the device has room.
    pub(super) wake: Notify,
    /// Places in the queue have changed; the claimer tells those who watch.
    queue_moved: AtomicBool,
    /// Whether the picture store works.
    pub(super) outage: Outage,
    /// Read while a job is on its way to the store that its inputs are already in, written while an input is removed: an input that
    /// nobody owned a moment ago may be wanted now.
    pub(super) inputs: RwLock<()>,
    pub(super) device: watch::Sender<DeviceState>,
    pub(super) draining: CancellationToken,
}

impl Shared {
    pub(super) fn new(doors: Doors, models: Vec<ModelInfo>, settings: DispatchSettings) -> Self {
        Self {
            outlook: Outlook::new(&settings),
            doors,
            models,
            settings,
            worker: uuid::Uuid::new_v4().to_string(),
            running: Running::default(),
            residence: Residence::default(),
            unreleased: Mutex::default(),
            pace: Pace::default(),
            wake: Notify::new(),
            queue_moved: AtomicBool::new(false),
            outage: Outage::default(),
            inputs: RwLock::default(),
            device: watch::Sender::new(DeviceState::Loading),
            draining: CancellationToken::new(),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        *self.device.borrow() == DeviceState::Ready
    }

    /// Whether the picture store answers, and soon.
    pub(super) async fn ping_pictures(&self) -> Result<(), StoreError> {
        let silence = |_| Err(StoreError::Unavailable("the picture store does not answer".to_owned()));
        timeout(PING_PATIENCE, self.doors.pictures.ping()).await.unwrap_or_else(silence)
    }

    /// The claim is over, whichever way; there may be room for another job.
    pub(super) fn forget(&self, claim: &Claim) {
        self.running.remove(&claim.lease);
        self.outlook.left(claim.job());
        self.doors.events.end_attempt(claim.job(), claim.lease.attempt);
        self.wake.notify_one();
    }

    /// A job has joined or left the queue before its end.
    pub(super) fn move_queue(&self) {
        self.queue_moved.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Whether places in the queue have changed since this was last asked.
    pub(super) fn take_queue_move(&self) -> bool {
        self.queue_moved.swap(false, Ordering::Relaxed)
    }

    /// Counts a job's end and tells everybody who watches. Only after the store has it.
    pub(super) fn announce_end(&self, job: Job) -> Arc<Job> {
        self.doors.metrics.jobs_total.with_label_values(&[job.status.as_str()]).inc();
        let expected = self.outlook.ended(job.id);
        if let Some(expected) = expected.filter(|_| job.status == JobStatus::Succeeded && job.timings.total_ms > 0.0) {
            self.doors.metrics.estimate_ratio.observe(expected * 1000.0 / job.timings.total_ms);
        }
        let job = Arc::new(job);
        self.doors.events.publish(job.id, Event::Finished(job.clone()));
        job
    }

    /// Tells the watchers of a job that no longer runs here what the store says about it.
    pub(super) async fn announce_present(&self, id: JobId) -> Result<(), StoreError> {
        let Some(job) = self.doors.jobs.get(id).await? else { return Ok(()) };
        match job.status {
            JobStatus::Queued => self.announce_place(id).await?,
            JobStatus::Running => {}
            JobStatus::Succeeded | JobStatus::Failed | JobStatus::Cancelled => {
                self.doors.events.publish(id, Event::Finished(Arc::new(job)));
            }
        }
        Ok(())
    }

    async fn announce_place(&self, id: JobId) -> Result<(), StoreError> {
        if let Some(queue_position) = self.doors.jobs.queue_position(id).await? {
            self.doors.events.publish(id, Event::Queued { queue_position, eta_seconds: self.outlook.eta(id) });
        }
        Ok(())
    }

    /// Removes the files of a job that is gone: what was painted, and what it started from unless others do. What cannot be removed
    /// now is found by the sweep.
    pub(super) async fn remove_files(&self, job: &Job) {
        self.remove_outputs(job.id).await;
        for input in job.request.inputs() {
            if let Err(error) = retention::remove_unowned_input(self, &input.sha256).await {
                tracing::warn!(job.id = %job.id, %error, "could not remove the input of a job that is gone; the sweep will");
            }
        }
    }

    /// Removes what was painted of a job that is gone.
    pub(super) async fn remove_outputs(&self, id: JobId) {
        if let Err(error) = self.doors.pictures.remove_outputs(id).await {
            tracing::warn!(job.id = %id, %error, "could not remove the pictures of a job that is gone; the sweep will");
        }
    }

    /// Tells the end of a job whose run was broken off, and removes its files if it was to vanish.
    pub(super) async fn end_broken_off(&self, job: Job) {
        let job = self.announce_end(job);
        if job.removal_requested {
            self.remove_files(&job).await;
        }
    }

    /// The device can do nothing any more; the first reason is kept.
    pub(super) fn lose_device(&self, reason: EngineError) {
        tracing::error!(error = %reason, "the device is lost");
        self.device.send_if_modified(|state| {
            let first = !matches!(state, DeviceState::Lost(_));
            if first {
                *state = DeviceState::Lost(reason);
            }
            first
        });
    }

    /// Gives back a job that is not on the device, and forgets it.
    pub(super) async fn give_back(&self, claim: &Arc<Claim>) {
        self.release(claim).await;
        self.forget(claim);
    }

    /// Gives back every job that has not left the device.
    pub(super) async fn hand_back(&self) {
        let claims = self.running.hand_back();
        futures::future::join_all(claims.iter().map(|claim| self.release(claim))).await;
    }

    /// Gives back what the store could not take when it was to be given back. Otherwise such a job would wait for its lease to run out,
    /// for as long as the clock may have been set back meanwhile, and then be taken for one that has killed its server.
    pub(super) async fn release_again(&self) {
        let claims = std::mem::take(&mut *lock(&self.unreleased));
        for (place, claim) in claims.iter().enumerate() {
            if !self.release(claim).await {
                // Nor would it take the others.
                lock(&self.unreleased).extend_from_slice(&claims[place + 1..]);
                return;
            }
        }
    }

    /// The store does not answer: the claim is given back when it does.
    pub(super) fn release_later(&self, claim: &Arc<Claim>) {
        lock(&self.unreleased).push(claim.clone());
    }

    /// Gives a claimed job back to the queue; later, if the store does not answer. Answers whether it did.
    async fn release(&self, claim: &Arc<Claim>) -> bool {
        let (id, attempt) = (claim.job(), claim.lease.attempt);
        self.doors.events.end_attempt(id, attempt);
        let request_id = &claim.request_id;
        match self.doors.jobs.release(&claim.lease).await {
            Ok(job) if job.status.is_finished() => {
                tracing::info!(job.id = %id, request.id = request_id, job.status = job.status.as_str(), "job ended");
                self.end_broken_off(job).await;
            }
            Ok(_) => {
                tracing::info!(job.id = %id, request.id = request_id, job.attempt = attempt, "gave the job back to the queue");
                self.move_queue();
                if let Err(error) = self.announce_place(id).await {
                    tracing::warn!(job.id = %id, request.id = request_id, %error, "could not tell the job's place in the queue");
                }
            }
            Err(StoreError::StaleLease { .. }) => {
                tracing::info!(job.id = %id, request.id = request_id, job.attempt = attempt, "somebody else has the job by now");
            }
            Err(error) => {
                tracing::warn!(job.id = %id, request.id = request_id, %error, "could not give the job back; trying again later");
                self.release_later(claim);
                return false;
            }
        }
        true
    }
}

/// Takes a lock. A panic elsewhere while it was held does not make what it guards worse: every section here only assigns.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
