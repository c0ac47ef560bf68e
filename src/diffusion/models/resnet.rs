//! Residual blocks and the layers that change the size between them.

use tch::Tensor;

use crate::diffusion::{
    device::Placement,
    error::LoadError,
    layers::{Activation, Conv2d, ConvShape, GroupNorm, Linear, Result},
    weights::Scope,
};

/// diffusers' `ResnetBlock2D`.
pub(in crate::diffusion) struct ResnetBlock2D {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    /// The first convolution's bias, `[1, out]`, where it is added with the norm behind it.
    shift: Option<Tensor>,
    settings: ResnetSettings,
    placement: Placement,
}

/// What a network's residual blocks have in common.
#[derive(Debug, Clone, Copy)]
pub(in crate::diffusion) struct ResnetSettings {
    pub(in crate::diffusion) groups: i64,
    pub(in crate::diffusion) eps: f64,
    pub(in crate::diffusion) act_fn: Activation,
    /// Width of the time embedding; none in the VAE.
    pub(in crate::diffusion) temb_channels: Option<i64>,
    pub(in crate::diffusion) output_scale_factor: f64,
    pub(in crate::diffusion) time_scale_shift: TimeScaleShift,
    pub(in crate::diffusion) resample: Resample,
}

/// What the time embedding does to a residual block; diffusers' `resnet_time_scale_shift`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::diffusion) enum TimeScaleShift {
    /// It is added.
    Default,
    /// One half scales what the second norm gives, the other is added to it (Dhariwal and Nichol, 2021).
    ScaleShift,
}

/// Whether a residual block changes the size on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::diffusion) enum Resample {
    None,
    /// Halves it with the mean of 2 × 2 cells.
    Down,
    /// Doubles it with nearest neighbours.
    Up,
}

impl Resample {
    fn forward(self, x: &Tensor) -> Result<Tensor> {
        let (_, _, height, width) = x.size4()?;
        match self {
            Self::None => Ok(x.shallow_clone()),
            Self::Down => x.f_avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None),
            Self::Up => x.f_upsample_nearest2d([2 * height, 2 * width], None, None),
        }
    }
}

impl ResnetBlock2D {
    pub(in crate::diffusion) fn load(
        vs: &Scope,
        inputs: i64,
        outputs: i64,
        settings: ResnetSettings,
    ) -> std::result::Result<Self, LoadError> {
        let ResnetSettings { groups, eps, .. } = settings;
        let shortcut = ConvShape::pointwise(inputs, outputs);
        let shortcut = (inputs != outputs).then(|| Conv2d::load(&(vs / "conv_shortcut"), shortcut)).transpose()?;
        let projected = if settings.time_scale_shift == TimeScaleShift::ScaleShift { 2 * outputs } else { outputs };
        let projection = settings.temb_channels.map(|width| Linear::load(&(vs / "time_emb_proj"), width, projected)).transpose()?;
        let norm1 = GroupNorm::load(&(vs / "norm1"), groups, inputs, eps)?;
        let mut conv1 = Conv2d::load(&(vs / "conv1"), ConvShape::same(inputs, outputs))?;
        let is_shifted = settings.time_scale_shift == TimeScaleShift::Default;
        let bias = if is_shifted { conv1.take_bias() } else { None };
        let (time_emb_proj, shift) = match (projection, bias) {
            // What is added to the same values anyway takes it along.
            (Some(projection), Some(bias)) => (Some(projection.with_more_bias(&bias)?), None),
            (projection, bias) => (projection, bias.map(|bias| bias.f_unsqueeze(0)).transpose()?),
        };
        Ok(Self {
            norm1,
            conv1,
            time_emb_proj,
            norm2: GroupNorm::load(&(vs / "norm2"), groups, outputs, eps)?,
            conv2: Conv2d::load(&(vs / "conv2"), ConvShape::same(outputs, outputs))?,
            conv_shortcut: shortcut,
            shift,
            settings,
            placement: vs.placement(),
        })
    }

