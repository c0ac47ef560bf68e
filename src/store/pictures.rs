//! Picture files in an object store; today a folder of local files.

use std::{fs, io::ErrorKind, path::PathBuf, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::{Error as ObjectError, ObjectStore, ObjectStoreExt, local::LocalFileSystem, path::Path as ObjectPath};
use url::Url;

use super::{Proof, make_folder, unavailable, unfinished};
use crate::{
    dispatch::ports::{PictureKey, PictureStore, StoreError, StoredInput},
    domain::JobId,
};

/// Lies in the folder from the first start on. When it is gone, this is not our folder any more: its disk was unmounted, say.
const MARKER: &str = ".easel";
const MARKER_TITLE: &str = "Pictures of Easel";
const INPUTS: &str = "inputs";
const OUTPUTS: &str = "pictures";

/// Picture files in a folder.
///
/// A file is written under a temporary name, synced to the disk and then renamed, so that it is there whole or not at all. What a
/// crash leaves of a temporary file has a name that no key gives.
#[derive(Debug)]
pub struct ObjectPictures {
    objects: Box<dyn ObjectStore>,
    folder: PathBuf,
    marker: Bytes,
    written: Proof,
}

impl ObjectPictures {
    /// Opens the folder that `url` names, a path or `file:///absolute/path`, and makes it when it is not there. It belongs to the job
    /// store of this name from then on: a sweep for the jobs of another would take all its pictures for nobody's.
    ///
    /// # Errors
    /// When `url` is of another kind, or the folder cannot be made or written, or belongs to another job store.
    pub async fn open(url: &str, job_store: &str) -> Result<Self, StoreError> {
        let folder = folder(url)?;
        let place = folder.display().to_string();
        make_folder(&folder).map_err(|error| unavailable(format!("the picture folder {place} cannot be made: {error}")))?;
        let objects = LocalFileSystem::new_with_prefix(&folder)
            .map_err(|error| unavailable(format!("the picture folder {place} cannot be opened: {error}")))?
            .with_fsync(true);
        let objects = objects.with_automatic_cleanup(true);
        let marker = Bytes::from(format!("{MARKER_TITLE}\n{job_store}\n"));
        let pictures = Self { objects: Box::new(objects), folder, marker, written: Proof::default() };
        pictures.check_owner(job_store).await?;
        pictures.write(&ObjectPath::from(MARKER), pictures.marker.clone()).await?;
        Ok(pictures)
    }

    /// A folder of the first version names no job store; it becomes that of whoever opens it.
    async fn check_owner(&self, job_store: &str) -> Result<(), StoreError> {
        let Some(marker) = self.read(&ObjectPath::from(MARKER)).await? else { return Ok(()) };
        match String::from_utf8_lossy(&marker).lines().nth(1) {
            Some(other) if other != job_store => Err(unavailable(format!(
                "the picture folder {0} belongs to another job store than [store] url names; if it is to belong to this one, remove \
                 {0}/{MARKER}, and the next sweep removes the pictures of all other jobs",
                self.folder.display()
            ))),
            _ => Ok(()),
        }
    }

    async fn read(&self, path: &ObjectPath) -> Result<Option<Bytes>, StoreError> {
        let object = match self.objects.get(path).await {
            Err(ObjectError::NotFound { .. }) => return Ok(None),
            found => found.map_err(|error| self.failed("cannot be read", &error))?,
        };
        object.bytes().await.map(Some).map_err(|error| self.failed("cannot be read", &error))
    }

    async fn write(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), StoreError> {
        match self.objects.put(path, bytes.into()).await {
            Ok(_) => {
                self.written.renew();
                Ok(())
            }
            Err(error) => {
                self.written.void();
                Err(self.failed("cannot be written", &error))
            }
        }
    }

    fn failed(&self, what: &str, error: &ObjectError) -> StoreError {
        unavailable(format!("the picture folder {} {what}: {error}", self.folder.display()))
    }

    /// Removes a file; one that is not there is as good as removed.
    async fn remove(&self, path: &ObjectPath) -> Result<(), StoreError> {
        match self.objects.delete(path).await {
            Err(ObjectError::NotFound { .. }) => Ok(()),
            removed => removed.map_err(|error| self.failed("cannot be cleared", &error)),
        }
    }
}

#[async_trait]
impl PictureStore for ObjectPictures {
    async fn put(&self, key: &PictureKey, bytes: Bytes) -> Result<(), StoreError> {
        self.write(&object_path(key)?, bytes).await
    }

    async fn get(&self, key: &PictureKey) -> Result<Option<Bytes>, StoreError> {
        self.read(&object_path(key)?).await
    }

    async fn remove_outputs(&self, job: JobId) -> Result<(), StoreError> {
        let folder = ObjectPath::from_iter([OUTPUTS, &job.to_string()]);
        let files: Vec<_> =
            self.objects.list(Some(&folder)).try_collect().await.map_err(|error| self.failed("cannot be read", &error))?;
        for file in files {
            self.remove(&file.location).await?;
        }
        // The folder has gone with its last file, unless it never had a whole one: a crash or a full disk leaves it empty.
        let empty = self.folder.join(OUTPUTS).join(job.to_string());
        match tokio::task::spawn_blocking(move || fs::remove_dir(empty)).await.map_err(unavailable)? {
            Err(error) if ![ErrorKind::NotFound, ErrorKind::DirectoryNotEmpty].contains(&error.kind()) => {
                Err(unavailable(format!("the picture folder {} cannot be cleared: {error}", self.folder.display())))
            }
            _ => Ok(()),
        }
    }

    async fn remove_input(&self, sha256: &str) -> Result<(), StoreError> {
        self.remove(&object_path(&PictureKey::Input { sha256: sha256.to_owned() })?).await
    }

    async fn outputs(&self) -> Result<Vec<JobId>, StoreError> {
        let listed = self.objects.list_with_delimiter(Some(&ObjectPath::from(OUTPUTS))).await;
        let folders = listed.map_err(|error| self.failed("cannot be read", &error))?.common_prefixes;
        // What is not named like a job is not ours.
        Ok(folders.iter().filter_map(|folder| folder.filename()?.parse().ok()).collect())
    }

    async fn inputs(&self) -> Result<Vec<StoredInput>, StoreError> {
        let listed = self.objects.list(Some(&ObjectPath::from(INPUTS)));
        let inputs = listed.try_filter_map(async |file| {
            let sha256 = file.location.filename().filter(|name| is_sha256(name)).map(str::to_owned);
            let written_at = Timestamp::from_millisecond(file.last_modified.timestamp_millis()).ok();
            Ok(sha256.zip(written_at).map(|(sha256, written_at)| StoredInput { sha256, written_at }))
        });
        inputs.boxed().try_collect().await.map_err(|error| self.failed("cannot be read", &error))
    }

    async fn remove_unfinished(&self, age: Duration) -> Result<u64, StoreError> {
        let folder = self.folder.clone();
        let removed = tokio::task::spawn_blocking(move || unfinished::remove(&folder, age)).await.map_err(unavailable)?;
        removed.map_err(|error| unavailable(format!("the picture folder {} cannot be cleared: {error}", self.folder.display())))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let marker = ObjectPath::from(MARKER);
        self.objects.head(&marker).await.map_err(|error| self.failed("does not answer", &error))?;
        if self.written.is_fresh() { Ok(()) } else { self.write(&marker, self.marker.clone()).await }
    }
}

/// The folder that a setting names.
fn folder(url: &str) -> Result<PathBuf, StoreError> {
    let allowed = "[pictures] url must be a folder's path or file:///absolute/path";
    match url.split_once("://") {
        None if url.is_empty() => Err(unavailable(format!("{allowed}, and is empty"))),
        None => Ok(PathBuf::from(url)),
        Some(("file", _)) => Url::parse(url)
            .ok()
            .and_then(|parsed| parsed.to_file_path().ok())
            .ok_or_else(|| unavailable(format!("{allowed}, got {url:?}"))),
        // The rest of such a URL may hold a password.
        Some((scheme, _)) => Err(unavailable(format!("{allowed}; {scheme}:// is not supported"))),
    }
}

/// A key's place. Keys come from parsed requests and ids, and are checked once more because they become file names.
fn object_path(key: &PictureKey) -> Result<ObjectPath, StoreError> {
    match key {
        PictureKey::Input { sha256 } if is_sha256(sha256) => Ok(ObjectPath::from_iter([INPUTS, sha256])),
        PictureKey::Input { sha256 } => Err(unavailable(format!("{sha256:?} is not a SHA-256 in lower-case hexadecimal"))),
        PictureKey::Output { job, index, format } => {
            let (job, file) = (job.to_string(), format!("{index}.{}", format.extension()));
            Ok(ObjectPath::from_iter([OUTPUTS, &job, &file]))
        }
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
