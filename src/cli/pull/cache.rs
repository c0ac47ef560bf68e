//! One commit in the hub's cache on this machine, with the layout that all of the hub's clients share: `blobs/CHECKSUM`, and
//! `snapshots/COMMIT/FILE` as links to them. Whatever the hub says, nothing is written outside the cache.

use std::{
    env, fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use hf_hub::{Cache, CacheRepo, Repo};

use super::{blob::Blob, checksum::Checksum};
use crate::cli::CliError;

/// Where one commit's files are.
pub(super) struct Snapshot {
    /// The cache's folder, without links in its path.
    root: PathBuf,
    /// The model's folder in it.
    model: PathBuf,
    layout: CacheRepo,
    commit: String,
}

/// The cache that HF_HOME names, or the one in the user's home.
pub(super) fn from_env() -> Result<Cache, CliError> {
    // `Cache::from_env` panics where there is neither, as in a container without a home.
    if env::var_os("HF_HOME").is_none() && env::home_dir().is_none() {
        return Err(CliError::Usage("there is no home folder for the hub's cache: set HF_HOME".to_owned()));
    }
    Ok(Cache::from_env())
}

impl Snapshot {
    /// `commit` names a folder, and must be one that git gives.
    ///
    /// # Errors
    /// When the cache cannot be written to.
    pub(super) fn open(cache: &Cache, model: Repo, commit: String) -> Result<Self, CliError> {
        let root = cache.path();
        let root = fs::create_dir_all(root).and_then(|()| root.canonicalize()).map_err(|error| failed(root, &error))?;
        let folder = root.join(model.folder_name());
        Ok(Self { layout: Cache::new(root.clone()).repo(model), model: folder, root, commit })
    }

    /// The file that is there already.
    pub(super) fn get(&self, file: &str) -> Option<PathBuf> {
        let path = self.path(file);
        let place = path.canonicalize().ok()?;
        (place.starts_with(&self.root) && place.is_file()).then_some(path)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.layout.pointer_path(&self.commit).join(file)
    }

    /// The place for a file's bytes; waits for another process that fetches the same.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub(super) fn blob(&self, checksum: &Checksum) -> Result<Blob, CliError> {
        let path = self.layout.blob_path(checksum.name());
        self.make_folder_of(&path)?;
        Blob::lock(path.clone()).map_err(|error| failed(&path, &error))
    }

    /// Names the blob as the commit's `file`; answers where that is.
    ///
    /// # Errors
    /// When the cache cannot be written to.
    pub(super) fn link(&self, blob: &Blob, file: &str) -> Result<PathBuf, CliError> {
        let path = self.path(file);
        self.make_folder_of(&path)?;
        // Up from the file's own folder, the commit's and `snapshots`: the links stay right when the cache is moved.
        let up = PathBuf::from("../".repeat(file.split('/').count() + 1));
        let target = up.join(blob.path().strip_prefix(&self.model).map_err(CliError::failed)?);
        let new = blob.path().with_extension("link");
        let removed = remove(&new);
        // In one step, over a link that leads nowhere or elsewhere.
        let linked = removed.and_then(|()| symlink(target, &new)).and_then(|()| fs::rename(&new, &path));
        linked.map_err(|error| failed(&path, &error))?;
        Ok(path)
    }

    /// Notes that `revision` means this commit now, for programs that look without asking the hub. `revision` stays in its folder.
    ///
    /// # Errors
    /// When the cache cannot be written to.
    pub(super) fn note(&self, revision: &str) -> Result<(), CliError> {
        if revision == self.commit {
            return Ok(());
        }
        let path = self.model.join("refs").join(revision);
        self.make_folder_of(&path)?;
        // Removed first: what is written must not go where a link leads.
        let written = remove(&path).and_then(|()| fs::write(&path, &self.commit));
        written.map_err(|error| failed(&path, &error))
    }

    /// Makes the folders down to a path's own, one by one, so that no link on the way leads out of the cache.
    fn make_folder_of(&self, path: &Path) -> Result<(), CliError> {
        let inside = path.parent().and_then(|folder| folder.strip_prefix(&self.root).ok());
        let mut folder = self.root.clone();
        for name in inside.ok_or_else(|| CliError::failed(format!("{}: not in the hub's cache", path.display())))? {
            folder.push(name);
            match fs::create_dir(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(&folder, &error)),
                _ => {}
            }
            if !folder.canonicalize().is_ok_and(|place| place.starts_with(&self.root)) {
                return Err(CliError::failed(format!("{}: leads out of the hub's cache", folder.display())));
            }
        }
        Ok(())
    }
}

/// Removes a file or a link that may be there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn failed(path: &Path, error: &io::Error) -> CliError {
    CliError::failed(format!("{}: {error}", path.display()))
}
