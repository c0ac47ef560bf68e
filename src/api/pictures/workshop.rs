//! Makes the files of pictures that are not stored: a few at a time, on threads that may block.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use super::{download::Downloads, variant::Variant};
use crate::{api::error::ApiError, domain::remake};

/// How many files are made at a time. One of 2048 × 2048 pixels takes up to 128 MiB and seconds of a core.
const BENCHES: usize = 2;
/// The longest that a request waits for others to be done.
const PATIENCE: Duration = Duration::from_secs(10);

/// The place where pictures are written once more.
#[derive(Debug)]
pub(in crate::api) struct Workshop {
    /// The memory for files, made here or not.
    pub(super) downloads: Downloads,
    benches: Arc<Semaphore>,
    patience: Duration,
}

/// The right to make one file.
#[derive(Debug)]
pub(super) struct Bench(OwnedSemaphorePermit);

impl Default for Workshop {
    fn default() -> Self {
        Self::new(BENCHES, PATIENCE)
    }
}

impl Workshop {
    fn new(benches: usize, patience: Duration) -> Self {
        Self { downloads: Downloads::new(patience), benches: Arc::new(Semaphore::new(benches)), patience }
    }

    /// Waits for a bench. Nothing of a picture is in memory while its request waits.
    pub(super) async fn bench(&self) -> Result<Bench, ApiError> {
        let bench = timeout(self.patience, Arc::clone(&self.benches).acquire_owned()).await;
        bench.map_err(|_| ApiError::PicturesBusy)?.map(Bench).map_err(|closed| ApiError::Internal(closed.to_string()))
    }
}

impl Bench {
    /// Makes the file. Work that has begun keeps its bench to the end, though the client may have gone; work that has not is dropped
    /// with the request.
    pub(super) async fn make(self, file: Bytes, variant: Variant) -> Result<Bytes, ApiError> {
        let Self(bench) = self;
        let work = tokio::task::spawn_blocking(move || {
            let made = remake(&file, variant.format, variant.width);
            drop(bench);
            made
        });
        let made = AbortOnDropHandle::new(work).await.map_err(|error| ApiError::Panicked(error.to_string()))?;
        made.map(Bytes::from).map_err(|error| ApiError::Internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{PictureFormat, encode_png};

    fn picture() -> Bytes {
        encode_png(&image::RgbImage::new(64, 48), None).unwrap().into()
    }

    #[tokio::test]
    async fn a_request_that_waits_too_long_for_a_bench_is_turned_away() {
        let workshop = Workshop::new(1, Duration::from_millis(1));
        let bench = workshop.bench().await.unwrap();
        assert!(matches!(workshop.bench().await, Err(ApiError::PicturesBusy)));
        drop(bench);
        assert!(workshop.bench().await.is_ok());
    }

    #[tokio::test]
    async fn a_bench_is_free_again_after_work_and_after_a_failure() {
        let workshop = Workshop::new(1, PATIENCE);
        let variant = Variant { format: PictureFormat::WebP, width: Some(16) };
        let made = workshop.bench().await.unwrap().make(picture(), variant).await.unwrap();
        assert!(made.starts_with(b"RIFF"));
        let failed = workshop.bench().await.unwrap().make(Bytes::from_static(b"no picture"), variant).await;
        assert!(matches!(failed, Err(ApiError::Internal(_))));
        assert_eq!(workshop.benches.available_permits(), 1);
    }
}
