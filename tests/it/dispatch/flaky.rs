//! A disk that does not answer for a while.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use easel::{
    dispatch::ports::{PictureKey, PictureStore, StoreError, StoredInput},
    domain::JobId,
    store::ObjectPictures,
};

/// What the disk does wrong before it works.
#[derive(Default)]
pub(super) struct Disk {
    /// So many writes of painted pictures fail.
    pub(super) failing_writes: AtomicU32,
    /// So many questions whether it is there fail.
    pub(super) failing_pings: AtomicU32,
    /// So many reads fail.
    pub(super) failing_reads: AtomicU32,
    /// Reads never end.
    pub(super) hangs: bool,
    /// Writes of painted pictures panic.
    pub(super) panics: bool,
}

/// A folder on such a disk.
pub(super) struct FlakyPictures {
    pub(super) folder: ObjectPictures,
    pub(super) disk: Disk,
}

/// Counts a failure, as long as any are left.
fn fail(left: &AtomicU32) -> Result<(), StoreError> {
    match left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
        Ok(_) => Err(StoreError::Unavailable("the disk does not answer".to_owned())),
        Err(_) => Ok(()),
    }
}

#[async_trait]
impl PictureStore for FlakyPictures {
    async fn put(&self, key: &PictureKey, bytes: Bytes) -> Result<(), StoreError> {
        if matches!(key, PictureKey::Output { .. }) {
            assert!(!self.disk.panics, "a bug");
            fail(&self.disk.failing_writes)?;
        }
        self.folder.put(key, bytes).await
    }

    async fn get(&self, key: &PictureKey) -> Result<Option<Bytes>, StoreError> {
        if self.disk.hangs {
            std::future::pending::<()>().await;
        }
        fail(&self.disk.failing_reads)?;
        self.folder.get(key).await
    }

    async fn remove_outputs(&self, job: JobId) -> Result<(), StoreError> {
        self.folder.remove_outputs(job).await
    }

    async fn remove_input(&self, sha256: &str) -> Result<(), StoreError> {
        self.folder.remove_input(sha256).await
    }

    async fn outputs(&self) -> Result<Vec<JobId>, StoreError> {
        self.folder.outputs().await
    }

    async fn inputs(&self) -> Result<Vec<StoredInput>, StoreError> {
        self.folder.inputs().await
    }

    async fn remove_unfinished(&self, age: Duration) -> Result<u64, StoreError> {
        self.folder.remove_unfinished(age).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        fail(&self.disk.failing_pings)?;
        self.folder.ping().await
    }
}
