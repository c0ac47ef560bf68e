//! Attention in bfloat16 on CPUs that multiply it (AVX-512 BF16): softmax(q·kᵀ / √d)·v without ever holding the scores of more than a
//! few rows, after FlashAttention-2 (Dao, 2023).
//!
//! libtorch's own kernel for the CPU spends most of its time beside the multiplications; with heads as narrow as Stable Diffusion's it
//! reaches a third of what the same processor does in a matrix product. Here keys and values are packed once, as the dot-product instruction wants
//! them, the scores of 24 rows stay in the fastest cache, and the exponential is a polynomial in registers.
//!
//! A row's bits depend on its own query and on all keys and values of its sample, and on nothing else: not on the number of threads, nor on
//! who shares the call.

#[cfg(target_arch = "x86_64")]
mod kernel;
#[cfg(target_arch = "x86_64")]
mod pack;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod vectors;

use half::bf16;

/// The sizes of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Samples.
    pub batch: usize,
    /// Heads of each.
    pub heads: usize,
    /// Rows that ask.
    pub queries: usize,
    /// Rows that are looked at.
    pub keys: usize,
    /// Values of one head in one row; even.
    pub width: usize,
}

/// `[batch, rows, …]`: the values of a row's heads stand side by side, one row begins `stride` values behind the
/// one before.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// From the first value of the first row on.
    pub values: &'a [bf16],
    /// From one row to the next.
    pub stride: usize,
}

impl AttentionShape {
    /// Whether this processor and this shape have a kernel.
    pub fn is_supported(&self) -> bool {
        let has_work = [self.heads, self.queries, self.keys, self.width].iter().all(|count| *count > 0);
        has_work && self.width.is_multiple_of(2) && processor_multiplies_bfloat16()
    }

    fn holds(&self, rows: Rows, per_sample: usize) -> bool {
        let row = self.heads * self.width;
        let last = (self.batch * per_sample).saturating_sub(1) * rows.stride;
        row <= rows.stride && rows.values.len() >= last + row
    }
}

/// Whether this processor has the dot product of bfloat16.
pub fn processor_multiplies_bfloat16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Queries `[batch, queries, …]`, keys and values `[batch, keys, …]` → `[batch, queries, heads · width]`, on this many threads. `None` where there
/// is no kernel, or the rows are not there.
pub fn attention(query: Rows, [key, value]: [Rows; 2], shape: AttentionShape, threads: usize) -> Option<Vec<bf16>> {
    let holds = shape.holds(query, shape.queries) && shape.holds(key, shape.keys) && shape.holds(value, shape.keys);
    if !holds || !shape.is_supported() {
        return None;
    }
    #[cfg(target_arch = "x86_64")]
    return Some(kernel::attention(query, [key, value], shape, threads.max(1)));
    #[cfg(not(target_arch = "x86_64"))]
    None
}
