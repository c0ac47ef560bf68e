//! The UNet's blocks on the way down, in the middle and on the way up.

use tch::Tensor;

use super::{
    attention::{Transformer2DModel, TransformerSettings},
    resnet::{Downsample2D, ResnetBlock2D, ResnetSettings, Upsample2D},
};
use crate::diffusion::{error::LoadError, layers::Result, weights::Scope};

/// What every block reads besides its input.
#[derive(Clone, Copy)]
pub(in crate::diffusion) struct Conditioning<'a> {
    /// The activated time embedding, `[B, temb]`.
    pub(in crate::diffusion) temb: &'a Tensor,
    /// The prompts' embeddings, `[B, L, cross_attention_dim]`.
    pub(in crate::diffusion) encoder_hidden_states: &'a Tensor,
}

/// The shape of one block.
#[derive(Debug, Clone)]
pub(in crate::diffusion) struct BlockSettings {
    pub(in crate::diffusion) outputs: i64,
    pub(in crate::diffusion) resnet: ResnetSettings,
    /// Of each layer; none in blocks without attention.
    pub(in crate::diffusion) transformers: Vec<Option<TransformerSettings>>,
    /// Whether the size changes at the block's end.
    pub(in crate::diffusion) resamples: bool,
}

/// A residual block and the transformer behind it, if it has one.
struct Layer {
    resnet: ResnetBlock2D,
    transformer: Option<Transformer2DModel>,
}

impl Layer {
    fn load(vs: &Scope, index: usize, inputs: i64, settings: &BlockSettings) -> std::result::Result<Self, LoadError> {
        let transformer = settings
            .transformers
            .get(index)
            .copied()
            .flatten()
            .map(|transformer| Transformer2DModel::load(&(vs / "attentions" / index), settings.outputs, transformer));
        Ok(Self {
            resnet: ResnetBlock2D::load(&(vs / "resnets" / index), inputs, settings.outputs, settings.resnet)?,
            transformer: transformer.transpose()?,
        })
    }

    fn forward(&self, x: &Tensor, cond: Conditioning) -> Result<Tensor> {
        let hidden = self.resnet.forward(x, Some(cond.temb))?;
        match &self.transformer {
            Some(transformer) => transformer.forward(&hidden, cond.encoder_hidden_states),
            None => Ok(hidden),
        }
    }
}

/// diffusers' `DownBlock2D` and `CrossAttnDownBlock2D`.
pub(in crate::diffusion) struct DownBlock {
    layers: Vec<Layer>,
    downsampler: Option<Downsample2D>,
}

impl DownBlock {
    pub(in crate::diffusion) fn load(
        vs: &Scope,
        inputs: i64,
        layers: i64,
        padding: i64,
        settings: &BlockSettings,
    ) -> std::result::Result<Self, LoadError> {
        let downsampler = || Downsample2D::load(&(vs / "downsamplers" / 0), settings.outputs, padding);
        Ok(Self {
            layers: (0..layers as usize)
                .map(|index| Layer::load(vs, index, if index == 0 { inputs } else { settings.outputs }, settings))
                .collect::<std::result::Result<_, _>>()?,
            downsampler: settings.resamples.then(downsampler).transpose()?,
        })
    }

    /// The block's output; every intermediate state that the way up will need is pushed on `skips`.
    pub(in crate::diffusion) fn forward(&self, x: Tensor, cond: Conditioning, skips: &mut Vec<Tensor>) -> Result<Tensor> {
        let mut hidden = x;
        for layer in &self.layers {
            hidden = layer.forward(&hidden, cond)?;
            skips.push(hidden.shallow_clone());
        }
        if let Some(downsampler) = &self.downsampler {
            hidden = downsampler.forward(&hidden)?;
            skips.push(hidden.shallow_clone());
        }
        Ok(hidden)
    }
}

/// diffusers' `UNetMidBlock2DCrossAttn`, a transformer between two residual blocks, or its `UNetMidBlock2D`, the first of them alone.
pub(in crate::diffusion) struct MidBlock {
    first: ResnetBlock2D,
    rest: Option<(Transformer2DModel, ResnetBlock2D)>,
}

impl MidBlock {
    pub(in crate::diffusion) fn load(
        vs: &Scope,
        channels: i64,
        resnet: ResnetSettings,
        transformer: Option<TransformerSettings>,
    ) -> std::result::Result<Self, LoadError> {
        let resnets = vs / "resnets";
        let rest = |transformer| -> std::result::Result<_, LoadError> {
            let transformer = Transformer2DModel::load(&(vs / "attentions" / 0), channels, transformer)?;
            Ok((transformer, ResnetBlock2D::load(&(&resnets / 1), channels, channels, resnet)?))
        };
        Ok(Self {
            first: ResnetBlock2D::load(&(&resnets / 0), channels, channels, resnet)?,
            rest: transformer.map(rest).transpose()?,
        })
    }

    pub(in crate::diffusion) fn forward(&self, x: &Tensor, cond: Conditioning) -> Result<Tensor> {
        let hidden = self.first.forward(x, Some(cond.temb))?;
        let Some((transformer, second)) = &self.rest else { return Ok(hidden) };
        second.forward(&transformer.forward(&hidden, cond.encoder_hidden_states)?, Some(cond.temb))
    }
}

/// diffusers' `UpBlock2D` and `CrossAttnUpBlock2D`.
pub(in crate::diffusion) struct UpBlock {
    layers: Vec<Layer>,
    upsampler: Option<Upsample2D>,
}

impl UpBlock {
    /// `skips` are the channels of the states that come back from the way down, in the order of use.
    pub(in crate::diffusion) fn load(
        vs: &Scope,
        inputs: i64,
        skips: &[i64],
        settings: &BlockSettings,
    ) -> std::result::Result<Self, LoadError> {
        let mut layers = Vec::new();
        let mut channels = inputs;
        for (index, skip) in (0..).zip(skips) {
            layers.push(Layer::load(vs, index, channels + skip, settings)?);
            channels = settings.outputs;
        }
        let upsampler = || Upsample2D::load(&(vs / "upsamplers" / 0), settings.outputs);
        Ok(Self { layers, upsampler: settings.resamples.then(upsampler).transpose()? })
    }

    /// Takes its states off the end of `skips`, and grows to the size of the state that the next block will take.
    pub(in crate::diffusion) fn forward(&self, x: Tensor, cond: Conditioning, skips: &mut Vec<Tensor>) -> Result<Tensor> {
        let mut hidden = x;
        for layer in &self.layers {
            let skip = skips.pop().ok_or_else(|| tch::TchError::Shape("the UNet has more layers up than down".to_owned()))?;
            hidden = layer.forward(&Tensor::f_cat(&[hidden, skip], 1)?, cond)?;
        }
        if let (Some(upsampler), Some(next)) = (&self.upsampler, skips.last()) {
            let (_, _, height, width) = next.size4()?;
            hidden = upsampler.forward(&hidden, (height, width))?;
        }
        Ok(hidden)
    }
}
