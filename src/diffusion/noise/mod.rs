//! Where noise comes from: one generator a canvas, so that no canvas's noise depends on another's.

mod cpu;
mod philox;

use self::{cpu::CpuGenerator, philox::PhiloxGenerator};
use crate::domain::NoiseSource;

/// A stream of standard normal numbers. A draw depends on the seed and on the draws before it, never on the dtype or the device.
#[derive(Debug, Clone)]
pub struct NoiseGenerator(Source);

#[derive(Debug, Clone)]
enum Source {
    Cpu(Box<CpuGenerator>),
    Philox(PhiloxGenerator),
}

impl NoiseGenerator {
    /// A generator at the beginning of its stream.
    pub fn new(source: NoiseSource, seed: u64) -> Self {
        Self(match source {
            NoiseSource::Cpu => Source::Cpu(Box::new(CpuGenerator::new(seed))),
            NoiseSource::Philox => Source::Philox(PhiloxGenerator::new(seed)),
        })
    }

    /// `torch.randn(count)` in float32, the next of the stream.
    pub fn randn(&mut self, count: usize) -> Vec<f32> {
        match &mut self.0 {
            Source::Cpu(generator) => generator.randn(count),
            Source::Philox(generator) => generator.randn(count),
        }
    }
}
