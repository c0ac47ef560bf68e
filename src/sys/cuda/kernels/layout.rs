//! How tensors lie in memory, and the names of kernels for their dtypes.

use tch::{Kind, Tensor};

use super::super::driver::Argument;

/// The dtypes that there are kernels for.
pub(super) const KINDS: [Kind; 3] = [Kind::Float, Kind::BFloat16, Kind::Half];
/// Bytes that a thread reads at a time.
const PACK_BYTES: i64 = 16;

/// `[N, C, H, W]` of a tensor whose values lie as `[N, H, W, C]`, without gaps and where a pack may be read.
pub(super) fn channels_last(tensor: &Tensor) -> Option<[i64; 4]> {
    let (size, stride) = (<[i64; 4]>::try_from(tensor.size()).ok()?, tensor.stride());
    let [_, channels, height, width] = size;
    let expected = [height * width * channels, 1, width * channels, channels];
    // The stride of a dimension of one is never used.
    let lies = size.iter().zip(&stride).zip(expected).all(|((&size, &stride), expected)| size == 1 || stride == expected);
    (lies && is_aligned(tensor)).then_some(size)
}

pub(super) fn is_aligned(tensor: &Tensor) -> bool {
    tensor.data_ptr().addr() as i64 % PACK_BYTES == 0
}

/// Values of a pack; none for a dtype without kernels.
pub(super) fn pack_of(tensor: &Tensor) -> Option<i64> {
    KINDS.contains(&tensor.kind()).then(|| PACK_BYTES / tensor.kind().elt_size_in_bytes() as i64)
}

pub(super) fn address(tensor: &Tensor) -> Argument {
    Argument::Address(tensor.data_ptr())
}

/// The kernel of this name for the tensor's dtype.
pub(super) fn kernel(name: &str, tensor: &Tensor) -> String {
    kernel_name(name, tensor.kind())
}

pub(super) fn kernel_name(name: &str, kind: Kind) -> String {
    let kind = match kind {
        Kind::BFloat16 => "bf16",
        Kind::Half => "f16",
        _ => "float",
    };
    format!("{name}_{kind}")
}
