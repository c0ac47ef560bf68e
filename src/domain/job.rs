//! A job: a request on its way to being pictures.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{GenerationRequest, JobError, Owner, Submission};

/// A job's name. Random (122 bits), so that knowing one tells nothing about another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(Uuid);

impl JobId {
    /// A new, unguessable id.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = String;

    /// Reads an id as [`fmt::Display`] writes it. UUIDs have other spellings (capitals, braces, no hyphens); none of them is taken, so that
    /// a job has one name.
    fn from_str(text: &str) -> Result<Self, String> {
        let id = Uuid::from_str(text).map(Self).map_err(|error| error.to_string())?;
        if id.to_string() == text { Ok(id) } else { Err(format!("expected it to be written {id}")) }
    }
}

/// Where a job is in its life: `queued → running → succeeded | failed | cancelled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Waits to be claimed.
    Queued,
    /// Claimed by a worker.
    Running,
    /// Its pictures are stored.
    Succeeded,
    /// Ended with an error.
    Failed,
    /// Ended because somebody asked for it.
    Cancelled,
}

impl JobStatus {
    /// Every status, in the order of a job's life.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// Whether the job has ended; nothing about it changes any more.
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The word that the API and the database use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl FromStr for JobStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| format!("unknown job status {text:?}"))
    }
}

/// Where a job's time went, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// From the POST until the claim that ended well.
    pub queue_ms: f64,
    /// Text encoder and, for img2img, the VAE's encoder.
    pub encode_ms: f64,
    /// First step to last step, the company's steps included.
    pub denoise_ms: f64,
    /// The VAE's decoder.
    pub decode_ms: f64,
    /// Pictures to files, and files to the picture store.
    pub store_ms: f64,
    /// From the POST to the end.
    pub total_ms: f64,
}

/// One finished picture of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobImage {
    /// Its place in the request, from 0.
    pub index: u32,
    /// The seed that painted it: the request's seed + index.
    pub seed: u64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The file's media type.
    pub content_type: String,
    /// The file's length in bytes.
    pub bytes: u64,
    /// The file's SHA-256 in hexadecimal.
    pub sha256: String,
}

/// A job as the store keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// Where it is in its life.
    pub status: JobStatus,
    /// When the POST was accepted.
    pub created_at: Timestamp,
    /// When the last claim was made.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// What to paint.
    pub request: GenerationRequest,
    /// What the client should know and that is no error.
    pub warnings: Vec<String>,
    /// The finished pictures, in order; empty until the job has succeeded.
    pub images: Vec<JobImage>,
    /// Why it failed.
    pub error: Option<JobError>,
    /// How often it was claimed. Also the fencing number of its lease.
    pub attempts: u32,
    /// Where its time went; zeros until it ends.
    pub timings: Timings,
    /// Somebody has asked a running job to stop; it does at its next step boundary.
    pub cancel_requested: bool,
    /// Somebody has asked a running job to vanish; it does when it has stopped.
    pub removal_requested: bool,
    /// The id of the HTTP request that brought it, for the logs.
    pub request_id: String,
    /// Whose it is.
    pub owner: Owner,
    /// The job that failed or was cancelled and that this one runs again.
    pub retry_of: Option<JobId>,
}

impl Job {
    /// A new job of nobody's in particular, queued now.
    pub fn queued(submission: &Submission, request_id: &str) -> Self {
        Self {
            id: JobId::random(),
            status: JobStatus::Queued,
            created_at: Timestamp::now(),
            started_at: None,
            finished_at: None,
            request: submission.request.clone(),
            warnings: submission.warnings.clone(),
            images: Vec::new(),
            error: None,
            attempts: 0,
            timings: Timings::default(),
            cancel_requested: false,
            removal_requested: false,
            request_id: request_id.to_owned(),
            owner: Owner::anonymous(),
            retry_of: None,
        }
    }
}
