//! How the UNet learns what else it should know: the timestep, and what some families add to it.

use tch::{Kind, Tensor};

use crate::diffusion::{
    device::Placement,
    error::LoadError,
    layers::{Activation, Linear, Result},
    weights::Scope,
};

/// The largest period of the sinusoids; diffusers' `get_timestep_embedding`.
const MAX_PERIOD: f64 = 10_000.0;

/// diffusers' `Timesteps`: numbers as sinusoids (Vaswani et al., 2017, section 3.5).
#[derive(Debug, Clone, Copy)]
pub(in crate::diffusion) struct Timesteps {
    pub(in crate::diffusion) channels: i64,
    pub(in crate::diffusion) flip_sin_to_cos: bool,
    pub(in crate::diffusion) freq_shift: f64,
}

impl Timesteps {
    /// `[B] → [B, channels]` in the placement's dtype
    pub(in crate::diffusion) fn forward(&self, numbers: &Tensor, placement: Placement) -> Result<Tensor> {
        let half = self.channels / 2;
        // In the order of the reference, for a last bit here is a hundred times as much in the angle of a large number.
        let exponents = Tensor::f_arange(half, (Kind::Float, numbers.device()))?.f_mul_scalar(-MAX_PERIOD.ln())?;
        let frequencies = exponents.f_div_scalar(half as f64 - self.freq_shift)?.f_exp()?;
        let angles = numbers.f_to_kind(Kind::Float)?.f_unsqueeze(1)?.f_mul(&frequencies.f_unsqueeze(0)?)?; // [B, half]
        let (sin, cos) = (angles.f_sin()?, angles.f_cos()?);
        let pair = if self.flip_sin_to_cos { [cos, sin] } else { [sin, cos] };
        Tensor::f_cat(&pair, 1)?.f_constant_pad_nd([0, self.channels % 2])?.f_to_kind(placement.kind)
    }
}

/// diffusers' `TimestepEmbedding`: two linears with an activation between them.
pub(in crate::diffusion) struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
    act_fn: Activation,
    placement: Placement,
}

impl TimestepEmbedding {
    /// `inputs → outputs` channels.
    pub(in crate::diffusion) fn load(
        vs: &Scope,
        inputs: i64,
        outputs: i64,
        act_fn: Activation,
    ) -> std::result::Result<Self, LoadError> {
        Ok(Self {
            linear_1: Linear::load(&(vs / "linear_1"), inputs, outputs)?,
            linear_2: Linear::load(&(vs / "linear_2"), outputs, outputs)?,
            act_fn,
            placement: vs.placement(),
        })
    }

    /// `[B, inputs]` and, where there is a projection for it, condition `[B, width]` → `[B, outputs]`
    pub(in crate::diffusion) fn forward(&self, sample: &Tensor, condition: Option<&Tensor>) -> Result<Tensor> {
        let _ = condition;
        let hidden = self.linear_1.forward(sample)?;
        self.linear_2.forward(&self.act_fn.forward(&hidden, self.placement)?)
    }
}
