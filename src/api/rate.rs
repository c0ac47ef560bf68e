//! How often a client may ask.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

/// One client's requests: a token bucket that holds the requests of one second.
#[derive(Debug)]
pub(super) struct Rate(Option<DefaultDirectRateLimiter>);

impl Rate {
    /// A bucket for so many requests a second; 0 is no limit.
    pub(super) fn new(requests_per_second: u32) -> Self {
        Self(NonZeroU32::new(requests_per_second).map(|requests| RateLimiter::direct(Quota::per_second(requests))))
    }

    /// Takes one request from the bucket; an empty one answers how long the next takes to come.
    pub(super) fn take(&self) -> Result<(), Duration> {
        let Some(bucket) = &self.0 else { return Ok(()) };
        bucket.check().map_err(|not_until| not_until.wait_time_from(DefaultClock::default().now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_one_second_of_requests() {
        let rate = Rate::new(1);
        assert_eq!(rate.take(), Ok(()));
        let wait = rate.take().unwrap_err();
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
    }

    #[test]
    fn no_limit_is_no_bucket() {
        let rate = Rate::new(0);
        assert!((0..10_000).all(|_| rate.take().is_ok()));
    }
}
