//! What a process takes of the machine, as Linux tells it.

use std::fs;

/// Ticks of a CPU second in `/proc`; the same on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vitals {
    /// Resident memory.
    pub(crate) rss_mib: f64,
    /// CPU time since its start, of all its threads.
    pub(crate) cpu_seconds: f64,
    /// Open file descriptors.
    pub(crate) descriptors: usize,
}

impl Vitals {
    pub(crate) fn of(process: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        // The program's name may hold anything; behind its bracket, user and system time are the 12th and 13th word.
        let words: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: f64 = words[11].parse::<f64>().unwrap() + words[12].parse::<f64>().unwrap();
        Self {
            rss_mib: kib.unwrap() / 1024.0,
            cpu_seconds: ticks / TICKS_PER_SECOND,
            descriptors: fs::read_dir(format!("/proc/{process}/fd")).unwrap().count(),
        }
    }
}
