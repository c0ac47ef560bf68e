//! Maps a file into memory, so that loading a model does not read it into a second buffer.

use std::{fs::File, io, ops::Range, path::Path};

use memmap2::{Mmap, UncheckedAdvice};

/// Maps a file for reading.
///
/// # Errors
/// When the file cannot be opened or mapped.
pub fn map_file(path: &Path) -> io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: the map is read-only and private to this process. What Rust cannot prove is that nobody shortens or rewrites the file
    // while it is mapped; a shortened file would end the process with SIGBUS, never give wrong access to other memory. Maps live only
    // while a model is loaded or converted.
    unsafe { Mmap::map(&file) }
}

/// Says that these bytes of a map are not needed for now, so that what has been read does not count as this process's memory.
pub fn forget_pages(map: &Mmap, bytes: Range<usize>) {
    // SAFETY: the map is a read-only one of a file (`map_file` makes no other), so that a page that is dropped comes back from the file with
    // the same bytes. A failure costs only memory.
    let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, bytes.start, bytes.len()) };
}
