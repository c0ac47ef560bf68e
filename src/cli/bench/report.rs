//! What was measured: as a table that comes line by line, and as JSON.

use std::env;

use serde::Serialize;

use super::machine::Machine;
use crate::{
    diffusion::{BenchCase, BenchDevice, BenchPart, Lap, Readings},
    sys::peak_memory,
};

const TERA: f64 = 1e12;
const GIBI: f64 = (1_u64 << 30) as f64;

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    version: &'static str,
    commit: Option<String>,
    date: String,
    command: String,
    machine: Machine,
    /// Models in the order in which they were timed.
    pub(super) models: Vec<ModelReport>,
    /// Of this process, everything in it: the kernel's VmHWM.
    peak_memory_bytes: Option<u64>,
}

/// As [`BenchDevice`].
#[derive(Debug, Serialize)]
pub(super) struct Device {
    name: String,
    dtype: String,
    threads: usize,
    batch_invariant: bool,
}

/// What the product of two square matrices reaches.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Ceiling {
    side: u32,
    tflop_per_second: f64,
}

/// One model's times.
#[derive(Debug, Serialize)]
pub(super) struct ModelReport {
    pub(super) model: String,
    pub(super) load_seconds: f64,
    pub(super) device: Device,
    /// In the device's dtype, which is not that of every model.
    pub(super) matmul: Ceiling,
    pub(super) results: Vec<Timed>,
    /// The most that libtorch has had of a GPU's memory, while it loaded and in all cases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peak_gpu_memory_bytes: Option<u64>,
}

/// One case's times.
#[derive(Debug, Serialize)]
pub(super) struct Timed {
    #[serde(flatten)]
    case: BenchCase,
    seconds: Seconds,
    tflop: f64,
    tflop_per_second: f64,
    /// Of what the product of two matrices reaches.
    share_of_matmul: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pictures_per_second: Option<f64>,
    /// Which share of the FLOPs each kind of operation has.
    flops: Shares,
    /// Which share of the time it takes; `rest` is what is none of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<Profile>,
}

#[derive(Debug, Serialize)]
struct Seconds {
    min: f64,
    median: f64,
    max: f64,
    all: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Shares {
    attention: f64,
    conv: f64,
    linear: f64,
}

#[derive(Debug, Serialize)]
struct Profile {
    #[serde(flatten)]
    shares: Shares,
    rest: f64,
    /// Of the run that was looked at.
    seconds: f64,
}

impl Report {
    pub(super) fn new(machine: Machine, commit: Option<String>) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            commit,
            date: jiff::Timestamp::now().to_string(),
            command: env::args().collect::<Vec<_>>().join(" "),
            machine,
            models: Vec::new(),
            peak_memory_bytes: None,
        }
    }

    /// The ceiling of this dtype, if it has been measured; all models are timed on one device.
    pub(super) fn ceiling(&self, dtype: &str) -> Option<Ceiling> {
        self.models.iter().find(|model| model.device.dtype == dtype).map(|model| model.matmul)
    }

    /// Looks at the process's memory, and says it.
    pub(super) fn note_memory(&mut self) -> String {
        self.peak_memory_bytes = peak_memory();
        self.peak_memory_bytes.map_or(String::new(), |bytes| format!("\npeak resident memory: {:.2} GiB\n", bytes as f64 / GIBI))
    }
}

impl From<BenchDevice> for Device {
    fn from(BenchDevice { name, dtype, threads, batch_invariant }: BenchDevice) -> Self {
        Self { name, dtype, threads, batch_invariant }
    }
}

impl Device {
    /// The head of a model's table.
    pub(super) fn line(&self, Ceiling { side, tflop_per_second }: Ceiling) -> String {
        let Self { name, dtype, threads, .. } = self;
        format!("{name}, {dtype}, {threads} threads; product of {side} × {side} matrices: {tflop_per_second:.3} TFLOP/s\n")
    }
}

impl Ceiling {
    pub(super) fn new(side: u32, flop_per_second: f64) -> Self {
        Self { side, tflop_per_second: flop_per_second / TERA }
    }
}

