//! What the watchers of a job are told while it lives.

use std::sync::Arc;

use serde::Serialize;

use super::Job;

/// How far a running job is. Counts the steps that are really run: img2img runs fewer than were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Progress {
    /// Steps done, the least over the job's pictures.
    pub step: u32,
    /// Steps to be run.
    pub num_inference_steps: u32,
    /// `step / num_inference_steps`, 0 to 1.
    pub fraction: f64,
    /// Steps of this job done per second of wall time, since it began to denoise.
    pub steps_per_second: f64,
    /// Seconds until the job has probably ended, by what the work takes that is before it and beside it; while that is not known, until the
    /// last step at its own pace.
    pub eta_seconds: f64,
}

/// A small picture of a canvas that is not finished yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// Steps done when it was taken.
    pub step: u32,
    /// Which of the job's pictures it shows.
    pub index: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The picture, a PNG file.
    pub png: Arc<[u8]>,
}

/// One thing that happened to a job.
#[derive(Debug, Clone)]
pub enum Event {
    /// The job waits; 1 is the next to be claimed.
    Queued {
        /// Its place in the queue, from 1.
        queue_position: u64,
        /// Seconds until the job has probably ended, if that is known.
        eta_seconds: Option<f64>,
    },
    /// A device has begun to paint the job.
    Started,
    /// A step is done.
    Progress(Progress),
    /// A preview was taken.
    Preview(Preview),
    /// The job has ended: succeeded, failed or cancelled. No event follows.
    Finished(Arc<Job>),
}

/// An event's number: attempt × 1,000,000 + sequence, so that numbers rise within a job across restarts.
///
/// The last event always has the last sequence number of its attempt. Any replica can therefore tell, from the stored job alone,
/// whether a watcher has seen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventId(u64);

impl EventId {
    const PER_ATTEMPT: u64 = 1_000_000;

    /// The number before the first event of an attempt.
    pub fn start_of(attempt: u32) -> Self {
        Self(u64::from(attempt) * Self::PER_ATTEMPT)
    }

    /// The number of an attempt's last event.
    pub fn end_of(attempt: u32) -> Self {
        Self(u64::from(attempt) * Self::PER_ATTEMPT + Self::PER_ATTEMPT - 1)
    }

    /// The number after this one; never that of the attempt's last event.
    #[must_use]
    pub fn next(self) -> Self {
        let last = self.0 / Self::PER_ATTEMPT * Self::PER_ATTEMPT + Self::PER_ATTEMPT - 2;
        Self((self.0 + 1).min(last))
    }

    /// The number before this one.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// Reads the `Last-Event-ID` header's text.
    pub fn parse(text: &str) -> Option<Self> {
        text.trim().parse().ok().map(Self)
    }

    /// The plain number.
    pub fn get(self) -> u64 {
        self.0
    }
}
