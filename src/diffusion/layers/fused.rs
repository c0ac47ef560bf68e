//! Layers that a GPU does in one kernel with what stands beside them, where there is one; otherwise one after the other.

use tch::Tensor;

use super::{Activation, Conv2d, GroupNorm, Linear, Result};
use crate::sys::{self, GroupNormCall};

impl GroupNorm {
    /// `activation(norm(x + shift))` in one, `shift` `[B, C]`; None where there is no kernel for that.
    pub(super) fn fused(&self, x: &Tensor, shift: Option<&Tensor>, activation: Option<Activation>) -> Option<Result<Tensor>> {
        let silu = match activation {
            None => false,
            Some(Activation::Silu) => true,
            Some(_) => return None,
        };
        let Self { weight, bias, groups, eps, .. } = self;
        sys::group_norm(&GroupNormCall { x, shift, weight, bias, groups: *groups, eps: *eps, silu })
    }

    /// The norm of `x + shift` with an activation behind it: `x` `[B, C, H, W]`, which may be written to, `shift` `[B or 1, C]`.
    pub(in crate::diffusion) fn forward_shifted(&self, mut x: Tensor, shift: &Tensor, activation: Activation) -> Result<Tensor> {
        let (rows, channels, ..) = x.size4()?;
        let of_rows = shift.f_expand([rows, channels], false)?.f_contiguous()?;
        match self.fused(&x, Some(&of_rows), Some(activation)) {
            Some(output) => output,
            None => self.forward_then(&x.f_add_(&shift.f_unsqueeze(-1)?.f_unsqueeze(-1)?)?, activation),
        }
    }
}

impl Conv2d {
    /// [`Self::forward`] with what `past` makes, of the output's shape, added; `x` is freed before that is made.
    pub(in crate::diffusion) fn forward_onto(&self, x: Tensor, past: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        let left = self.bias.as_ref().filter(|_| sys::has_kernels(&x));
        let mut output = self.convolve(&x, if left.is_some() { None } else { self.bias.as_ref() })?;
        drop(x);
        let past = past()?;
        let Some(bias) = left else { return output.f_add_(&past) };
        match sys::add_bias_residual(&mut output, bias, &past) {
            Some(done) => done.map(|()| output),
            None => output.f_add_(&bias.f_reshape([1, -1, 1, 1])?)?.f_add_(&past),
        }
    }

    /// Leaves the bias to whoever stands behind, where the device has kernels that add it with something else.
    pub(in crate::diffusion) fn take_bias(&mut self) -> Option<Tensor> {
        if sys::has_kernels(&self.weight) { self.bias.take() } else { None }
    }
}

impl Linear {
    /// The same with more added to its bias.
    pub(in crate::diffusion) fn with_more_bias(self, more: &Tensor) -> Result<Self> {
        let bias = match self.bias {
            Some(bias) => bias.f_add(more)?,
            None => more.shallow_clone(),
        };
        Ok(Self { bias: Some(bias), ..self })
    }
}

/// `hidden · gelu(gate)` of `[…, 2 · inner]`, hidden and gate side by side; None where there is no kernel for that.
pub(in crate::diffusion) fn geglu(projected: &Tensor) -> Option<Result<Tensor>> {
    sys::geglu(projected)
}
