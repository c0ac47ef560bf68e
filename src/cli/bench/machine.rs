//! What a measurement was made on.

use std::{fs, path::Path, thread};

use serde::Serialize;

use crate::sys::host_memory;

/// The machine and the time, for who reads the figures later.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    /// As the kernel names it.
    pub(super) cpu: String,
    /// That this process may use.
    pub(super) cores: usize,
    /// What the CPU has for bfloat16 and 8-bit products.
    pub(super) cpu_features: Vec<String>,
    pub(super) memory_bytes: Option<u64>,
    /// As NVIDIA's driver names them.
    pub(super) gpus: Vec<String>,
    pub(super) kernel: String,
}

impl Machine {
    /// This one.
    pub(super) fn here() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let features = value(&cpuinfo, "flags").unwrap_or_default();
        let told =
            |feature: &&str| feature.starts_with("amx") || ["avx2", "avx512f", "avx512_bf16", "avx512_vnni"].contains(feature);
        Self {
            cpu: value(&cpuinfo, "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: thread::available_parallelism().map_or(1, usize::from),
            cpu_features: features.split_ascii_whitespace().filter(told).map(str::to_owned).collect(),
            memory_bytes: host_memory(),
            gpus: gpus(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }

    /// The head of what is printed.
    pub(super) fn line(&self) -> String {
        let Self { cpu, cores, gpus, .. } = self;
        [&[format!("{cpu}, {cores} cores")], gpus.as_slice()].concat().join(", ") + "\n"
    }
}

/// The driver has a folder for each.
fn gpus() -> Vec<String> {
    let Ok(folders) = fs::read_dir("/proc/driver/nvidia/gpus") else { return Vec::new() };
    let files = folders.filter_map(|folder| Some(folder.ok()?.path().join("information")));
    files.filter_map(|file| value(&read(file), "Model")).collect()
}

fn read(file: impl AsRef<Path>) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

/// The first value of a name in lines of `name : value`.
fn value(text: &str, name: &str) -> Option<String> {
    let of_line =
        |line: &str| line.split_once(':').filter(|(found, _)| found.trim() == name).map(|(_, value)| value.trim().to_owned());
    text.lines().find_map(of_line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_whole_name() {
        let text = "model\t\t: 17\nmodel name\t: A CPU @ 2 GHz: fast\nmodel name\t: another\n";
        assert_eq!(value(text, "model name").as_deref(), Some("A CPU @ 2 GHz: fast"));
        assert_eq!(value(text, "name"), None);
    }
}
