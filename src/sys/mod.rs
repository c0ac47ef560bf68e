//! What the operating system and the C libraries want to be told, and the only `unsafe` of the house: one small file for each thing, with the
//! argument why it holds.
#![allow(unsafe_code, reason = "the one room where it is allowed; every use is argued")]

mod attention;
mod cuda;
mod malloc;
mod memory;
mod mmap;
mod threads;
mod values;

pub use attention::{AttentionShape, Rows, attention, processor_multiplies_bfloat16};
#[cfg(test)]
pub(crate) use cuda::with_kernels_on_the_cpu;
pub use cuda::{
    AttentionKernel, Event, Graph, GraphPool, GroupNormCall, Stream, add_bias_residual, geglu, gpu_memory_peak,
    gpu_memory_reserved, group_norm, has_kernels, load_cuda, only_attention, prepare_kernels, prepare_shim, scale_rows_to_fp8,
};
pub use memory::{gpu_memory, host_memory, peak_memory};
pub use mmap::{forget_pages, map_file};
pub use threads::spin_briefly;
pub use values::copy_values;
