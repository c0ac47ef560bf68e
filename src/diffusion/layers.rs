//! The layers that every network here is made of, with the shapes and names of PyTorch's modules.
//!
//! # Same bits in any company
//! With `batch_invariant`, a row's bits may not depend on how many rows there are, nor on its place among them. Measured with
//! libtorch 2.11 on CPUs in float32 and bfloat16, four things break that, and these layers mend each where it happens:
//! - `conv2d` takes its own kernel for small inputs and oneDNN's for larger ones, and counts the batch: here always oneDNN's, with the
//!   setting or without (on small inputs it is several times faster, too);
//! - `linear` with one row a sample (the time embedding, 1 × 1 feature maps) is a matrix-vector product when it is alone: row by row;
//! - group norm with the channels last splits its sums by the batch, too: row by row;
//! - SiLU and GELU take another `exp` and `erf` for the last few values of a thread's share: row by row.
//!
//! Layer norm, attention, and `linear` with more than one row a sample keep their bits as they are.
//!
//! # The order of the values
//! Weights of convolutions have their channels last, and so has what enters a network and then all that goes through it: convolutions and
//! group norms are fastest with it, and between the cells of a picture and the rows of a transformer nothing has to move. Another order gives
//! other bits.

mod fp8;
mod fused;

use tch::{Device, Kind, TchError, Tensor};

pub(super) use self::{
    fp8::{FP8_MULTIPLE, Products, TransformerLinear, check_fp8},
    fused::geglu,
};
use super::{
    device::Placement,
    error::LoadError,
    meter::{Op, measure},
    weights::Scope,
};

/// A result of libtorch.
pub(super) type Result<T> = std::result::Result<T, TchError>;

/// `torch.nn.Linear`: `[…, in] → […, out]`.
#[derive(Debug)]
pub(super) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    batch_invariant: bool,
}

impl Linear {
    pub(super) fn load(vs: &Scope, inputs: i64, outputs: i64) -> std::result::Result<Self, LoadError> {
        Ok(Self { bias: Some(vs.tensor("bias", &[outputs])?), ..Self::without_bias(vs, inputs, outputs)? })
    }

    pub(super) fn without_bias(vs: &Scope, inputs: i64, outputs: i64) -> std::result::Result<Self, LoadError> {
        let weight = vs.tensor("weight", &[outputs, inputs])?;
        Ok(Self { weight, bias: None, batch_invariant: vs.placement().batch_invariant })
    }

    /// Several linears of the same input, whose outputs stand side by side: `[…, in] → […, n · out]`.
    pub(super) fn joined<const N: usize>(scopes: [Scope; N], inputs: i64, outputs: i64) -> std::result::Result<Self, LoadError> {
        let biases = scopes.iter().map(|vs| vs.tensor("bias", &[outputs])).collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Self { bias: Some(Tensor::f_cat(&biases, 0)?), ..Self::joined_without_biases(scopes, inputs, outputs)? })
    }

    /// As [`Self::joined`], of linears without biases.
    pub(super) fn joined_without_biases<const N: usize>(
        scopes: [Scope; N],
        inputs: i64,
        outputs: i64,
    ) -> std::result::Result<Self, LoadError> {
        let weights =
            scopes.iter().map(|vs| vs.tensor("weight", &[outputs, inputs])).collect::<std::result::Result<Vec<_>, _>>()?;
        let batch_invariant = scopes.iter().all(|vs| vs.placement().batch_invariant);
        Ok(Self { weight: Tensor::f_cat(&weights, 0)?, bias: None, batch_invariant })
    }

    /// The channels of what it makes.
    pub(super) fn outputs(&self) -> i64 {
        self.weight.size()[0]
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        measure(Op::Linear, || self.weight.size()[1], || self.apply(x))
    }

    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let size = x.size();
        let rows_a_sample: i64 = size[1..size.len() - 1].iter().product();
        if self.batch_invariant && rows_a_sample == 1 {
            return row_by_row(x, |row| row.f_linear(&self.weight, self.bias.as_ref()));
        }
        x.f_linear(&self.weight, self.bias.as_ref())
    }
}

/// `torch.nn.Conv2d` with a square kernel: `[B, in, H, W] → [B, out, H', W']`.
#[derive(Debug)]
pub(super) struct Conv2d {
    weight: Tensor,
    /// None where whoever stands behind adds it.
    bias: Option<Tensor>,
    stride: i64,
    padding: i64,
}

/// The sizes of a convolution.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConvShape {
    pub(super) inputs: i64,
    pub(super) outputs: i64,
    pub(super) kernel: i64,
    pub(super) stride: i64,
    pub(super) padding: i64,
}

impl ConvShape {
    /// A 3 × 3 convolution that keeps the size.
    pub(super) fn same(inputs: i64, outputs: i64) -> Self {
        Self { inputs, outputs, kernel: 3, stride: 1, padding: 1 }
    }

    /// A 1 × 1 convolution.
    pub(super) fn pointwise(inputs: i64, outputs: i64) -> Self {
        Self { inputs, outputs, kernel: 1, stride: 1, padding: 0 }
    }
}

