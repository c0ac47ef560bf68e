//! The numbers of a step, taken to the device together.
//!
//! A step needs some dozens of small lists there: coefficients, timesteps, places of rows. Each as a tensor of its own would be a copy of its own.

use std::ops::Range;

use tch::{Device, Tensor};

use super::{layers::Result, transfer::upload};

/// Lists that are being gathered.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    floats: Vec<f32>,
    indices: Vec<i64>,
}

/// Where a list of floats is among the others.
#[derive(Debug, Clone)]
pub(super) struct Floats(Range<usize>);

/// Where a list of indices is among the others.
#[derive(Debug, Clone)]
pub(super) struct Indices(Range<usize>);

impl Numbers {
    /// Adds numbers, which become float32.
    pub(super) fn floats(&mut self, values: impl IntoIterator<Item = f64>) -> Floats {
        let start = self.floats.len();
        self.floats.extend(values.into_iter().map(|value| value as f32));
        Floats(start..self.floats.len())
    }

    /// Adds indices.
    pub(super) fn indices(&mut self, values: &[i64]) -> Indices {
        let start = self.indices.len();
        self.indices.extend(values);
        Indices(start..self.indices.len())
    }

    /// Takes all lists to a device.
    pub(super) fn upload(&self, device: Device) -> Result<Uploaded> {
        let (floats, indices) = (Tensor::f_from_slice(&self.floats)?, Tensor::f_from_slice(&self.indices)?);
        Ok(Uploaded { floats: upload(&floats, device)?, indices: upload(&indices, device)? })
    }
}

/// Lists that are on the device.
#[derive(Debug)]
pub(super) struct Uploaded {
    floats: Tensor,
    indices: Tensor,
}

impl Uploaded {
    /// `[n]` float32
    pub(super) fn floats(&self, Floats(range): &Floats) -> Result<Tensor> {
        self.floats.f_narrow(0, range.start as i64, range.len() as i64)
    }

    /// One value a row as `[n, 1, 1, 1]` float32, to be broadcast over latents.
    pub(super) fn per_row(&self, floats: &Floats) -> Result<Tensor> {
        self.floats(floats)?.f_reshape([-1, 1, 1, 1])
    }

    /// `[n]` int64
    pub(super) fn indices(&self, Indices(range): &Indices) -> Result<Tensor> {
        self.indices.f_narrow(0, range.start as i64, range.len() as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_is_found_again_and_rounded_as_a_tensor_of_its_own_would_be() {
        let mut numbers = Numbers::default();
        let values = [0.1, -1.0 / 3.0, 1e30];
        let (first, empty, second) = (numbers.floats(values), numbers.floats([]), numbers.floats([7.5]));
        let (places, others) = (numbers.indices(&[3, 0]), numbers.indices(&[1 << 40]));
        let uploaded = numbers.upload(Device::Cpu).unwrap();
        assert_eq!(uploaded.floats(&first).unwrap(), Tensor::from_slice(&values).to_kind(tch::Kind::Float));
        assert_eq!(uploaded.floats(&empty).unwrap().numel(), 0);
        assert_eq!(uploaded.per_row(&second).unwrap(), Tensor::from_slice(&[7.5_f32]).reshape([1, 1, 1, 1]));
        assert_eq!(uploaded.indices(&places).unwrap(), Tensor::from_slice(&[3_i64, 0]));
        assert_eq!(uploaded.indices(&others).unwrap(), Tensor::from_slice(&[1_i64 << 40]));
    }
}
