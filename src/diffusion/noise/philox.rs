//! PyTorch's CUDA noise, made on any device: the counter-based generator Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random
//! numbers: as easy as 1, 2, 3", 2011) with the counters of `torch.randn(device="cuda")`, and Box-Muller on its first two words.
//!
//! Equal to AUTOMATIC1111's `modules/rng_philox.py` (its random number source "NV"), whose arithmetic is in float64 with float32 constants,
//! and so is this. A GPU computes in float32 and differs in the last bits; beyond some 200,000 numbers a draw, which no latents of up to
//! 1024 × 1024 pixels have, GPUs differ among themselves, and neither A1111 nor this follows them there.

/// The multipliers of the two lanes.
const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
/// What each round adds to the key: the golden ratio and √3 − 1 as fractions of 2³².
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
const ROUNDS: usize = 10;
/// CUDA's 2⁻³² and 2⁻³² · 2π, as float32.
const UNIT: f32 = 2.328_306_4e-10;
const UNIT_TURN: f32 = (2.328_306_4e-10_f64 * 6.283_185_5) as f32;

/// A stream of standard normal numbers, as `torch.Generator("cuda").manual_seed(seed)` gives.
#[derive(Debug, Clone)]
pub(super) struct PhiloxGenerator {
    key: [u32; 2],
    /// How many draws there have been. CUDA's offset counts words and grows by 4, one block, a draw.
    draws: u32,
}

impl PhiloxGenerator {
    /// A generator; all 64 bits of the seed count.
    pub(super) fn new(seed: u64) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], draws: 0 }
    }

    /// `torch.randn(count)`. Each number has a thread, and so a block of four words, of its own; the last two words are not used.
    pub(super) fn randn(&mut self, count: usize) -> Vec<f32> {
        let number = |thread: usize| {
            let [radius, angle, ..] = philox([self.draws, 0, thread as u32, (thread as u64 >> 32) as u32], self.key);
            box_muller(radius, angle)
        };
        let values = (0..count).map(number).collect();
        self.draws = self.draws.wrapping_add(1);
        values
    }
}

/// The block of a counter: ten rounds, between which the key moves on.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        counter = round(counter, key);
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

fn round([a, b, c, d]: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (high_a, low_a) = wide_product(a, MULTIPLIERS[0]);
    let (high_c, low_c) = wide_product(c, MULTIPLIERS[1]);
    [high_c ^ b ^ key[0], low_c, high_a ^ d ^ key[1], low_a]
}

fn wide_product(word: u32, multiplier: u32) -> (u32, u32) {
    let product = u64::from(word) * u64::from(multiplier);
    ((product >> 32) as u32, product as u32)
}

/// The first of the pair that CUDA's `_curand_box_muller` makes of two words.
fn box_muller(radius: u32, angle: u32) -> f32 {
    let centred = |word: u32, unit: f32| f64::from(word) * f64::from(unit) + f64::from(unit / 2.0);
    let radius = (-2.0 * centred(radius, UNIT).ln()).sqrt();
    (radius * centred(angle, UNIT_TURN).sin()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blocks_are_those_that_the_papers_authors_publish() {
        // `kat_vectors` of Random123: philox4x32, 10 rounds.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let (counter, key) = ([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
        assert_eq!(philox(counter, key), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn seed_0_draws_what_a1111_documents() {
        // The twelve numbers in the docstring of `modules/rng_philox.py`, which come from a GPU: its float32 differs in the last bits.
        let documented = [
            -0.924_662_6,
            -0.425_344_15,
            -2.643_845_7,
            0.145_183_88,
            -0.120_866_47,
            -0.579_725_6,
            -0.622_851_2,
            -0.328_387_1,
            -1.074_542_3,
            -0.363_144_07,
            -1.671_050_7,
            2.265_505,
        ];
        for (value, documented) in PhiloxGenerator::new(0).randn(12).into_iter().zip(documented) {
            assert!((value - documented).abs() < 3e-7_f32, "{value} and {documented}");
        }
    }
}