impl Conv2d {
    pub(super) fn load(vs: &Scope, shape: ConvShape) -> std::result::Result<Self, LoadError> {
        let ConvShape { inputs, outputs, kernel, stride, padding } = shape;
        let weight = vs.kernel("weight", [outputs, inputs, kernel, kernel])?;
        let bias = Some(vs.tensor("bias", &[outputs])?);
        Ok(Self { weight, bias, stride, padding })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.convolve(x, self.bias.as_ref())
    }

    fn convolve(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        measure(Op::Conv, || self.weight.size()[1..].iter().product(), || self.apply(x, bias))
    }

    fn apply(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        if x.device() == Device::Cpu {
            let output = x.f_mkldnn_convolution(&self.weight, bias, padding, stride, [1, 1], 1);
            // oneDNN has half precision on some CPUs only.
            if output.is_ok() || x.kind() == Kind::Float {
                return output;
            }
        }
        x.f_conv2d(&self.weight, bias, stride, padding, [1, 1], 1)
    }
}

/// `torch.nn.GroupNorm`.
#[derive(Debug)]
pub(super) struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
    eps: f64,
    batch_invariant: bool,
}

impl GroupNorm {
    pub(super) fn load(vs: &Scope, groups: i64, channels: i64, eps: f64) -> std::result::Result<Self, LoadError> {
        let (weight, bias) = (vs.tensor("weight", &[channels])?, vs.tensor("bias", &[channels])?);
        Ok(Self { weight, bias, groups, eps, batch_invariant: vs.placement().batch_invariant })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.fused(x, None, None).unwrap_or_else(|| self.rows(x, |row| self.apply(row)))
    }

    /// With an activation behind it.
    pub(super) fn forward_then(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let fused = self.fused(x, None, Some(activation));
        fused.unwrap_or_else(|| self.rows(x, |row| activation.apply(&self.apply(row)?)))
    }

    fn rows(&self, x: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        if self.batch_invariant { row_by_row(x, f) } else { f(x) }
    }

    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        x.f_group_norm(self.groups, Some(&self.weight), Some(&self.bias), self.eps, true)
    }
}

/// `torch.nn.LayerNorm` over the last dimension.
#[derive(Debug)]
pub(super) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    pub(super) fn load(vs: &Scope, width: i64, eps: f64) -> std::result::Result<Self, LoadError> {
        Ok(Self { weight: vs.tensor("weight", &[width])?, bias: vs.tensor("bias", &[width])?, eps })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.f_layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.eps, true)
    }
}

/// An element-wise function between layers, by the names that configs use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Activation {
    /// x · sigmoid(x), also called swish.
    #[serde(alias = "swish")]
    Silu,
    /// x · Φ(x), with the exact error function.
    Gelu,
    /// x · sigmoid(1.702 x), as in OpenAI's CLIP.
    QuickGelu,
    /// max(x, 0)
    Relu,
    /// x · tanh(softplus(x))
    Mish,
}

impl Activation {
    pub(super) fn forward(self, x: &Tensor, placement: Placement) -> Result<Tensor> {
        if placement.batch_invariant { row_by_row(x, |row| self.apply(row)) } else { self.apply(x) }
    }

    fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Silu => x.f_silu(),
            Self::Gelu => x.f_gelu("none"),
            Self::QuickGelu => x.f_mul(&x.f_mul_scalar(1.702)?.f_sigmoid()?),
            Self::Relu => x.f_relu(),
            Self::Mish => x.f_mish(),
        }
    }
}

/// Applies `f` to each `[1, …]` of `[B, …]`, so that what it does cannot depend on the others.
pub(super) fn row_by_row(x: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    match x.size()[0] {
        1 => f(x),
        rows => {
            let outputs = (0..rows).map(|row| f(&x.f_narrow(0, row, 1)?)).collect::<Result<Vec<_>>>()?;
            Tensor::f_cat(&outputs, 0)
        }
    }
}

/// The same `[B, C, H, W]` with the channels of a cell side by side in memory: what convolutions and group norms are fastest with, and what
/// they keep.
pub(super) fn channels_last(x: &Tensor) -> Result<Tensor> {
    x.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])
}

/// softmax(q·kᵀ / √d)·v for `[B, heads, L, d]`; every row attends to itself and to those before it when `causal`.
pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, causal: bool) -> Result<Tensor> {
    let attend = || Tensor::f_scaled_dot_product_attention::<Tensor>(q, k, v, None, 0.0, causal, None, false);
    // For each value of the output as many for its weight, which is its share of q·kᵀ, as for its part of the sum.
    measure(Op::Attention, || 2 * k.size()[2], attend)
}

/// `[B, L, heads · d] → [B, heads, L, d]`
pub(super) fn split_heads(x: &Tensor, heads: i64) -> Result<Tensor> {
    let (batch, length, width) = x.size3()?;
    x.f_reshape([batch, length, heads, width / heads])?.f_transpose(1, 2)
}

/// `[B, heads, L, d] → [B, L, heads · d]`
pub(super) fn merge_heads(x: &Tensor) -> Result<Tensor> {
    let (batch, heads, length, width) = x.size4()?;
    x.f_transpose(1, 2)?.f_reshape([batch, length, heads * width])
}