    /// `[B, in, H, W] → [B, out, H, W]`; `temb` is `[B, temb]`, already activated (it is the same for every block).
    pub(in crate::diffusion) fn forward(&self, x: &Tensor, temb: Option<&Tensor>) -> Result<Tensor> {
        let resample = self.settings.resample;
        let activated = self.norm1.forward_then(x, self.settings.act_fn)?;
        let hidden = self.conv1.forward(&resample.forward(&activated)?)?;
        drop(activated);
        let x = &resample.forward(x)?;
        let hidden = self.activate_with_time(hidden, temb)?;
        let sum = match &self.conv_shortcut {
            Some(shortcut) => self.conv2.forward_onto(hidden, || shortcut.forward(x))?,
            None => self.conv2.forward_onto(hidden, || Ok(x.shallow_clone()))?,
        };
        if self.settings.output_scale_factor == 1.0 { Ok(sum) } else { sum.f_div_scalar(self.settings.output_scale_factor) }
    }

    /// The second norm with its activation, and the time embedding before or between them. Takes the values, so that they are freed at its
    /// end: in the VAE they are a fifth of what a decode takes.
    fn activate_with_time(&self, hidden: Tensor, temb: Option<&Tensor>) -> Result<Tensor> {
        let act_fn = self.settings.act_fn;
        let (Some(projection), Some(temb)) = (&self.time_emb_proj, temb) else {
            return match &self.shift {
                Some(shift) => self.norm2.forward_shifted(hidden, shift, act_fn),
                None => self.norm2.forward_then(&hidden, act_fn),
            };
        };
        let time = projection.forward(temb)?; // [B, out or 2 · out]
        match self.settings.time_scale_shift {
            TimeScaleShift::Default => self.norm2.forward_shifted(hidden, &time, act_fn),
            TimeScaleShift::ScaleShift => {
                let time = time.f_unsqueeze(-1)?.f_unsqueeze(-1)?;
                let (scale, shift) = (time.f_chunk(2, 1)?[0].f_add_scalar(1.0)?, &time.f_chunk(2, 1)?[1]);
                act_fn.forward(&self.norm2.forward(&hidden)?.f_mul(&scale)?.f_add(shift)?, self.placement)
            }
        }
    }
}

/// diffusers' `Downsample2D`: halves the size with a convolution of stride 2.
pub(in crate::diffusion) struct Downsample2D {
    conv: Conv2d,
    pad: bool,
}

impl Downsample2D {
    /// `padding` 0 pads right and bottom only, as the VAE's encoder does.
    pub(in crate::diffusion) fn load(vs: &Scope, channels: i64, padding: i64) -> std::result::Result<Self, LoadError> {
        let shape = ConvShape { inputs: channels, outputs: channels, kernel: 3, stride: 2, padding };
        Ok(Self { conv: Conv2d::load(&(vs / "conv"), shape)?, pad: padding == 0 })
    }

    pub(in crate::diffusion) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if self.pad { self.conv.forward(&x.f_constant_pad_nd([0, 1, 0, 1])?) } else { self.conv.forward(x) }
    }
}

/// diffusers' `Upsample2D`: nearest neighbours, then a convolution.
pub(in crate::diffusion) struct Upsample2D {
    conv: Conv2d,
}

impl Upsample2D {
    pub(in crate::diffusion) fn load(vs: &Scope, channels: i64) -> std::result::Result<Self, LoadError> {
        Ok(Self { conv: Conv2d::load(&(vs / "conv"), ConvShape::same(channels, channels))? })
    }

    /// `[B, C, h, w] → [B, C, H, W]` for `size` = (H, W): twice as large, or one less where the way down rounded up.
    pub(in crate::diffusion) fn forward(&self, x: &Tensor, size: (i64, i64)) -> Result<Tensor> {
        self.conv.forward(&x.f_upsample_nearest2d([size.0, size.1], None, None)?)
    }
}
