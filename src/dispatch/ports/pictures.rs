//! The door to the picture store.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::StoreError;
use crate::domain::JobId;

/// Keeps picture files by key. A file is there whole or not at all.
#[async_trait]
pub trait PictureStore: Send + Sync + 'static {
    /// Writes a file; replaces one of the same key.
    async fn put(&self, key: &PictureKey, bytes: Bytes) -> Result<(), StoreError>;

    /// Reads a file; `None` when there is none.
    async fn get(&self, key: &PictureKey) -> Result<Option<Bytes>, StoreError>;

    /// Removes every painted picture of a job; one that has none is no error.
    async fn remove_outputs(&self, job: JobId) -> Result<(), StoreError>;

    /// Removes a picture that a client sent; one that is not there is no error.
    async fn remove_input(&self, sha256: &str) -> Result<(), StoreError>;

    /// Every job that painted pictures are kept of.
    async fn outputs(&self) -> Result<Vec<JobId>, StoreError>;

    /// Every picture that clients have sent.
    async fn inputs(&self) -> Result<Vec<StoredInput>, StoreError>;

    /// Removes what a crash has left of files that were being written, when it is older than `age`; answers how many.
    async fn remove_unfinished(&self, age: Duration) -> Result<u64, StoreError>;

    /// Whether the store answers.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// Where a picture is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PictureKey {
    /// A picture that a client sent, by the SHA-256 of its file: `inputs/{sha256}`.
    Input {
        /// In hexadecimal.
        sha256: String,
    },
    /// A painted picture: `pictures/{job}/{index}.png`.
    Output {
        /// The job.
        job: JobId,
        /// Its place in the request.
        index: u32,
    },
}

/// A picture that a client has sent, as it lies in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredInput {
    /// In hexadecimal.
    pub sha256: String,
    /// When it was last written: again by each request that brings it.
    pub written_at: Timestamp,
}
