//! Keys and values in the order in which the kernel reads them.

use half::bf16;

use super::{AttentionShape, Rows, vectors::LANES};

/// The keys and values of one head of one sample.
pub(super) struct Packed {
    /// `[keys / 16][width / 2][16]`: of 16 keys, two values each at a time.
    pub(super) keys: Vec<[u32; LANES]>,
    /// `[keys / 2][columns / 16][16]`: of two keys, one value each at a time.
    pub(super) values: Vec<[u32; LANES]>,
}

/// How many vectors hold this many values.
pub(super) fn vectors(values: usize) -> usize {
    values.div_ceil(LANES)
}

/// Two bfloat16 as the dot product takes them: the first in the low half.
pub(super) fn pair(low: bf16, high: bf16) -> u32 {
    u32::from(low.to_bits()) | u32::from(high.to_bits()) << 16
}

impl Packed {
    /// Packs head `head` of sample `sample`; what is beyond the last key is zero.
    pub(super) fn of([key, value]: [Rows; 2], (sample, head): (usize, usize), shape: AttentionShape) -> Self {
        let row = |rows: Rows<'_>, index: usize| (sample * shape.keys + index) * rows.stride + head * shape.width;
        let (pairs, columns) = (shape.width / 2, vectors(shape.width));
        let mut keys = vec![[0; LANES]; vectors(shape.keys) * pairs];
        for index in 0..shape.keys {
            let (two, _) = key.values[row(key, index)..][..shape.width].as_chunks::<2>();
            let block = &mut keys[index / LANES * pairs..][..pairs];
            block.iter_mut().zip(two).for_each(|(block, &[low, high])| block[index % LANES] = pair(low, high));
        }
        let mut values = vec![[0; LANES]; vectors(shape.keys) * LANES / 2 * columns];
        for index in (0..shape.keys).step_by(2) {
            let packed = values[index / 2 * columns..][..columns].as_flattened_mut();
            let first = &value.values[row(value, index)..][..shape.width];
            packed.iter_mut().zip(first).for_each(|(packed, &low)| *packed = pair(low, bf16::ZERO));
            if index + 1 < shape.keys {
                let second = &value.values[row(value, index + 1)..][..shape.width];
                packed.iter_mut().zip(second).for_each(|(packed, &high)| *packed |= pair(bf16::ZERO, high));
            }
        }
        Self { keys, values }
    }
}
