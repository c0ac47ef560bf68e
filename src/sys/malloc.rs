//! The memory allocator: jemalloc, for Rust and, as it takes the place of C's `malloc`, for libtorch.
//!
//! glibc either maps and unmaps each large tensor, so that each is page-faulted anew (a VAE decode takes 1.2 to 1.4 times as long), or
//! keeps all that it has ever had in one heap, whose holes grow under a mixed load: a full server then lived on 200 MiB and held 650.
//! jemalloc reuses pages for some minutes and gives them back on a thread of its own.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// jemalloc's settings, which a variable `MALLOC_CONF` overrides. The device's thread does nearly all large work, so few arenas do. Pages
/// stay for five minutes: they go back little by little from the moment on that they are free, so that with ten seconds a step of a full-size model, which
/// takes five, found a part of its pages gone (5.39 s against 4.74 s). Large tensors (`oversize_threshold`), which would go back at once by default,
/// are kept as long.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
// SAFETY: jemalloc reads this symbol as a pointer to a C string, and a reference to an array is a pointer; the string ends with a zero, lives for ever and is never written to, and
// nothing else in the program has this name.
#[unsafe(export_name = "malloc_conf")]
static SETTINGS: &[u8; 93] = b"background_thread:true,narenas:2,dirty_decay_ms:300000,muzzy_decay_ms:0,oversize_threshold:0\0";
