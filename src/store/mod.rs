//! The memory: jobs in SQLite, pictures in an object store.
//!
//! Both implement the doors in [`crate::dispatch::ports`]. What either has accepted survives a crash and a loss of power.

mod pictures;
mod sqlite;
mod unfinished;

use std::{
    fmt::Display,
    fs::{self, File},
    io,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::dispatch::ports::StoreError;

pub use pictures::ObjectPictures;
pub use sqlite::{SchemaVersion, SqliteStore, migrate};

/// A failure of the file system, the database or the data in it.
fn unavailable(problem: impl Display) -> StoreError {
    StoreError::Unavailable(problem.to_string())
}

/// For how long something that could be written shows that writing works.
const FRESH: Duration = Duration::from_secs(5);

/// When a probe was written last. A disk that is full or read-only can still be read, so only a write shows that all is well; and
/// probes that come every second must not wear the disk.
///
/// The lock is held for a few instructions and never across an await.
#[derive(Debug, Default)]
struct Proof(Mutex<Option<Instant>>);

impl Proof {
    fn is_fresh(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|written| written.elapsed() < FRESH)
    }

    /// Something was written.
    fn renew(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Something could not be written: the next probe is due at once.
    fn void(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Makes a folder and its parents, and waits until they are on the disk: what is synced into a folder is lost with the power all the
/// same when the folder's own entry is.
fn make_folder(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|folder| !or_here(folder).exists()).collect();
    fs::create_dir_all(or_here(folder))?;
    missing.into_iter().filter_map(Path::parent).try_for_each(|parent| File::open(or_here(parent))?.sync_all())
}

/// The parent of a bare file name is the empty path, which the file system does not know.
fn or_here(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}
