//! Loads libtorch's CUDA half when it is there, so that one binary serves machines with and without a GPU.

use std::{error::Error, ffi::OsStr, sync::OnceLock};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// Loads `libtorch_cuda.so`, which registers its kernels with libtorch. To be called before the first tensor is made.
///
/// It is looked for as the dynamic linker does: beside libtorch (the binary's run path), then in `LD_LIBRARY_PATH`.
///
/// # Errors
/// The linker's own message when it is not there or a library that it needs is missing.
pub fn load_cuda() -> Result<(), String> {
    static LOADED: OnceLock<Result<Library, String>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| {
        let flags = RTLD_NOW | RTLD_GLOBAL;
        // SAFETY: loading runs the library's initialisers. They belong to the same libtorch release as the half that is linked in,
        // they expect exactly this (PyTorch loads it in the same way), and the library is never unloaded: it stays in the static.
        unsafe { Library::open(Some(OsStr::new("libtorch_cuda.so")), flags) }.map_err(|error| {
            // The error itself says only that loading failed; its source is the linker's sentence.
            error.source().map_or_else(|| error.to_string(), ToString::to_string)
        })
    });
    loaded.as_ref().map(|_| ()).map_err(Clone::clone)
}
