//! A disk that does not answer for a while.

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use easel::{
    dispatch::ports::{PictureKey, PictureStore, StoreError},
    store::ObjectPictures,
};

/// A folder whose first writes fail.
pub(super) struct FlakyPictures {
    pub(super) folder: ObjectPictures,
    pub(super) failures_left: AtomicU32,
}

#[async_trait]
impl PictureStore for FlakyPictures {
    async fn put(&self, key: &PictureKey, bytes: Bytes) -> Result<(), StoreError> {
        let fails = self.failures_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if fails {
            return Err(StoreError::Unavailable("the disk does not answer".to_owned()));
        }
        self.folder.put(key, bytes).await
    }

    async fn get(&self, key: &PictureKey) -> Result<Option<Bytes>, StoreError> {
        self.folder.get(key).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.folder.ping().await
    }
}
