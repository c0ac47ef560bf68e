//! What is in a folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// All files in a folder and those below it.
pub(crate) fn files_under(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_under(&path) } else { vec![path] }).collect()
}
