//! The names of the noise schedulers that a request may ask for.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A noise scheduler's algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchedulerAlgorithm {
    /// Denoising diffusion implicit models (Song et al., 2020), diffusers' `DDIMScheduler` with eta 0.
    Ddim,
    /// Euler's method on the probability-flow ODE (Karras et al., 2022), diffusers' `EulerDiscreteScheduler`.
    Euler,
    /// DPM-Solver++ of second order, multistep (Lu et al., 2022), diffusers' `DPMSolverMultistepScheduler`.
    Dpmpp2m,
}

/// A scheduler as a request names it: an algorithm, and whether its sigmas follow Karras et al. (2022).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SchedulerName {
    /// The algorithm.
    pub algorithm: SchedulerAlgorithm,
    /// Spaces the noise levels as in equation (5) of Karras et al. (2022).
    pub karras: bool,
}

/// Canonical name, then the spellings of diffusers, AUTOMATIC1111 and k-diffusion, in lower case.
const NAMES: [(&str, SchedulerName, &[&str]); 5] = [
    ("ddim", SchedulerName::plain(SchedulerAlgorithm::Ddim), &["ddimscheduler"]),
    ("euler", SchedulerName::plain(SchedulerAlgorithm::Euler), &["k_euler", "eulerdiscretescheduler"]),
    ("euler_karras", SchedulerName::karras(SchedulerAlgorithm::Euler), &["k_euler_ka", "euler karras"]),
    (
        "dpmpp_2m",
        SchedulerName::plain(SchedulerAlgorithm::Dpmpp2m),
        &["dpm++ 2m", "dpm++2m", "k_dpmpp_2m", "dpmsolvermultistepscheduler"],
    ),
    (
        "dpmpp_2m_karras",
        SchedulerName::karras(SchedulerAlgorithm::Dpmpp2m),
        &["dpm++ 2m karras", "dpm++2m karras", "k_dpmpp_2m_ka"],
    ),
];

impl SchedulerName {
    const fn plain(algorithm: SchedulerAlgorithm) -> Self {
        Self { algorithm, karras: false }
    }

    const fn karras(algorithm: SchedulerAlgorithm) -> Self {
        Self { algorithm, karras: true }
    }

    /// Every scheduler that can be asked for.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|(_, scheduler, _)| *scheduler)
    }

    /// Reads a canonical name or an alias, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        let wanted = text.trim().to_lowercase();
        NAMES
            .iter()
            .find(|(name, _, aliases)| *name == wanted || aliases.contains(&wanted.as_str()))
            .map(|(_, scheduler, _)| *scheduler)
    }

    /// The canonical name, such as `dpmpp_2m_karras`.
    pub fn as_str(self) -> &'static str {
        self.entry().map_or("ddim", |(name, _, _)| name)
    }

    /// Other spellings that are accepted, in lower case.
    pub fn aliases(self) -> &'static [&'static str] {
        self.entry().map_or(&[], |(_, _, aliases)| aliases)
    }

    fn entry(self) -> Option<&'static (&'static str, Self, &'static [&'static str])> {
        NAMES.iter().find(|(_, scheduler, _)| *scheduler == self)
    }
}

impl fmt::Display for SchedulerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for SchedulerName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for SchedulerName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("unknown scheduler {text:?}")))
    }
}
