//! Whether the picture store works. While it does not, painting would be in vain.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use super::shared::lock;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Failures of the picture store in a row, and the pause that they call for.
///
/// The lock keeps both together; it is held for a few instructions and never across an await.
#[derive(Debug, Default)]
pub(super) struct Outage(Mutex<Option<Pause>>);

#[derive(Debug, Clone, Copy)]
struct Pause {
    length: Duration,
    until: Instant,
}

impl Outage {
    /// The store has failed: the next pause is twice as long as the last. Failures within a pause are of the same outage.
    pub(super) fn failed(&self, now: Instant) {
        let mut pause = lock(&self.0);
        let length = match *pause {
            Some(Pause { until, .. }) if now < until => return,
            Some(Pause { length, .. }) => LONGEST_PAUSE.min(2 * length),
            None => FIRST_PAUSE,
        };
        *pause = Some(Pause { length, until: now + length });
    }

    /// The store has done what it was asked to.
    pub(super) fn over(&self) {
        *lock(&self.0) = None;
    }

    /// Whether the store's last answer was a failure.
    pub(super) fn is_on(&self) -> bool {
        lock(&self.0).is_some()
    }

    /// How long nothing should be begun yet.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        lock(&self.0).map_or(Duration::ZERO, |pause| pause.until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_the_store_works_again() {
        let (outage, start) = (Outage::default(), Instant::now());
        assert_eq!((outage.is_on(), outage.pause(start)), (false, Duration::ZERO));
        let mut now = start;
        for seconds in [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
            outage.failed(now);
            outage.failed(now);
            assert_eq!(outage.pause(now), Duration::from_secs_f64(seconds));
            now += outage.pause(now);
            assert_eq!((outage.is_on(), outage.pause(now)), (true, Duration::ZERO));
        }
        outage.over();
        assert!(!outage.is_on());
    }
}
