//! Keeps leases alive, and takes back the jobs whose leases have run out.

use std::{sync::Arc, time::Duration};

use tokio::time::{Interval, MissedTickBehavior};

use super::{
    ports::{Recovery, StoreError},
    running::Phase,
    shared::Shared,
};

/// Renews and recovers until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut ticks = every(shared.settings.lease / 3);
    loop {
        ticks.tick().await;
        shared.release_again().await;
        // Own leases first, and nothing is taken back before they are renewed: a process that was held up, or whose clock has jumped,
        // must not take back its own jobs.
        let done = async {
            renew(&shared).await?;
            recover(&shared).await
        };
        if let Err(error) = done.await {
            tracing::warn!(%error, "could not renew leases and recover jobs; trying again soon");
        }
    }
}

/// Ticks now and then every `period`; ticks that were missed are not made up for.
pub(super) fn every(period: Duration) -> Interval {
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
        for claim in leases.iter().filter(|lease| lease.job == job).filter_map(|lease| shared.running.lose(lease)) {
            tracing::warn!(job.id = %job, request.id = claim.request_id, job.attempt = claim.lease.attempt, "lost the lease");
        }
    }
    for job in renewal.cancel_requested {
        shared.running.stop(job, Phase::Cancelled);
    }
    Ok(())
}

async fn recover(shared: &Shared) -> Result<(), StoreError> {
    let Recovery { ended, requeued } = shared.doors.jobs.recover(shared.settings.max_attempts).await?;
    for job in ended {
        let status = job.status.as_str();
        tracing::warn!(job.id = %job.id, request.id = job.request_id, job.attempts = job.attempts, job.status = status, "ended a lost job");
        shared.end_broken_off(job).await;
    }
    if requeued > 0 {
        shared.move_queue();
    }
    Ok(())
}
