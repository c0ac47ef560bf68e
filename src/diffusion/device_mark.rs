//! Places in a device's work, by the device's own clock where nobody waits for it.

use std::time::{Duration, Instant};

use crate::{dispatch::ports::Mark, sys::Event};

/// A place in a device's work.
#[derive(Debug)]
pub struct DeviceMark {
    /// When it was made.
    told: Instant,
    /// `None` where [`Gpu::mark`](super::gpu::Gpu::mark) has none.
    event: Option<Event>,
}

impl DeviceMark {
    pub(super) fn new(event: Option<Event>) -> Self {
        Self { told: Instant::now(), event }
    }
}

impl Mark for DeviceMark {
    fn is_reached(&self) -> bool {
        self.event.as_ref().is_none_or(|event| event.is_done().unwrap_or(true))
    }

    fn wait(&self) {
        // A device that fails here says so to the next who asks it.
        let _ = self.event.as_ref().map(Event::wait);
    }

    fn since(&self, earlier: &Self) -> Option<Duration> {
        match (&self.event, &earlier.event) {
            (Some(event), Some(earlier)) => event.since(earlier).ok(),
            (None, None) => Some(self.told.saturating_duration_since(earlier.told)),
            _ => None,
        }
    }
}
