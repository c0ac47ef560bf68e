//! Values that lie somewhere in memory, such as in a mapped file, become a tensor's without a copy between.

use tch::{Device, Kind, TchError, Tensor};

/// Copies the values that these bytes hold, in the order of the target's sides, into the target, cast to its dtype on the way. Large tensors
/// are copied by all of libtorch's threads.
///
/// # Errors
/// When there are not as many bytes as the target has values, or libtorch fails.
pub fn copy_values(bytes: &[u8], kind: Kind, target: &mut Tensor) -> Result<(), TchError> {
    let shape = target.size();
    let size = kind.elt_size_in_bytes();
    if bytes.len() != target.numel() * size {
        return Err(TchError::Shape(format!("{} bytes for the {kind:?} values of {shape:?}", bytes.len())));
    }
    if !bytes.as_ptr().addr().is_multiple_of(size) {
        return target.f_copy_(&Tensor::f_from_data_size(bytes, &shape, kind)?);
    }
    // SAFETY: the bytes are aligned, and as many as the contiguous view spans (no strides are named). The view is only read, lives no longer than this
    // call and so no longer than the borrow, and `copy_` keeps no hold on what it copies from. Any bits are a value of a dtype.
    let view = unsafe { Tensor::f_from_blob(bytes.as_ptr(), &shape, &[], kind, Device::Cpu) }?;
    target.f_copy_(&view)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_cast_wherever_they_lie_and_into_any_order() {
        let values: Vec<f32> = (0..24).map(|value| value as f32 / 4.0).collect();
        let mut bytes = vec![0_u8];
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let aligned: Vec<u8> = bytes[1..].to_vec();
        let wanted = Tensor::from_slice(&values).reshape([2, 3, 4]);
        for bytes in [&aligned[..], &bytes[1..]] {
            let mut turned = Tensor::empty([4, 3, 2], (Kind::BFloat16, Device::Cpu)).transpose(0, 2);
            copy_values(bytes, Kind::Float, &mut turned).unwrap();
            assert_eq!(turned.to_kind(Kind::Float), wanted);
        }
    }

    #[test]
    fn too_few_or_too_many_bytes_are_refused() {
        let mut target = Tensor::empty([2, 2], (Kind::Float, Device::Cpu));
        for bytes in [15, 17] {
            let error = copy_values(&vec![0; bytes], Kind::Float, &mut target).unwrap_err();
            assert!(error.to_string().contains(&format!("{bytes} bytes for the Float values of [2, 2]")), "{error}");
        }
    }
}
