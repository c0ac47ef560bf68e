//! libtorch's CUDA half, and what Easel adds to it: graphs, streams and kernels of its own. All of it is loaded while the program runs and only
//! where it is there, so that one binary serves machines with and without a GPU.

mod driver;
mod graph;
mod kernels;
mod nvrtc;
mod shim;
mod stream;

use std::{error::Error, ffi::OsStr, sync::OnceLock};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

pub use graph::{Graph, GraphPool, gpu_memory_peak, gpu_memory_reserved};
#[cfg(test)]
pub(crate) use kernels::tests::with_kernels_on_the_cpu;
pub use kernels::{GroupNormCall, add_bias_residual, geglu, group_norm, has_kernels, prepare_kernels, scale_rows_to_fp8};
pub use shim::{AttentionKernel, only_attention, prepare_shim};
pub use stream::{Event, Stream};

/// Loads `libtorch_cuda.so`, which registers its kernels with libtorch. To be called before the first tensor is made.
///
/// It is looked for as the dynamic linker does: beside libtorch (the binary's run path), then in `LD_LIBRARY_PATH`.
///
/// # Errors
/// The linker's own message when it is not there or a library that it needs is missing.
pub fn load_cuda() -> Result<(), String> {
    static LOADED: OnceLock<Result<Library, String>> = OnceLock::new();
    // It expects exactly this: PyTorch loads it in the same way.
    let loaded = LOADED.get_or_init(|| open("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL));
    loaded.as_ref().map(|_| ()).map_err(Clone::clone)
}

/// Opens a library of libtorch's or CUDA's, which is then never unloaded.
fn open(name: &str, flags: i32) -> Result<Library, String> {
    // SAFETY: loading runs the library's initialisers. All that come here belong to the libtorch that is linked in, to its release of CUDA
    // or to the driver, and are made to be loaded by any program; their callers keep them in statics.
    unsafe { Library::open(Some(OsStr::new(name)), flags) }.map_err(|error| {
        // The error itself says only that loading failed; its source is the linker's sentence.
        error.source().map_or_else(|| error.to_string(), ToString::to_string)
    })
}

/// A table of a library's functions, each with its signature, and `load` that looks all of them up.
macro_rules! functions {
    ($(#[$about:meta])* $table:ident { $($(#[$note:meta])* $name:ident = $symbol:literal: $type:ty,)* }) => {
        $(#[$about])*
        pub(super) struct $table {
            $($(#[$note])* pub(super) $name: $type,)*
            /// Not used again; the functions live as long as it does.
            _library: libloading::os::unix::Library,
        }

        impl $table {
            fn load(library: libloading::os::unix::Library) -> Result<Self, String> {
                Ok(Self {
                    // SAFETY: the type is the signature that the library's header gives to this name.
                    $($name: *unsafe { library.get::<$type>(concat!($symbol, "\0").as_bytes()) }.map_err(|error| error.to_string())?,)*
                    _library: library,
                })
            }
        }
    };
}
use functions;

/// An answer of a library as libtorch's errors are.
fn torch_error(problem: impl Into<String>) -> tch::TchError {
    tch::TchError::Torch(problem.into())
}
