//! Open event streams: how many a client may hold, and how often each is written to.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus::IntGauge;

use super::error::ApiError;
use crate::domain::Owner;

/// Each open stream adds this to the pause that all of them keep between two writes, so that together they are written to at most five
/// hundred times a second: beyond that, writing to readers would take the cores from painting.
const BREATH: Duration = Duration::from_millis(2);
/// The longest pause, so that the readers still see something move.
const LONGEST_BREATH: Duration = Duration::from_secs(1);

/// Counts the open streams of each client.
///
/// The lock keeps the counts and the total together; it is held for a map look-up and never across an await.
#[derive(Debug)]
pub(super) struct Streams {
    most: usize,
    /// Clients without a stream are not in the map.
    open: Mutex<HashMap<Owner, usize>>,
    gauge: IntGauge,
}

/// One open stream; counted until it is dropped.
#[derive(Debug)]
pub(super) struct OpenStream {
    streams: Arc<Streams>,
    owner: Owner,
}

impl Streams {
    /// At most `most` streams for each client; `gauge` shows how many all of them have open.
    pub(super) fn new(most: usize, gauge: IntGauge) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::default(), gauge })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Owner, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more stream of the client `owner`.
    ///
    /// # Errors
    /// [`ApiError::TooManyStreams`] when the client has as many as it may.
    pub(super) fn open(self: &Arc<Self>, owner: Owner) -> Result<OpenStream, ApiError> {
        let mut open = self.lock();
        let count = open.get(&owner).copied().unwrap_or_default();
        if count >= self.most {
            return Err(ApiError::TooManyStreams { most: self.most });
        }
        open.insert(owner.clone(), count + 1);
        self.gauge.inc();
        Ok(OpenStream { streams: self.clone(), owner })
    }
}

impl OpenStream {
    /// The pause to keep between two writes to this stream.
    pub(super) fn breath(&self) -> Duration {
        let open = u32::try_from(self.streams.gauge.get()).unwrap_or_default();
        BREATH.saturating_mul(open).min(LONGEST_BREATH)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        if let Some(count) = open.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.owner);
            }
        }
        self.streams.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(most: usize) -> Arc<Streams> {
        Streams::new(most, IntGauge::new("open", "open").unwrap())
    }

    #[test]
    fn each_client_has_as_many_as_it_may_and_a_closed_one_makes_room() {
        let streams = streams(2);
        let (ann, bob) = (Owner::named("ann"), Owner::named("bob"));
        let held = [streams.open(ann.clone()).unwrap(), streams.open(ann.clone()).unwrap()];
        assert!(matches!(streams.open(ann.clone()), Err(ApiError::TooManyStreams { most: 2 })));
        let other = streams.open(bob).unwrap();
        assert_eq!(streams.gauge.get(), 3);
        let [first, second] = held;
        drop(first);
        let third = streams.open(ann).unwrap();
        drop((second, third, other));
        assert_eq!((streams.gauge.get(), streams.lock().len()), (0, 0));
    }

    #[test]
    fn all_streams_together_are_written_to_at_a_bounded_rate() {
        let streams = streams(usize::MAX);
        let mut held = Vec::new();
        for (count, milliseconds) in [(2, 4), (200, 400), (500, 1000), (3000, 1000)] {
            held.resize_with(count, || streams.open(Owner::named("ann")).unwrap());
            assert_eq!(held[0].breath(), Duration::from_millis(milliseconds), "{count} streams");
        }
    }
}
