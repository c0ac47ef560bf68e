//! Files on their way to clients. A client that reads slowly keeps its file in memory, so all of them together are bounded.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::api::error::ApiError;

/// What the files of all requests may take: twenty of the largest pictures, thousands of the usual ones.
const MEMORY_BYTES: usize = 256 << 20;
const KIB: usize = 1024;
/// What is handed to the connection at a time: the rest waits here until the client has taken that in.
const CHUNK_BYTES: usize = 64 * KIB;

/// The memory for files on their way.
#[derive(Debug)]
pub(super) struct Downloads {
    /// In KiB, so that the count stays small.
    memory: Arc<Semaphore>,
    patience: Duration,
}

/// A file's share of the memory, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    _permit: OwnedSemaphorePermit,
}

impl Downloads {
    /// Requests wait for at most `patience` for others to go.
    pub(super) fn new(patience: Duration) -> Self {
        Self { memory: Arc::new(Semaphore::new(MEMORY_BYTES / KIB)), patience }
    }

    /// Reserves the memory of a file of at most so many bytes.
    pub(super) async fn reserve(&self, bytes: u64) -> Result<Share, ApiError> {
        let kib = bytes.div_ceil(KIB as u64).min((MEMORY_BYTES / KIB) as u64);
        let permits = Arc::clone(&self.memory).acquire_many_owned(u32::try_from(kib).unwrap_or(u32::MAX));
        let share = timeout(self.patience, permits).await.map_err(|_| ApiError::PicturesBusy)?;
        share.map(|permit| Share { _permit: permit }).map_err(|closed| ApiError::Internal(closed.to_string()))
    }
}

impl Share {
    /// The file as a body, which keeps the share until its end has been taken in.
    pub(super) fn body(self, file: Bytes) -> Body {
        let starts = (0..file.len()).step_by(CHUNK_BYTES);
        let chunks = starts.map(move |start| {
            let _held = &self;
            Ok::<_, Infallible>(file.slice(start..file.len().min(start + CHUNK_BYTES)))
        });
        Body::from_stream(stream::iter(chunks).boxed())
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn what_slow_readers_keep_is_bounded_and_comes_back() {
        let downloads = Downloads::new(Duration::ZERO);
        let file = Bytes::from(vec![7; 3 * CHUNK_BYTES + 1]);
        let body = downloads.reserve(MEMORY_BYTES as u64).await.unwrap().body(file.clone());
        assert!(matches!(downloads.reserve(1).await, Err(ApiError::PicturesBusy)));
        assert_eq!(to_bytes(body, usize::MAX).await.unwrap(), file);
        downloads.reserve(MEMORY_BYTES as u64).await.unwrap();
    }
}
