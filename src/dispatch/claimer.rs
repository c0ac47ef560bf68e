//! Claims jobs while the device has room, fetches their input pictures, and sends them to the device's thread.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{
    admission::unix_seconds,
    deadlines,
    outlook::FORESEEN,
    painting::Order,
    ports::{ClaimOutcome, DeviceView, PaintOrder, PictureKey, StoreError},
    running::{Claim, Phase},
    settle,
    shared::{DeviceState, Shared},
    work::Work,
};
use crate::domain::{Event, Job, JobError, JobId, PictureError, PictureRef, decode_luma, decode_rgb, sha256_hex};

/// How long a job may go unseen when nothing wakes the claimer: one that another process has stored or given back.
const SLOW_POLL: Duration = Duration::from_secs(1);

/// How often the picture store may fail to read a job's input, while it seems to work otherwise, before the job fails.
const INPUT_TRIES: u32 = 5;

/// Claims until the server drains or the device is lost; then drops its end of the channel, so that the device's thread can end.
pub(super) async fn run(shared: Arc<Shared>, orders: mpsc::Sender<Order>) {
    let mut device = shared.device.subscribe();
    let mut claimer = Claimer { shared: shared.clone(), orders, unread: None };
    while !shared.draining.is_cancelled() && !matches!(*device.borrow_and_update(), DeviceState::Lost(_)) {
        if let Err(error) = claimer.claim_while_there_is_room().await {
            tracing::warn!(%error, "could not claim a job; trying again soon");
        }
        let pause = shared.outage.pause(Instant::now());
        let look = SLOW_POLL.min(shared.residence.rest().unwrap_or(SLOW_POLL));
        tokio::select! {
            () = shared.draining.cancelled() => {}
            () = shared.wake.notified() => {}
            _ = device.changed() => {}
            () = tokio::time::sleep(if pause.is_zero() { look } else { look.min(pause) }) => {}
        }
    }
}

struct Claimer {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
    /// The job whose input could not be read, and how often. One is enough: given back, it is the next to be claimed.
    unread: Option<(JobId, u32)>,
}

impl Claimer {
    async fn claim_while_there_is_room(&mut self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        deadlines::end_overdue(&shared).await?;
        while self.may_claim().await? {
            let was_empty = shared.running.is_empty();
            let models = shared.residence.turns(shared.settings.model_stay, &shared.running.models());
            let device = DeviceView { is_empty: was_empty, models };
            let claimed = shared.doors.jobs.claim(&shared.worker, shared.settings.lease, &device, &shared.settings.quotas).await?;
            let ClaimOutcome::Claimed { job, alone } = claimed else { break };
            if was_empty {
                shared.pace.work_begins(Instant::now());
                shared.outlook.work_begins();
            }
            shared.move_queue();
            let claim = shared.running.add(&job, alone);
            shared.outlook.claimed(Work::queued(job.id, &job.request, (shared.outlook.ageing(), unix_seconds(&job))));
            self.deliver(claim, &job).await?;
            tell_the_queue(&shared).await?;
        }
        self.look_at_the_queue().await?;
        tell_the_queue(&shared).await?;
        Ok(())
    }

    /// Tells the outlook what waits.
    async fn look_at_the_queue(&self) -> Result<(), StoreError> {
        let Shared { doors, outlook, .. } = &*self.shared;
        let queued = doors.jobs.counts().await?.queued;
        doors.metrics.queue_depth.set(queued as i64);
        if doors.jobs.is_paused().await? {
            outlook.set_queue(None, true);
            return Ok(());
        }
        let first = if queued == 0 { Vec::new() } else { doors.jobs.first_queued(FORESEEN).await? };
        let work = |job: &Job| Work::queued(job.id, &job.request, (outlook.ageing(), unix_seconds(job)));
        outlook.set_queue(Some(first.iter().map(work).collect()), queued <= FORESEEN.into());
        Ok(())
    }

    async fn may_claim(&self) -> Result<bool, StoreError> {
        let shared = &self.shared;
        let has_room = shared.running.has_room(shared.settings.max_canvases);
        if shared.draining.is_cancelled() || !shared.is_ready() || !has_room || !shared.outage.pause(Instant::now()).is_zero() {
            return Ok(false);
        }
        // What would be painted now could not be stored.
        if shared.outage.is_on() {
            shared.ping_pictures().await.inspect_err(|_| shared.outage.failed(Instant::now()))?;
        }
        Ok(true)
    }