impl Timed {
    /// Times of one run or more, what a run computes, and the run that was looked at closely.
    pub(super) fn new(case: BenchCase, seconds: Vec<f64>, counted: Readings, profile: Option<Lap>) -> Self {
        let (seconds, tflop) = (Seconds::of(seconds), counted.flops() / TERA);
        Self {
            case,
            tflop,
            tflop_per_second: tflop / seconds.min,
            share_of_matmul: 0.0,
            pictures_per_second: (case.part == BenchPart::Whole).then(|| f64::from(case.canvases) / seconds.min),
            flops: Shares::of(counted.flops_by_kind(), counted.flops()),
            profile: profile.map(Profile::of),
            seconds,
        }
    }

    /// The same held against what the machine can do.
    pub(super) fn against(self, ceiling: Ceiling) -> Self {
        Self { share_of_matmul: self.tflop_per_second / ceiling.tflop_per_second, ..self }
    }

    /// A line of the table, and one more for its profile.
    pub(super) fn line(&self) -> String {
        let Self { seconds, tflop, tflop_per_second, share_of_matmul, .. } = self;
        let mut text = format!("  {:<44}{:>10.4} s (median {:.4})", self.name(), seconds.min, seconds.median);
        if *tflop > 0.0 {
            text += &format!("  {tflop:>8.4} TFLOP  {tflop_per_second:>8.4} TFLOP/s  {:>3.0} %", 100.0 * share_of_matmul);
        }
        if let Some(rate) = self.pictures_per_second {
            text += &format!("  {rate:.4} pictures/s");
        }
        if let Some(Profile { shares: Shares { attention, conv, linear }, rest, .. }) = &self.profile {
            let percent = [attention, conv, linear, rest].map(|share| format!("{:.0} %", 100.0 * share));
            let [attention, conv, linear, rest] = percent;
            text += &format!("\n    time: attention {attention}, conv {conv}, linear {linear}, rest {rest}");
        }
        text + "\n"
    }

    fn name(&self) -> String {
        let BenchCase { part, rows, size, steps, canvases, .. } = self.case;
        let size = size.map_or(String::new(), |size| format!(", {size}²"));
        match part {
            BenchPart::TextEncoder => "a prompt".to_owned(),
            BenchPart::Unet => format!("step of {rows} rows{size}"),
            BenchPart::VaeDecode => format!("decode{size}"),
            BenchPart::Preview => format!("preview{size}"),
            BenchPart::Whole => format!("{canvases} whole, {steps} steps{size}"),
        }
    }
}

impl Seconds {
    fn of(all: Vec<f64>) -> Self {
        let mut sorted = all.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |place: usize| sorted.get(place).copied().unwrap_or_default();
        let last = sorted.len().saturating_sub(1);
        Self { min: at(0), median: f64::midpoint(at(last / 2), at(last.div_ceil(2))), max: at(last), all }
    }
}

impl Shares {
    /// None has a share of nothing.
    fn of([attention, conv, linear]: [f64; 3], whole: f64) -> Self {
        let share = |one: f64| if whole > 0.0 { one / whole } else { 0.0 };
        Self { attention: share(attention), conv: share(conv), linear: share(linear) }
    }
}

impl Profile {
    fn of(Lap { seconds, readings }: Lap) -> Self {
        let kinds = readings.seconds_by_kind();
        let rest = (seconds - kinds.iter().sum::<f64>()) / seconds;
        Self { shares: Shares::of(kinds, seconds), rest, seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_even_number_of_times_the_median_is_between_the_two_in_the_middle() {
        let seconds = Seconds::of(vec![4.0, 1.0, 3.0, 8.0]);
        assert_eq!((seconds.min, seconds.median, seconds.max), (1.0, 3.5, 8.0));
        assert_eq!(Seconds::of(vec![2.0, 9.0, 1.0]).median, 2.0);
    }

    #[test]
    fn a_rate_is_held_against_the_ceiling() {
        let case = BenchCase { canvases: 3, ..BenchCase::new(BenchPart::Whole) };
        let timed = Timed::new(case, vec![2.0, 1.5], Readings::default(), None).against(Ceiling::new(64, 2e12));
        assert_eq!((timed.pictures_per_second, timed.share_of_matmul), (Some(2.0), 0.0));
        assert!(timed.line().contains("3 whole, 1 steps") && timed.line().contains("2.0000 pictures/s"), "{}", timed.line());
    }
}
