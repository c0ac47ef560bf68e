//! The memory allocator: jemalloc, for Rust and, as it takes the place of C's `malloc`, for libtorch.
//!
//! glibc either maps and unmaps each large tensor, so that each is page-faulted anew (a VAE decode takes 1.2 to 1.4 times as long), or
//! keeps all that it has ever had in one heap, whose holes grow under a mixed load: a full server then lived on 200 MiB and held 650.
//! jemalloc reuses pages, and tells the kernel which of them it may take when memory is short.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// jemalloc's settings, which a variable `MALLOC_CONF` overrides. The device's thread does nearly all large work, so few arenas do.
///
/// Freed pages stay, marked so that the kernel may take them when memory is short (`muzzy_decay_ms:-1` after `MADV_FREE`): until then they
/// count as resident, and are there again without a page fault. Any bound in time would give most of them back during each step of a
/// full-size model, which frees and takes 3 GiB; with `muzzy_decay_ms:0` that was 720,000 page faults and a sixth of its time. Large tensors
/// (`oversize_threshold`), which would go back at once by default, are kept alike.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
// SAFETY: jemalloc reads this symbol as a pointer to a C string, and a reference to an array is a pointer; the string ends with a zero, lives for ever and is never written to, and
// nothing else in the program has this name.
#[unsafe(export_name = "malloc_conf")]
static SETTINGS: &[u8; 93] = b"background_thread:true,narenas:2,dirty_decay_ms:10000,muzzy_decay_ms:-1,oversize_threshold:0\0";