    /// Brings a claimed job to the device's thread.
    async fn deliver(&mut self, claim: Arc<Claim>, job: &Job) -> Result<(), StoreError> {
        let shared = &self.shared;
        let waited = claim.claimed_at.duration_since(claim.created_at).as_secs_f64().max(0.0);
        shared.doors.metrics.queue_wait_seconds.observe(waited);
        tracing::info!(job.id = %job.id, request.id = job.request_id, job.attempt = job.attempts, queue.seconds = waited, "claimed a job");
        stop_if_asked(shared, &claim).await;
        let paint = match prepare(shared, &claim).await {
            Ok(paint) => paint,
            Err(Unprepared::Failed(error)) => {
                settle::fail(shared, &claim, error).await;
                return Ok(());
            }
            Err(Unprepared::Store(error)) => return self.give_back_unread(&claim, error).await,
        };
        let order = Order { paint, claim: claim.clone() };
        let sent = tokio::select! {
            biased;
            () = shared.draining.cancelled() => false,
            sent = self.orders.send(order) => sent.is_ok(),
        };
        if !sent && claim.stop(Phase::HandedBack) {
            shared.give_back(&claim).await;
        }
        Ok(())
    }

    /// Gives back a job whose input the picture store cannot read now; fails it when that has happened too often, or it would stand at
    /// the head of the queue for ever.
    async fn give_back_unread(&mut self, claim: &Arc<Claim>, error: StoreError) -> Result<(), StoreError> {
        let before = self.unread.take().filter(|(job, _)| *job == claim.job()).map_or(0, |(_, times)| times);
        if before + 1 >= INPUT_TRIES {
            let problem = format!("a picture to start from cannot be read: {error}");
            settle::fail(&self.shared, claim, JobError::new("input_unreadable", problem)).await;
            // The store itself has answered before each claim: it is this file.
            self.shared.outage.over();
            return Ok(());
        }
        self.unread = Some((claim.job(), before + 1));
        self.shared.outage.failed(Instant::now());
        self.shared.give_back(claim).await;
        Err(error)
    }
}

/// A cancel that came between the store's claim and `Running::add` has found nobody to tell. Reading the job after `add` finds it:
/// a cancel writes to the store before it looks for the claim, so one of the two sees the other.
async fn stop_if_asked(shared: &Shared, claim: &Claim) {
    match shared.doors.jobs.get(claim.job()).await {
        Ok(Some(job)) if job.cancel_requested => {
            claim.stop(Phase::Cancelled);
        }
        Ok(_) => {}
        Err(error) => {
            let request_id = &claim.request_id;
            tracing::warn!(job.id = %claim.job(), request.id = request_id, %error, "could not read the job; a cancel would be seen at the next renewal")
        }
    }
}

/// Why a job cannot be brought to the device.
enum Unprepared {
    Failed(JobError),
    Store(StoreError),
}

/// The job with its pictures.
async fn prepare(shared: &Shared, claim: &Claim) -> Result<PaintOrder, Unprepared> {
    let request = claim.request.clone();
    let image = request.img2img.as_ref().map(|img2img| &img2img.image);
    let init_image = fetch(shared, image, "the picture to start from", decode_rgb).await?;
    let mask = request.inpainting.as_ref().map(|inpainting| &inpainting.mask_image);
    let mask_image = fetch(shared, mask, "the mask", decode_luma).await?;
    Ok(PaintOrder { request, init_image, mask_image })
}

/// Fetches a picture of the job, if it has that one. `what` it is, for people.
async fn fetch<P: Send + 'static>(
    shared: &Shared,
    reference: Option<&PictureRef>,
    what: &str,
    decode: fn(&[u8]) -> Result<P, PictureError>,
) -> Result<Option<Arc<P>>, Unprepared> {
    let Some(reference) = reference.cloned() else { return Ok(None) };
    let missing = |problem: String| Unprepared::Failed(JobError::new("input_missing", format!("{what} cannot be read: {problem}")));
    let key = PictureKey::Input { sha256: reference.sha256.clone() };
    let file = shared.doors.pictures.get(&key).await.map_err(Unprepared::Store)?;
    shared.outage.over();
    let file = file.ok_or_else(|| missing("its file is not in the picture store".to_owned()))?;
    let decode_checked = move || {
        if sha256_hex(&file) != reference.sha256 {
            return Err("its file in the picture store is damaged".to_owned());
        }
        decode(&file).map_err(|error| error.to_string())
    };
    let decoded = tokio::task::spawn_blocking(decode_checked).await.unwrap_or_else(|error| Err(error.to_string()));
    decoded.map(|picture| Some(Arc::new(picture))).map_err(missing)
}

/// Tells everybody who waits their place, if places have changed. Costs nothing while nobody watches. Only the claimer tells, so that
/// nobody is told an older place after a newer one.
async fn tell_the_queue(shared: &Shared) -> Result<(), StoreError> {
    if !shared.take_queue_move() {
        return Ok(());
    }
    let watched: HashSet<_> = shared.doors.events.watched().into_iter().collect();
    if watched.is_empty() {
        return Ok(());
    }
    for (queue_position, job) in (1..).zip(shared.doors.jobs.queue().await?) {
        if watched.contains(&job) {
            shared.doors.events.publish(job, Event::Queued { queue_position, eta_seconds: shared.outlook.eta(job) });
        }
    }
    Ok(())
}
