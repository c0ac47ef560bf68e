//! Where a request's noise comes from.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::fields::describe;

/// The generator that a seed is handed to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoiseSource {
    /// PyTorch's on the CPU, which diffusers' and ComfyUI's pictures start from.
    #[default]
    Cpu,
    /// PyTorch's on a CUDA device, which AUTOMATIC1111's pictures start from by default.
    Philox,
}

impl NoiseSource {
    const ALL: [Self; 2] = [Self::Cpu, Self::Philox];

    /// The name that requests use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Philox => "philox",
        }
    }

    /// AUTOMATIC1111's name, the value of `RNG` in its infotexts.
    pub fn a1111_name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Philox => "NV",
        }
    }

    pub(super) fn parse(value: Value) -> Result<Self, String> {
        Self::ALL.into_iter().find(|source| value.as_str() == Some(source.name())).ok_or_else(|| {
            let names = Self::ALL.map(Self::name);
            format!("must be one of {}; got {}", names.join(", "), describe(&value))
        })
    }
}
