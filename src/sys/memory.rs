//! How much memory the machine and its GPUs have.

use std::{ffi::c_int, fs};

use libloading::os::unix::{Library, RTLD_NOW, Symbol};

/// Bytes of memory that this process may have: the machine's, or less where a control group (a container's, say) allows less.
pub fn host_memory() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of(&text));
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    // "max" is no number and no limit.
    let limits = limits.iter().filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    machine.into_iter().chain(limits).min()
}

/// The most bytes of memory that this process has had at a time, mapped files' pages included.
pub fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    kibibytes(&status, "VmHWM:")
}

fn total_of(meminfo: &str) -> Option<u64> {
    kibibytes(meminfo, "MemTotal:")
}

/// The value of a line `name 123 kB`, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

type Init = unsafe extern "C" fn(u32) -> c_int;
type GetDevice = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
type TotalMemory = unsafe extern "C" fn(*mut usize, c_int) -> c_int;

/// Bytes of memory that a GPU has. Asks the driver, which needs no context on the GPU for it.
pub fn gpu_memory(index: usize) -> Option<u64> {
    let index = c_int::try_from(index).ok()?;
    // SAFETY: libcuda.so.1 is the driver's library, which CUDA's runtime loads for every program that uses a GPU; its initialisers expect that.
    let driver = unsafe { Library::open(Some("libcuda.so.1"), RTLD_NOW) }.ok()?;
    // SAFETY: `Init` is the signature that the driver's API documents; a CUresult is an int.
    let init: Symbol<Init> = unsafe { driver.get(b"cuInit\0") }.ok()?;
    // SAFETY: as above; a CUdevice is an int.
    let get_device: Symbol<GetDevice> = unsafe { driver.get(b"cuDeviceGet\0") }.ok()?;
    // SAFETY: as above.
    let total_memory: Symbol<TotalMemory> = unsafe { driver.get(b"cuDeviceTotalMem_v2\0") }.ok()?;
    let (mut device, mut bytes) = (0, 0);
    // SAFETY: it takes flags, which must be 0, and may be called any number of times from any thread.
    let is_ready = unsafe { init(0) } == 0;
    // SAFETY: it writes one int through a pointer that lives as long as the call.
    let is_found = is_ready && unsafe { get_device(&raw mut device, index) } == 0;
    // SAFETY: it writes one size_t through a pointer that lives as long as the call, for a device that the driver has just named.
    let is_known = is_found && unsafe { total_memory(&raw mut bytes, device) } == 0;
    is_known.then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_memory_and_says_how_much() {
        let bytes = host_memory().unwrap();
        assert!((1 << 28..1 << 50).contains(&bytes), "{bytes}");
        assert_eq!(total_of("MemFree: 1 kB\nMemTotal:       24000000 kB\nSwapTotal: 0 kB\n"), Some(24_576_000_000));
        assert_eq!(total_of("MemTotal: many kB"), None);
    }
}
