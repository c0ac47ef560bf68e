//! Maps a file into memory, so that loading a model does not read it into a second buffer.

use std::{fs::File, io, path::Path};

use memmap2::Mmap;

/// Maps a file for reading.
///
/// # Errors
/// When the file cannot be opened or mapped.
pub fn map_file(path: &Path) -> io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: the map is read-only and private to this process. What Rust cannot prove is that nobody shortens or rewrites the file
    // while it is mapped; a shortened file would end the process with SIGBUS, never give wrong access to other memory. Maps live only
    // while a model is loaded, before the server is ready, so no accepted job can be hurt.
    unsafe { Mmap::map(&file) }
}
