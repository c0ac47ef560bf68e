//! Places in a device's work. A device that is told what to do and not waited for has a time of its own: what lies between two places.

use std::time::{Duration, Instant};

/// What a device does in order; it may do the lines side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// [`Engine::begin`](super::Engine::begin), [`Engine::step`](super::Engine::step) and [`Engine::preview`](super::Engine::preview).
    Steps,
    /// [`Engine::finish`](super::Engine::finish).
    Decodes,
}

/// A place in a device's work.
pub trait Mark {
    /// Whether the device has come to it, or never will since it has failed.
    fn is_reached(&self) -> bool;

    /// Waits until [`Self::is_reached`].
    fn wait(&self);

    /// The device's time from an earlier place of the same line, when both are reached; `None` where it cannot tell.
    fn since(&self, earlier: &Self) -> Option<Duration>;
}

/// Of an engine whose calls return when the device is done.
impl Mark for Instant {
    fn is_reached(&self) -> bool {
        true
    }

    fn wait(&self) {}

    fn since(&self, earlier: &Self) -> Option<Duration> {
        Some(self.saturating_duration_since(*earlier))
    }
}
