//! PyTorch's CPU noise. The random bits are PyTorch's; the normal numbers made of them differ in their last bits, because PyTorch's
//! vectorised logarithm and sine do.
//!
//! `tch::manual_seed` is one for the whole process and cannot do this. Written from the behaviour of `torch.Generator("cpu")` and
//! `torch.randn` in float32 (ATen's `mt19937` and `normal_fill`); held to them by `tests/golden/noise.json`.

use std::f64::consts::TAU;

const STATE: usize = 624;
const SHIFT: usize = 397;
/// `randn` fills blocks of this many numbers; a smaller tensor takes another way.
const BLOCK: usize = 16;

/// A stream of standard normal numbers, as `torch.Generator("cpu").manual_seed(seed)` gives.
#[derive(Debug, Clone)]
pub(super) struct CpuGenerator {
    engine: Mt19937,
    /// The second number of the last pair, which a small draw left over.
    spare: Option<f64>,
}

impl CpuGenerator {
    /// A generator; only the lower 32 bits of the seed count, as in PyTorch.
    pub(super) fn new(seed: u64) -> Self {
        Self { engine: Mt19937::new(seed as u32), spare: None }
    }

    /// `torch.randn(count)`: standard normal numbers.
    pub(super) fn randn(&mut self, count: usize) -> Vec<f32> {
        if count < BLOCK { (0..count).map(|_| self.normal() as f32).collect() } else { self.normal_fill(count) }
    }

    /// ATen's `normal_fill`: Box-Muller on uniform numbers of 24 bits, eight pairs a block. When blocks do not divide the count, the last
    /// sixteen numbers are drawn anew.
    fn normal_fill(&mut self, count: usize) -> Vec<f32> {
        let mut values: Vec<f32> = (0..count).map(|_| self.uniform24()).collect();
        for block in values.chunks_exact_mut(BLOCK) {
            box_muller(block);
        }
        if !count.is_multiple_of(BLOCK) {
            let tail = &mut values[count - BLOCK..];
            tail.iter_mut().for_each(|value| *value = self.uniform24());
            box_muller(tail);
        }
        values
    }

    /// ATen's `normal_distribution<double>`, which keeps the second number of a pair for the next call.
    fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let (u1, u2) = (self.uniform53(), self.uniform53());
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        self.spare = Some(radius * (TAU * u1).sin());
        radius * (TAU * u1).cos()
    }

    fn uniform24(&mut self) -> f32 {
        (self.engine.next_u32() & 0x00ff_ffff) as f32 / (1 << 24) as f32
    }

    fn uniform53(&mut self) -> f64 {
        let bits = u64::from(self.engine.next_u32()) << 32 | u64::from(self.engine.next_u32());
        (bits & ((1 << 53) - 1)) as f64 / (1_u64 << 53) as f64
    }
}

/// Turns sixteen uniform numbers into normal ones: the first eight are radii, the last eight angles.
fn box_muller(block: &mut [f32]) {
    let (radii, angles) = block.split_at_mut(BLOCK / 2);
    for (first, second) in radii.iter_mut().zip(angles) {
        let radius = (-2.0 * (1.0 - *first).ln()).sqrt();
        let angle = TAU as f32 * *second;
        (*first, *second) = (radius * angle.cos(), radius * angle.sin());
    }
}

/// The Mersenne Twister (Matsumoto and Nishimura, 1998).
#[derive(Debug, Clone)]
struct Mt19937 {
    state: [u32; STATE],
    next: usize,
}

impl Mt19937 {
    fn new(seed: u32) -> Self {
        let mut state = [seed; STATE];
        for index in 1..STATE {
            let previous = state[index - 1];
            state[index] = 1_812_433_253_u32.wrapping_mul(previous ^ (previous >> 30)).wrapping_add(index as u32);
        }
        Self { state, next: STATE }
    }

    fn next_u32(&mut self) -> u32 {
        if self.next == STATE {
            self.refill();
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    fn refill(&mut self) {
        for index in 0..STATE {
            let joined = (self.state[index] & 0x8000_0000) | (self.state[(index + 1) % STATE] & 0x7fff_ffff);
            let twisted = (joined >> 1) ^ if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[index] = self.state[(index + SHIFT) % STATE] ^ twisted;
        }
        self.next = 0;
    }
}
