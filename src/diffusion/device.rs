//! Chooses the device and the dtype, and loads CUDA when it is there.

use tch::{Cuda, Device, Kind};
use tracing::info;

use super::error::LoadError;
use crate::sys::{gpu_memory, host_memory, load_cuda, processor_multiplies_bfloat16};

/// The dtype that the settings ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Precision {
    /// bfloat16 on CUDA, and on a CPU that multiplies it for models that are large; else float32.
    #[default]
    Auto,
    /// 32-bit floats.
    Float32,
    /// bfloat16.
    Bfloat16,
    /// 16-bit floats; CUDA only.
    Float16,
}

/// Where a model's tensors are, in which dtype, and whether a canvas's bits may depend on its company.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placement {
    pub(super) device: Device,
    pub(super) kind: Kind,
    /// Same bits in any company; see `layers.rs` for what this takes.
    pub(super) batch_invariant: bool,
}

/// Weights of a model, in numbers, from which on bfloat16 is worth its rounding on a CPU. Full-size models have ten times as many and take
/// half the time; small ones, such as the demo model, are quick as they are.
const LARGE_MODEL: u64 = 100_000_000;

/// The device, and what decides how a model is placed on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlacementPolicy {
    pub(super) device: Device,
    precision: Precision,
    batch_invariant: Option<bool>,
}

impl PlacementPolicy {
    /// Finds the device that `name` asks for: `auto`, `cpu` or `cuda:N`.
    ///
    /// # Errors
    /// When the device is not there, or cannot compute in that precision or with the same bits in any company.
    pub(super) fn choose(name: &str, precision: Precision, batch_invariant: Option<bool>) -> Result<Self, LoadError> {
        let device = find_device(name)?;
        if (device, precision) == (Device::Cpu, Precision::Float16) {
            let problem = "device.dtype: float16 is far slower than float32 on a CPU; use \"float32\" or \"bfloat16\"";
            return Err(LoadError::Device(problem.to_owned()));
        }
        let policy = Self { device, precision, batch_invariant };
        if batch_invariant == Some(true) && !policy.can_be_invariant(Kind::Float) {
            return Err(LoadError::Device(format!("device.batch_invariant: true is kept on the CPU only, not on {device:?}")));
        }
        if batch_invariant == Some(true) && precision == Precision::Bfloat16 && !policy.can_be_invariant(Kind::BFloat16) {
            let problem = "device.batch_invariant: true is kept in bfloat16 only on CPUs that multiply it (AVX-512 BF16)";
            return Err(LoadError::Device(problem.to_owned()));
        }
        Ok(policy)
    }

    fn can_be_invariant(self, kind: Kind) -> bool {
        self.device == Device::Cpu && (kind == Kind::Float || processor_multiplies_bfloat16())
    }

    /// How a model with this many weights is placed.
    pub(super) fn of_model(self, weights: u64) -> Placement {
        let kind = match (self.precision, self.device) {
            (Precision::Auto, Device::Cpu) if weights < LARGE_MODEL || !processor_multiplies_bfloat16() => Kind::Float,
            (Precision::Float32, _) => Kind::Float,
            (Precision::Auto | Precision::Bfloat16, _) => Kind::BFloat16,
            (Precision::Float16, _) => Kind::Half,
        };
        let batch_invariant = self.batch_invariant.unwrap_or_else(|| self.can_be_invariant(kind));
        Placement { device: self.device, kind, batch_invariant }
    }

    /// Bytes of memory that the device has; without bound where it does not say.
    pub(super) fn memory(self) -> u64 {
        let bytes = match self.device {
            Device::Cuda(index) => gpu_memory(index),
            _ => host_memory(),
        };
        bytes.unwrap_or(u64::MAX)
    }
}

fn find_device(name: &str) -> Result<Device, LoadError> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "auto" => Ok(match cuda_devices() {
            Ok(0) => Device::Cpu,
            Ok(_) => Device::Cuda(0),
            Err(problem) => {
                info!(problem, "no CUDA; using the CPU");
                Device::Cpu
            }
        }),
        other => {
            let index = other.strip_prefix("cuda:").and_then(|index| index.parse::<usize>().ok());
            let index = index
                .ok_or_else(|| LoadError::Device(format!("device.name: must be \"auto\", \"cpu\" or \"cuda:N\", got {other:?}")))?;
            let devices = cuda_devices().map_err(|problem| absent(other, &problem))?;
            if index < devices {
                Ok(Device::Cuda(index))
            } else {
                Err(absent(other, &format!("libtorch sees {devices} CUDA devices")))
            }
        }
    }
}

fn cuda_devices() -> Result<usize, String> {
    load_cuda()?;
    Ok(usize::try_from(Cuda::device_count()).unwrap_or(0))
}

fn absent(name: &str, problem: &str) -> LoadError {
    LoadError::Device(format!("device.name: the device {name:?} was asked for and is not there: {problem}"))
}
