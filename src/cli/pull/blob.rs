//! The bytes of one file in the hub's cache: a part while they come, and a blob once they are whole and right.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::{OFlags, statvfs};

use super::{cache::remove, metadata::Metadata};

/// The place of a file's bytes, which no other process writes to meanwhile.
pub(super) struct Blob {
    path: PathBuf,
    _lock: File,
}

impl Blob {
    /// Waits for another process that has it.
    pub(super) fn lock(path: PathBuf) -> io::Result<Self> {
        let lock = open(&path.with_extension("lock"))?;
        lock.lock()?;
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is there, whole and right.
    pub(super) fn holds(&self, metadata: &Metadata) -> io::Result<bool> {
        match OpenOptions::new().read(true).custom_flags(NO_LINKS).open(&self.path) {
            Ok(mut file) => Ok(file.metadata()?.len() == metadata.size && metadata.checksum.check(&mut file)?.is_ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What has come of it so far.
    pub(super) fn part(&self) -> io::Result<File> {
        open(&self.part_path())
    }

    /// Makes the whole part the blob, for good: it is on the disk before it has the name.
    pub(super) fn keep(&self, part: &File) -> io::Result<()> {
        part.sync_all()?;
        fs::rename(self.part_path(), &self.path)?;
        self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }

    /// Removes a part that is not what it should be.
    pub(super) fn discard(&self) -> io::Result<()> {
        remove(&self.part_path())
    }

    /// How many bytes there is room for.
    pub(super) fn room(&self) -> io::Result<u64> {
        let disk = statvfs(self.path.parent().unwrap_or(&self.path))?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn part_path(&self) -> PathBuf {
        self.path.with_extension("part")
    }
}

/// A link in place of the file would be followed to wherever it leads.
const NO_LINKS: i32 = OFlags::NOFOLLOW.bits().cast_signed();

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).custom_flags(NO_LINKS).open(path)
}
