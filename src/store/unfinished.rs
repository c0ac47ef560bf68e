//! What a crash leaves of files that were being written.

use std::{
    fs::{self, DirEntry},
    io,
    path::Path,
    time::Duration,
};

/// Below the picture folder: the kind, the job, the file.
const DEPTH: u32 = 3;

/// Removes the temporary files in `folder` that nobody has written to for `age`, and answers how many there were.
///
/// # Errors
/// When a folder cannot be read or a file cannot be removed.
pub(super) fn remove(folder: &Path, age: Duration) -> io::Result<u64> {
    sweep(folder, age, DEPTH)
}

fn sweep(folder: &Path, age: Duration, depth: u32) -> io::Result<u64> {
    let entries = match fs::read_dir(folder) {
        // A job's folder goes with its last picture.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry?;
        if depth > 1 && entry.file_type()?.is_dir() {
            removed += sweep(&entry.path(), age, depth - 1)?;
        } else if is_temporary(&entry) && is_older(&entry, age)? {
            fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// `object_store` writes `name` as `name#1`, `name#2` and so on, and renames it when it is whole.
fn is_temporary(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let number = name.to_str().and_then(|name| name.rsplit_once('#')).map(|(_, number)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_older(entry: &DirEntry, age: Duration) -> io::Result<bool> {
    // A time that has not come yet is of a clock that was set back: such a file is kept.
    Ok(entry.metadata()?.modified()?.elapsed().is_ok_and(|elapsed| elapsed >= age))
}
