//! The jobs that this process holds leases on, and what is to become of each.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::Notify;

use super::{ports::Lease, shared::lock};
use crate::domain::{GenerationRequest, Job, JobId};

/// Where a claimed job is between its claim and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// On its way to the device, or on it.
    Painting,
    /// It has left the device and its end is being written; too late to stop it.
    Settling,
    /// Somebody asked it to stop, and the device has not seen it yet.
    Cancelled,
    /// The lease is lost: nothing that this process writes about it would be accepted.
    Lost,
    /// A drain or a lost device gave it back.
    HandedBack,
}

/// A claimed job, shared by the claimer, the device's thread and the tasks that settle and renew.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) lease: Lease,
    pub(super) alone: bool,
    pub(super) request: Arc<GenerationRequest>,
    pub(super) request_id: String,
    pub(super) created_at: Timestamp,
    pub(super) claimed_at: Timestamp,
    /// The same by a clock that nobody sets.
    pub(super) since: Instant,
    /// A lock and not an atomic, because `close` and `stop` read and write it in one go. Held for a few instructions.
    phase: Mutex<Phase>,
    /// Pictures that take, or will take, a place on the device. None are left once the job is being settled.
    canvases: AtomicUsize,
}

impl Claim {
    fn new(job: &Job, alone: bool) -> Self {
        Self {
            lease: Lease { job: job.id, attempt: job.attempts },
            alone,
            request: Arc::new(job.request.clone()),
            request_id: job.request_id.clone(),
            created_at: job.created_at,
            claimed_at: job.started_at.unwrap_or_else(Timestamp::now),
            since: Instant::now(),
            phase: Mutex::new(Phase::Painting),
            canvases: AtomicUsize::new(job.request.num_images as usize),
        }
    }

    pub(super) fn job(&self) -> JobId {
        self.lease.job
    }

    /// How long it is until its deadline, if it has one.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let deadline = Duration::from_secs(self.request.deadline_seconds?.into());
        let waited = Duration::try_from(self.claimed_at.duration_since(self.created_at)).unwrap_or_default();
        Some(deadline.saturating_sub(waited).saturating_sub(self.since.elapsed()))
    }

    pub(super) fn phase(&self) -> Phase {
        *lock(&self.phase)
    }

    /// Whether the device should drop it.
    pub(super) fn is_stopped(&self) -> bool {
        self.phase() != Phase::Painting
    }

    /// Asks the device to drop it, unless it has left the device already. Answers whether it will be.
    pub(super) fn stop(&self, why: Phase) -> bool {
        let mut phase = lock(&self.phase);
        let stops = matches!(*phase, Phase::Painting | Phase::Cancelled);
        if stops {
            *phase = why;
        }
        stops
    }

    /// It leaves the device, and its end is going to be written unless it is lost or handed back. Answers the phase before.
    pub(super) fn close(&self) -> Phase {
        let mut phase = lock(&self.phase);
        let before = *phase;
        if matches!(before, Phase::Painting | Phase::Cancelled) {
            *phase = Phase::Settling;
        }
        self.canvases.store(0, Ordering::Relaxed);
        before
    }

    /// Some of its pictures no longer need a place on the device.
    pub(super) fn leave(&self, canvases: usize) {
        self.canvases.fetch_sub(canvases, Ordering::Relaxed);
    }
}

/// Every claim that this process holds.
///
/// Two tasks and the device's thread add, find and remove claims; the lock keeps the map whole, for a few instructions each time.
#[derive(Debug, Default)]
pub(super) struct Running {
    claims: Mutex<HashMap<Lease, Arc<Claim>>>,
    /// Wakes the device's thread while it waits for a model: somebody wants a job to stop.
    pub(super) stopped: Notify,
}

impl Running {
    /// Remembers a claim. An older claim of the same job is lost: otherwise the store would not have given this one.
    pub(super) fn add(&self, job: &Job, alone: bool) -> Arc<Claim> {
        let claim = Arc::new(Claim::new(job, alone));
        let mut claims = lock(&self.claims);
        claims.values().filter(|older| older.job() == job.id).for_each(|older| {
            older.stop(Phase::Lost);
        });
        claims.insert(claim.lease, claim.clone());
        claim
    }

    pub(super) fn remove(&self, lease: &Lease) {
        lock(&self.claims).remove(lease);
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.claims).is_empty()
    }

    /// Whether the device has room for one more canvas and is not reserved for a job that runs alone.
    ///
    /// Pictures that are being settled have left the device, but their pixels still lie in the memory. As many as the device holds may
    /// do so without holding it up; a picture store that has stopped answering must not fill the memory.
    pub(super) fn has_room(&self, max_canvases: usize) -> bool {
        let claims = lock(&self.claims);
        let (mut painting, mut settling) = (0, 0);
        for claim in claims.values() {
            match claim.canvases.load(Ordering::Relaxed) {
                0 => settling += claim.request.num_images as usize,
                canvases => painting += canvases,
            }
        }
        painting < max_canvases && settling <= max_canvases && !claims.values().any(|claim| claim.alone)
    }

    /// The models of the claims that have, or will have, canvases on the device.
    pub(super) fn models(&self) -> BTreeSet<String> {
        let claims = lock(&self.claims);
        let painting = claims.values().filter(|claim| claim.canvases.load(Ordering::Relaxed) > 0 && !claim.is_stopped());
        painting.flat_map(|claim| claim.request.models().into_iter().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    /// The leases to renew.
    pub(super) fn leases(&self) -> Vec<Lease> {
        lock(&self.claims).values().filter(|claim| claim.phase() != Phase::Lost).map(|claim| claim.lease).collect()
    }

    /// The lease is lost: the device drops the job at its next step boundary. Answers the claim, if the device still had it.
    pub(super) fn lose(&self, lease: &Lease) -> Option<Arc<Claim>> {
        let lost = lock(&self.claims).get(lease).filter(|claim| claim.stop(Phase::Lost)).cloned();
        self.stopped.notify_one();
        lost
    }

    /// Stops the job at its next step boundary, if it runs here.
    pub(super) fn stop(&self, job: JobId, why: Phase) {
        lock(&self.claims).values().filter(|claim| claim.job() == job).for_each(|claim| {
            claim.stop(why);
        });
        self.stopped.notify_one();
    }

    /// Stops every job that has not left the device, and forgets it. Answers the claims to release.
    pub(super) fn hand_back(&self) -> Vec<Arc<Claim>> {
        let stopped = lock(&self.claims).extract_if(|_, claim| claim.stop(Phase::HandedBack)).map(|(_, claim)| claim).collect();
        self.stopped.notify_one();
        stopped
    }
}

#[cfg(test)]
mod tests {
    use super::{super::events::tests::job, *};

    fn claims(running: &Running, count: usize) -> Vec<Arc<Claim>> {
        (0..count).map(|_| running.add(&job(1), false)).collect()
    }

    #[test]
    fn pictures_that_are_being_settled_hold_nothing_up_until_they_are_many() {
        let running = Running::default();
        let first = claims(&running, 2);
        assert!(!running.has_room(2), "the device is full");
        for claim in first {
            claim.close();
        }
        assert!(running.has_room(2), "as many as the device holds may be settled beside it");
        let third = claims(&running, 1);
        third[0].close();
        assert!(!running.has_room(2), "their pixels would fill the memory");
        running.remove(&third[0].lease);
        assert!(running.has_room(2));
    }
}
