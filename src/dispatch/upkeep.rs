//! Keeps leases alive, and takes back the jobs whose leases have run out.

use std::{sync::Arc, time::Duration};

use tokio::time::{Interval, MissedTickBehavior};

use super::{ports::StoreError, running::Phase, shared::Shared};

/// Renews and recovers until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let lease = shared.settings.lease;
    let (mut renewal, mut recovery) = (every(lease / 3), every(lease / 2));
    loop {
        let (work, done) = tokio::select! {
            // Own leases first: a process that was held up must not take back its own jobs.
            biased;
            _ = renewal.tick() => ("renew leases", renew(&shared).await),
            _ = recovery.tick() => ("recover jobs", recover(&shared).await),
        };
        if let Err(error) = done {
            tracing::warn!(%error, "could not {work}; trying again soon");
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period.max(Duration::from_millis(1)));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn renew(shared: &Shared) -> Result<(), StoreError> {
    let leases = shared.running.leases();
    if leases.is_empty() {
        return Ok(());
    }
    let renewal = shared.doors.jobs.renew(&leases, shared.settings.lease).await?;
    for job in renewal.lost {
        // A claim that is newer than this round of renewals is not meant; one that has just been settled has nothing to lose.
        for lease in leases.iter().filter(|lease| lease.job == job && shared.running.lose(lease)) {
            tracing::warn!(job.id = %job, job.attempt = lease.attempt, "lost the lease");
        }
    }
    for job in renewal.cancel_requested {
        shared.running.stop(job, Phase::Cancelled);
    }
    Ok(())
}

async fn recover(shared: &Shared) -> Result<(), StoreError> {
    for job in shared.doors.jobs.recover(shared.settings.max_attempts).await? {
        tracing::warn!(job.id = %job.id, job.attempts = job.attempts, "gave up on a job that kept dying");
        shared.announce_end(job);
    }
    // Others may have gone back to the queue.
    shared.wake.notify_one();
    Ok(())
}
