//! Tunes glibc's allocator for libtorch.

/// Lets freed memory stay with the process instead of going back to the kernel after every large tensor.
///
/// glibc maps and unmaps each large block, so that each large tensor is page-faulted anew. One arena matters: the thresholds have no
/// effect on the arenas of other threads, and the device works on a thread of its own. Call it first in `main`.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (parameter, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, 1 << 30),
        (libc::M_TRIM_THRESHOLD, i32::MAX),
        (libc::M_TOP_PAD, 256 << 20),
    ] {
        // SAFETY: mallopt takes two plain numbers and touches no memory of ours. It answers 0 when it refuses, which costs only speed.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Gives the memory that is free now back to the kernel. It holds the allocator while it works (tens of milliseconds a gigabyte), and
/// what is needed again is page-faulted anew.
pub fn return_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim takes a plain number, may be called from any thread, and touches only blocks that nobody owns.
    unsafe {
        libc::malloc_trim(0);
    }
}
