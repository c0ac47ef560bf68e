//! The time of an engine that takes none: its thread's own, and that at which its device is done with each line of its work.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use easel::dispatch::ports::{Line, Mark};

/// The clock of an engine and its device.
#[derive(Clone)]
pub(super) struct Clock {
    start: Instant,
    /// Calls return before the device is done, as a GPU's do.
    is_late: bool,
    times: Arc<Mutex<Times>>,
}

/// Seconds since the start.
#[derive(Default)]
struct Times {
    thread: f64,
    steps: f64,
    decodes: f64,
    /// When each of the calls was done that the device was told.
    calls: Vec<f64>,
}

impl Clock {
    pub(super) fn new(is_late: bool) -> Self {
        Self { start: Instant::now(), is_late, times: Arc::default() }
    }

    pub(super) fn now(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.passed())
    }

    /// Seconds that its thread has done things or waited.
    pub(super) fn passed(&self) -> f64 {
        self.times.lock().unwrap().thread
    }

    /// The device is told a call.
    pub(super) fn step(&self, seconds: f64) {
        let mut times = self.times.lock().unwrap();
        let ahead = times.calls.iter().filter(|&&end| end > times.thread).count();
        assert!(ahead <= 1, "the device has {ahead} calls to do and is told another");
        times.steps = times.steps.max(times.thread) + seconds;
        let end = times.steps;
        times.calls.push(end);
        self.wait_for(end, &mut times);
    }

    /// The device is told a decode, which comes behind the calls that it was told before.
    pub(super) fn decode(&self, seconds: f64) {
        let mut times = self.times.lock().unwrap();
        times.decodes = times.decodes.max(times.steps).max(times.thread) + seconds;
        let end = times.decodes;
        self.wait_for(end, &mut times);
    }

    fn wait_for(&self, end: f64, times: &mut Times) {
        if !self.is_late {
            times.thread = end;
        }
    }

    /// The place behind what the device has been told of a line.
    pub(super) fn place(&self, line: Line) -> Place {
        let times = self.times.lock().unwrap();
        let steps = times.steps.max(times.thread);
        let at = match line {
            Line::Steps => steps,
            Line::Decodes => times.decodes.max(steps),
        };
        Place { at, clock: self.clone() }
    }
}

/// A place in the device's work.
pub(super) struct Place {
    at: f64,
    clock: Clock,
}

impl Mark for Place {
    fn is_reached(&self) -> bool {
        self.clock.times.lock().unwrap().thread >= self.at
    }

    fn wait(&self) {
        let mut times = self.clock.times.lock().unwrap();
        times.thread = times.thread.max(self.at);
    }

    fn since(&self, earlier: &Self) -> Option<Duration> {
        Some(Duration::from_secs_f64(self.at - earlier.at))
    }
}
