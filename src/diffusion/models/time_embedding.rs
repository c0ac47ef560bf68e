//! How the UNet learns what else it should know: the timestep, and what some families add to it.

use tch::{Device, Kind, Tensor};

use super::config::UNetConfig;
use crate::diffusion::{
    device::Placement,
    error::LoadError,
    layers::{Activation, Linear, Result},
    weights::Scope,
};

/// The largest period of the sinusoids; diffusers' `get_timestep_embedding`.
const MAX_PERIOD: f64 = 10_000.0;

/// What Stable Diffusion XL's UNet adds to the timestep (Podell et al., 2023, section 2.2), one row a sample.
#[derive(Debug)]
pub(in crate::diffusion) struct AddedCondition {
    /// The pooled prompt, `[B, projection]`.
    pub(in crate::diffusion) text_embeds: Tensor,
    /// Original size, crop, and target size or aesthetic score: `[B, 6]`, the refiner's `[B, 5]`, float32.
    pub(in crate::diffusion) time_ids: Tensor,
}

impl AddedCondition {
    /// The same tensors, once more.
    pub(in crate::diffusion) fn shallow_clone(&self) -> Self {
        Self { text_embeds: self.text_embeds.shallow_clone(), time_ids: self.time_ids.shallow_clone() }
    }
}

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
    cond_proj: Option<Linear>,
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
            cond_proj: None,
            act_fn,
            placement: vs.placement(),
        })
    }

    /// With a projection of `width` more channels onto the `inputs`: the guidance scale of a distilled model.
    pub(in crate::diffusion) fn with_condition(self, vs: &Scope, width: i64, inputs: i64) -> std::result::Result<Self, LoadError> {
        Ok(Self { cond_proj: Some(Linear::without_bias(&(vs / "cond_proj"), width, inputs)?), ..self })
    }

    /// `[B, inputs]` and, where there is a projection for it, condition `[B, width]` → `[B, outputs]`
    pub(in crate::diffusion) fn forward(&self, sample: &Tensor, condition: Option<&Tensor>) -> Result<Tensor> {
        let projected = match (&self.cond_proj, condition) {
            (Some(projection), Some(condition)) => Some(projection.forward(condition)?),
            _ => None,
        };
        let hidden = match projected {
            Some(projected) => self.linear_1.forward(&sample.f_add(&projected)?)?,
            None => self.linear_1.forward(sample)?,
        };
        self.linear_2.forward(&self.act_fn.forward(&hidden, self.placement)?)
    }
}

/// diffusers' `add_time_proj` and `add_embedding` (`addition_embed_type` "text_time").
pub(in crate::diffusion) struct TextTimeEmbedding {
    add_time_proj: Timesteps,
    add_embedding: TimestepEmbedding,
    placement: Placement,
}

impl TextTimeEmbedding {
    pub(in crate::diffusion) fn load(vs: &Scope, config: &UNetConfig, outputs: i64) -> std::result::Result<Self, LoadError> {
        let UNetConfig { addition_time_embed_dim: channels, flip_sin_to_cos, freq_shift, .. } = *config;
        let inputs = config.projection_class_embeddings_input_dim;
        Ok(Self {
            add_time_proj: Timesteps { channels, flip_sin_to_cos, freq_shift },
            // diffusers does not hand its `act_fn` on here.
            add_embedding: TimestepEmbedding::load(&(vs / "add_embedding"), inputs, outputs, Activation::Silu)?,
            placement: vs.placement(),
        })
    }

    /// What is added to the timestep's embedding: `[B, outputs]`.
    pub(in crate::diffusion) fn forward(&self, added: &AddedCondition) -> Result<Tensor> {
        let (rows, numbers) = added.time_ids.size2()?;
        let sinusoids = self.add_time_proj.forward(&added.time_ids.f_reshape([rows * numbers])?, self.placement)?;
        let sinusoids = sinusoids.f_reshape([rows, -1])?;
        self.add_embedding.forward(&Tensor::f_cat(&[&added.text_embeds, &sinusoids], 1)?, None)
    }
}

/// How a distilled model is told its guidance scale, in the place of unconditional rows (Luo et al., 2023, appendix B): diffusers'
/// `get_guidance_scale_embedding` of `guidance_scale − 1`, `[1, width]` float32.
pub(in crate::diffusion) fn guidance_scale_embedding(guidance_scale: f64, width: i64) -> Result<Tensor> {
    let half = width / 2;
    // In float32 throughout, as the reference has it.
    let scale = -(MAX_PERIOD.ln() as f32) / (half as f32 - 1.0);
    let frequencies = Tensor::f_arange(half, (Kind::Float, Device::Cpu))?.f_mul_scalar(f64::from(scale))?.f_exp()?;
    let angles = frequencies.f_mul_scalar((guidance_scale - 1.0) * 1000.0)?.f_unsqueeze(0)?;
    Tensor::f_cat(&[angles.f_sin()?, angles.f_cos()?], 1)?.f_constant_pad_nd([0, width % 2])
}
