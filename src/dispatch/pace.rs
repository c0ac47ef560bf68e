//! How fast jobs come to their end, to tell a client that was turned away when a place is likely to be free.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use super::shared::lock;

/// The weight of the newest interval in the running average.
const WEIGHT: f64 = 0.2;
const SHORTEST: f64 = 1.0;
const LONGEST: f64 = 3600.0;

/// A running average of the time between two jobs' ends, over the times in which there was work.
///
/// The lock keeps the last end and the average together; it is held for a few instructions and never across an await.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The last end, or the start of work after idleness.
    since: Option<Instant>,
    average_seconds: Option<f64>,
}

impl Pace {
    /// Work begins after idleness, which must not count as slowness.
    pub(super) fn work_begins(&self, now: Instant) {
        lock(&self.0).since = Some(now);
    }

    /// A job has ended.
    pub(super) fn job_ended(&self, now: Instant) {
        let mut state = lock(&self.0);
        if let Some(since) = state.since.replace(now) {
            let seconds = now.saturating_duration_since(since).as_secs_f64();
            state.average_seconds = Some(state.average_seconds.map_or(seconds, |average| average + WEIGHT * (seconds - average)));
        }
    }

    /// When one more place is likely to be free, by how fast jobs end: whole seconds, 1 to 3600.
    pub(super) fn retry_after(&self, now: Instant) -> Duration {
        let state = lock(&self.0);
        // Before any job has ended, the first will take at least as long again as it has taken until now.
        let waited = || state.since.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64());
        let seconds = state.average_seconds.unwrap_or_else(waited);
        whole_seconds(seconds)
    }
}

/// What a client can be told to wait: whole seconds, 1 to 3600.
pub(super) fn whole_seconds(seconds: f64) -> Duration {
    Duration::from_secs(seconds.ceil().clamp(SHORTEST, LONGEST) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn retry_after_is_the_usual_time_between_two_ends() {
        let (pace, start) = (Pace::default(), Instant::now());
        pace.work_begins(start);
        (1..=5).for_each(|job| pace.job_ended(after(start, 7 * job)));
        assert_eq!(pace.retry_after(after(start, 35)), Duration::from_secs(7));
    }

    #[test]
    fn an_idle_night_does_not_count_as_slowness() {
        let (pace, start) = (Pace::default(), Instant::now());
        pace.work_begins(start);
        pace.job_ended(after(start, 4));
        pace.work_begins(after(start, 30_000));
        pace.job_ended(after(start, 30_004));
        assert_eq!(pace.retry_after(after(start, 30_004)), Duration::from_secs(4));
    }

    #[test]
    fn retry_after_stays_between_a_second_and_an_hour() {
        let (pace, start) = (Pace::default(), Instant::now());
        assert_eq!(pace.retry_after(start), Duration::from_secs(1));
        pace.work_begins(start);
        pace.job_ended(after(start, 90_000));
        assert_eq!(pace.retry_after(start), Duration::from_secs(3600));
    }
}
