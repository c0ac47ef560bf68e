//! Weights for who wants to know how fast a network is, and not what it paints.

use std::cell::Cell;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tch::Tensor;

use super::{device::Placement, layers::Result};

/// Values that are drawn; more than the caches of a core hold, and a prime, so that no row of a matrix is like the one before.
const DRAWN: usize = 1_048_573;
const SEED: u64 = 7;

/// Draws tensors as PyTorch initializes layers, so that activations stay finite: norms are the identity, biases are zero, and weights
/// shrink with their inputs. The same in every run.
///
/// Drawing billions of values takes longer than loading them from a disk. So a million are drawn, and large tensors repeat them.
pub(super) struct RandomTensors {
    drawn: Tensor, // [DRAWN] in −1..1
    at: Cell<i64>,
}

impl RandomTensors {
    pub(super) fn new(placement: Placement) -> Result<Self> {
        let mut random = StdRng::seed_from_u64(SEED);
        let values: Vec<f32> = (0..DRAWN).map(|_| random.random_range(-1.0..1.0)).collect();
        let drawn = Tensor::f_from_slice(&values)?.f_to_device(placement.device)?.f_to_kind(placement.kind)?;
        Ok(Self { drawn, at: Cell::new(0) })
    }

    /// The next tensor, of this shape.
    pub(super) fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor> {
        if shape.len() < 2 {
            let value = if name.ends_with("bias") { 0.0 } else { 1.0 };
            return self.drawn.f_new_full(shape, value, (self.drawn.kind(), self.drawn.device()));
        }
        let (count, drawn) = (shape.iter().product::<i64>(), DRAWN as i64);
        let start = self.at.replace((self.at.get() + count) % drawn);
        let bound = (shape[1..].iter().product::<i64>() as f64).powf(-0.5);
        let mut pieces = vec![self.drawn.f_narrow(0, start, count.min(drawn - start))?];
        let mut missing = count - pieces[0].size()[0];
        while missing > 0 {
            pieces.push(self.drawn.f_narrow(0, 0, missing.min(drawn))?);
            missing -= missing.min(drawn);
        }
        Tensor::f_cat(&pieces, 0)?.f_mul_scalar_(bound)?.f_reshape(shape)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    const ON_CPU: Placement = Placement { device: Device::Cpu, kind: Kind::Float, batch_invariant: false };

    #[test]
    fn large_tensors_go_on_where_the_last_one_ended_and_shrink_with_their_inputs() {
        let random = RandomTensors::new(ON_CPU).unwrap();
        let first = random.tensor("weight", &[1000, 100]).unwrap();
        let second = random.tensor("weight", &[3000, 1000]).unwrap();
        assert!((first.std(true).double_value(&[]) - 0.1 / 3.0_f64.sqrt()).abs() < 1e-4);
        let (drawn, second) = (&random.drawn, second.flatten(0, -1) * 1000.0_f64.sqrt());
        let end = DRAWN as i64 - 100_000;
        assert!((second.narrow(0, 0, end) - drawn.narrow(0, 100_000, end)).abs().max().double_value(&[]) < 1e-6);
        assert!((second.narrow(0, end, 500_000) - drawn.narrow(0, 0, 500_000)).abs().max().double_value(&[]) < 1e-6);
        assert_eq!(second.size(), [3_000_000]);
    }

    #[test]
    fn norms_are_the_identity() {
        let random = RandomTensors::new(ON_CPU).unwrap();
        assert_eq!(Vec::<f32>::try_from(random.tensor("norm1.weight", &[3]).unwrap()).unwrap(), [1.0; 3]);
        assert_eq!(Vec::<f32>::try_from(random.tensor("norm1.bias", &[3]).unwrap()).unwrap(), [0.0; 3]);
    }
}
