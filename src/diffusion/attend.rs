//! Attention between the projections of a transformer: our own kernel where the processor has one, else libtorch's.

use half::bf16;
use tch::{Device, Kind, Tensor, kind::Element};

use super::{
    layers::{Result, attention, merge_heads, split_heads},
    meter::{Op, measure},
};
use crate::sys::{self, AttentionShape, Rows};

/// Rows of all heads of a sample below which libtorch's kernel is called: waking threads would take longer.
const FEWEST_ROWS: usize = 512;

/// softmax(q·kᵀ / √d)·v in `heads` heads: query `[B, L, C]`, key and value `[B, L', C]` → `[B, L, C]`
pub(super) fn attend(query: &Tensor, [key, value]: [&Tensor; 2], heads: i64) -> Result<Tensor> {
    let (batch, queries, channels) = query.size3()?;
    let shape = shape([batch, queries, key.size3()?.1], channels, heads);
    if !has_kernel(query, shape) {
        let [q, k, v] = [split_heads(query, heads)?, split_heads(key, heads)?, split_heads(value, heads)?];
        return merge_heads(&attention(&q, &k, &v, false)?);
    }
    measured(shape, || {
        let [q, k, v] = [values(query)?, values(key)?, values(value)?];
        let rows = |values| Rows { values, stride: shape.heads * shape.width };
        run(rows(&q), [rows(&k), rows(&v)], shape)
    })
}

/// As [`attend`] of rows to each other, whose query, key and value stand side by side: `[B, L, 3 · C] → [B, L, C]`.
pub(super) fn attend_to_themselves(joined: &Tensor, heads: i64) -> Result<Tensor> {
    let (batch, length, channels) = joined.size3()?;
    let shape = shape([batch, length, length], channels / 3, heads);
    if !has_kernel(joined, shape) {
        let parts = joined.f_chunk(3, 2)?;
        return attend(&parts[0], [&parts[1], &parts[2]], heads);
    }
    measured(shape, || {
        let (values, width) = (values(joined)?, shape.heads * shape.width);
        let rows = |place: usize| Rows { values: &values[place * width..], stride: 3 * width };
        run(rows(0), [rows(1), rows(2)], shape)
    })
}

fn shape([batch, queries, keys]: [i64; 3], channels: i64, heads: i64) -> AttentionShape {
    let [batch, queries, keys, width] = [batch, queries, keys, channels / heads].map(|side| side as usize);
    AttentionShape { batch, heads: heads as usize, queries, keys, width }
}

/// As libtorch's attention is counted.
fn measured(shape: AttentionShape, attend: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
    measure(Op::Attention, || 2 * shape.keys as i64, attend)
}

/// Whether our kernel is to be called. Each sample by itself decides: its bits must not depend on how many there are.
fn has_kernel(query: &Tensor, shape: AttentionShape) -> bool {
    let is_here = query.device() == Device::Cpu && query.kind() == Kind::BFloat16;
    is_here && shape.heads * shape.queries >= FEWEST_ROWS && shape.is_supported()
}

fn values(tensor: &Tensor) -> Result<Vec<bf16>> {
    let mut values = vec![bf16::ZERO; tensor.numel()];
    let count = values.len();
    // tch takes bfloat16 for float16 here; both are 16 bits, which are only copied.
    tensor.f_view_dtype(bf16::KIND)?.f_copy_data(&mut values, count)?;
    Ok(values)
}

fn run(query: Rows, others: [Rows; 2], shape: AttentionShape) -> Result<Tensor> {
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1);
    let output = sys::attention(query, others, shape, threads);
    let output = output.ok_or_else(|| tch::TchError::Shape(format!("the rows of an attention are not those of {shape:?}")))?;
    let size = [shape.batch, shape.queries, shape.heads * shape.width].map(|side| side as i64);
    Tensor::f_from_slice(&output)?.f_view_dtype(Kind::BFloat16)?.f_reshape(size)
}
