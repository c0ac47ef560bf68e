//! The UNet's blocks on the way down, in the middle and on the way up. The autoencoders' middle is one of them, too.

use tch::Tensor;

use super::{
    attention::{AttentionBlock, AttentionBlockSettings, Transformer2DModel, TransformerSettings},
    resnet::{Downsample2D, Resample, ResnetBlock2D, ResnetSettings, Upsample2D},
    unet_prompt::UNetPrompt,
};
use crate::diffusion::{
    error::LoadError,
    layers::{Products, Result},
    weights::Scope,
};

type Loaded<T> = std::result::Result<T, LoadError>;

/// What every block reads besides its input; a network hands over what it has.
#[derive(Clone, Copy, Default)]
pub(in crate::diffusion) struct Conditioning<'a> {
    /// The activated time embedding, `[B, temb]`.
    pub(in crate::diffusion) temb: Option<&'a Tensor>,
    /// The prompts.
    pub(in crate::diffusion) prompt: Option<&'a UNetPrompt>,
    /// Of the transformers that look at the prompt.
    pub(in crate::diffusion) products: Products,
}

/// What stands behind a block's residual blocks.
#[derive(Debug, Clone, Copy)]
pub(in crate::diffusion) enum AttentionSettings {
    /// A transformer that looks at the prompt (`CrossAttn…` blocks).
    Cross(TransformerSettings),
    /// The picture's cells look at each other (`Attn…` blocks).
    Own(AttentionBlockSettings),
}

/// How a block changes the size at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::diffusion) enum Resampling {
    /// The size stays.
    None,
    /// With a convolution.
    Conv,
    /// Inside a residual block of its own.
    Resnet,
}

/// The shape of one block.
#[derive(Debug, Clone)]
pub(in crate::diffusion) struct BlockSettings {
    pub(in crate::diffusion) outputs: i64,
    /// Layers on the way down; the way up has one more.
    pub(in crate::diffusion) layers: i64,
    pub(in crate::diffusion) resnet: ResnetSettings,
    /// Of each layer; none in blocks without attention.
    pub(in crate::diffusion) attentions: Vec<Option<AttentionSettings>>,
    pub(in crate::diffusion) resampling: Resampling,
    /// Of the convolution that halves the size.
    pub(in crate::diffusion) downsample_padding: i64,
}

enum LayerAttention {
    Cross(Transformer2DModel),
    Own(AttentionBlock),
}

impl LayerAttention {
    fn load(vs: &Scope, channels: i64, settings: AttentionSettings) -> Loaded<Self> {
        match settings {
            AttentionSettings::Cross(settings) => Transformer2DModel::load(vs, channels, settings).map(Self::Cross),
            AttentionSettings::Own(settings) => AttentionBlock::load(vs, channels, settings).map(Self::Own),
        }
    }

    fn transformer(&self) -> Option<&Transformer2DModel> {
        match self {
            Self::Cross(transformer) => Some(transformer),
            Self::Own(_) => None,
        }
    }

    fn transformer_mut(&mut self) -> Option<&mut Transformer2DModel> {
        match self {
            Self::Cross(transformer) => Some(transformer),
            Self::Own(_) => None,
        }
    }

    fn forward(&self, x: &Tensor, cond: Conditioning) -> Result<Tensor> {
        match (self, cond.prompt) {
            (Self::Own(block), _) => block.forward(x),
            (Self::Cross(transformer), Some(prompt)) => transformer.forward(x, prompt, cond.products),
            (Self::Cross(_), None) => Err(tch::TchError::Shape("cross-attention without a prompt".to_owned())),
        }
    }
}

/// A residual block and the attention behind it, if it has one.
struct Layer {
    resnet: ResnetBlock2D,
    attention: Option<LayerAttention>,
}

impl Layer {
    fn load(vs: &Scope, index: usize, inputs: i64, settings: &BlockSettings) -> Loaded<Self> {
        let attention = settings.attentions.get(index).copied().flatten();
        let attention = attention.map(|attention| LayerAttention::load(&(vs / "attentions" / index), settings.outputs, attention));
        Ok(Self {
            resnet: ResnetBlock2D::load(&(vs / "resnets" / index), inputs, settings.outputs, settings.resnet)?,
            attention: attention.transpose()?,
        })
    }

    fn forward(&self, x: &Tensor, cond: Conditioning) -> Result<Tensor> {
        let hidden = self.resnet.forward(x, cond.temb)?;
        match &self.attention {
            Some(attention) => attention.forward(&hidden, cond),
            None => Ok(hidden),
        }
    }
}

enum Downsampler {
    Conv(Downsample2D),
    Resnet(Box<ResnetBlock2D>),
}

impl Downsampler {
    fn load(vs: &Scope, settings: &BlockSettings) -> Loaded<Option<Self>> {
        let (vs, channels) = (vs / "downsamplers" / 0, settings.outputs);
        let resnet = ResnetSettings { resample: Resample::Down, ..settings.resnet };
        Ok(match settings.resampling {
            Resampling::None => None,
            Resampling::Conv => Some(Self::Conv(Downsample2D::load(&vs, channels, settings.downsample_padding)?)),
            Resampling::Resnet => Some(Self::Resnet(Box::new(ResnetBlock2D::load(&vs, channels, channels, resnet)?))),
        })
    }

    fn forward(&self, x: &Tensor, cond: Conditioning) -> Result<Tensor> {
        match self {
            Self::Conv(conv) => conv.forward(x),
            Self::Resnet(resnet) => resnet.forward(x, cond.temb),
        }
    }
}

enum Upsampler {
    Conv(Upsample2D),
    Resnet(Box<ResnetBlock2D>),
}

impl Upsampler {
    fn load(vs: &Scope, settings: &BlockSettings) -> Loaded<Option<Self>> {
        let (vs, channels) = (vs / "upsamplers" / 0, settings.outputs);
        let resnet = ResnetSettings { resample: Resample::Up, ..settings.resnet };
        Ok(match settings.resampling {
            Resampling::None => None,
            Resampling::Conv => Some(Self::Conv(Upsample2D::load(&vs, channels)?)),
            Resampling::Resnet => Some(Self::Resnet(Box::new(ResnetBlock2D::load(&vs, channels, channels, resnet)?))),
        })
    }

    fn forward(&self, x: &Tensor, size: (i64, i64), cond: Conditioning) -> Result<Tensor> {
        match self {
            Self::Conv(conv) => conv.forward(x, size),
            Self::Resnet(resnet) => resnet.forward(x, cond.temb),
        }
    }
}

/// diffusers' `DownBlock2D`, `CrossAttnDownBlock2D` and `AttnDownBlock2D`.
pub(in crate::diffusion) struct DownBlock {
    layers: Vec<Layer>,
    downsampler: Option<Downsampler>,
}

fn transformers(layers: &[Layer]) -> impl Iterator<Item = &Transformer2DModel> {
    layers.iter().filter_map(|layer| layer.attention.as_ref()?.transformer())
}

fn transformers_mut(layers: &mut [Layer]) -> impl Iterator<Item = &mut Transformer2DModel> {
    layers.iter_mut().filter_map(|layer| layer.attention.as_mut()?.transformer_mut())
}

impl DownBlock {
    /// The transformers that look at the prompt.
    pub(super) fn transformers(&self) -> impl Iterator<Item = &Transformer2DModel> {
        transformers(&self.layers)
    }

    /// As [`Self::transformers`].
    pub(super) fn transformers_mut(&mut self) -> impl Iterator<Item = &mut Transformer2DModel> {
        transformers_mut(&mut self.layers)
    }

    fn load(vs: &Scope, inputs: i64, settings: &BlockSettings) -> Loaded<Self> {
        Ok(Self {
            layers: (0..settings.layers as usize)
                .map(|index| Layer::load(vs, index, if index == 0 { inputs } else { settings.outputs }, settings))
                .collect::<Loaded<_>>()?,
            downsampler: Downsampler::load(vs, settings)?,
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
            hidden = downsampler.forward(&hidden, cond)?;
            skips.push(hidden.shallow_clone());
        }
        Ok(hidden)
    }
}

/// What stands behind the first residual block of the middle.
#[derive(Debug, Clone, Copy)]
pub(in crate::diffusion) enum MidRest {
    Nothing,
    /// A second residual block, with attention before it or without.
    Resnet(Option<AttentionSettings>),
}

/// diffusers' `UNetMidBlock2DCrossAttn` and `UNetMidBlock2D`: attention, if there is any, between two residual blocks, or one block alone.
pub(in crate::diffusion) struct MidBlock {
    first: ResnetBlock2D,
    attention: Option<LayerAttention>,
    second: Option<ResnetBlock2D>,
}

impl MidBlock {
    /// The transformer that looks at the prompt, if there is one.
    pub(super) fn transformer(&self) -> Option<&Transformer2DModel> {
        self.attention.as_ref()?.transformer()
    }

    /// As [`Self::transformer`].
    pub(super) fn transformer_mut(&mut self) -> Option<&mut Transformer2DModel> {
        self.attention.as_mut()?.transformer_mut()
    }

    pub(in crate::diffusion) fn load(vs: &Scope, channels: i64, resnet: ResnetSettings, rest: MidRest) -> Loaded<Self> {
        let load_resnet = |index: i64| ResnetBlock2D::load(&(vs / "resnets" / index), channels, channels, resnet);
        let (attention, has_second) = match rest {
            MidRest::Nothing => (None, false),
            MidRest::Resnet(attention) => (attention, true),
        };
        let attention = attention.map(|settings| LayerAttention::load(&(vs / "attentions" / 0), channels, settings));
        Ok(Self {
            first: load_resnet(0)?,
            attention: attention.transpose()?,
            second: has_second.then(|| load_resnet(1)).transpose()?,
        })
    }

    pub(in crate::diffusion) fn forward(&self, x: &Tensor, cond: Conditioning) -> Result<Tensor> {
        let mut hidden = self.first.forward(x, cond.temb)?;
        if let Some(attention) = &self.attention {
            hidden = attention.forward(&hidden, cond)?;
        }
        match &self.second {
            Some(second) => second.forward(&hidden, cond.temb),
            None => Ok(hidden),
        }
    }
}

/// diffusers' `UpBlock2D`, `CrossAttnUpBlock2D` and `AttnUpBlock2D`.
pub(in crate::diffusion) struct UpBlock {
    layers: Vec<Layer>,
    upsampler: Option<Upsampler>,
}

impl UpBlock {
    /// The transformers that look at the prompt.
    pub(super) fn transformers(&self) -> impl Iterator<Item = &Transformer2DModel> {
        transformers(&self.layers)
    }

    /// As [`Self::transformers`].
    pub(super) fn transformers_mut(&mut self) -> impl Iterator<Item = &mut Transformer2DModel> {
        transformers_mut(&mut self.layers)
    }

    /// `skips` are the channels of the states that come back from the way down, in the order of use.
    fn load(vs: &Scope, inputs: i64, skips: &[i64], settings: &BlockSettings) -> Loaded<Self> {
        let mut layers = Vec::new();
        let mut channels = inputs;
        for (index, skip) in (0..).zip(skips) {
            layers.push(Layer::load(vs, index, channels + skip, settings)?);
            channels = settings.outputs;
        }
        Ok(Self { layers, upsampler: Upsampler::load(vs, settings)? })
    }

    /// Takes its states off the end of `skips`, and grows to the size of the state that the next block will take.
    pub(in crate::diffusion) fn forward(&self, x: Tensor, cond: Conditioning, skips: &mut Vec<Tensor>) -> Result<Tensor> {
        let mut hidden = run(&self.layers, x, cond, skips)?;
        if let (Some(upsampler), Some(next)) = (&self.upsampler, skips.last()) {
            let (_, _, height, width) = next.size4()?;
            hidden = upsampler.forward(&hidden, (height, width), cond)?;
        }
        Ok(hidden)
    }

    /// The block at the top without its last layer.
    pub(in crate::diffusion) fn before_last(&self, x: Tensor, cond: Conditioning, skips: &mut Vec<Tensor>) -> Result<Tensor> {
        let before = self.layers.split_last().map_or(&[][..], |(_, before)| before);
        run(before, x, cond, skips)
    }

    /// The last layer of the block at the top, which does not grow: behind [`Self::before_last`] all that [`Self::forward`] does.
    pub(in crate::diffusion) fn last(&self, x: Tensor, cond: Conditioning, skips: &mut Vec<Tensor>) -> Result<Tensor> {
        let last = self.layers.len().saturating_sub(1);
        run(&self.layers[last..], x, cond, skips)
    }
}

/// Layers on the way up, each with a state off the end of `skips`.
fn run(layers: &[Layer], x: Tensor, cond: Conditioning, skips: &mut Vec<Tensor>) -> Result<Tensor> {
    let mut hidden = x;
    for layer in layers {
        let skip = skips.pop().ok_or_else(|| tch::TchError::Shape("the UNet has more layers up than down".to_owned()))?;
        hidden = layer.forward(&Tensor::f_cat(&[hidden, skip], 1)?, cond)?;
    }
    Ok(hidden)
}

/// The blocks down from the first convolution's channels, and the channels of every state that they keep for the way up.
pub(in crate::diffusion) fn load_down(vs: &Scope, first: i64, blocks: &[BlockSettings]) -> Loaded<(Vec<DownBlock>, Vec<i64>)> {
    let scope = vs / "down_blocks";
    let mut inputs = first;
    let (mut loaded, mut skips) = (Vec::new(), vec![first]);
    for (index, settings) in blocks.iter().enumerate() {
        loaded.push(DownBlock::load(&(&scope / index), inputs, settings)?);
        let kept = settings.layers + i64::from(settings.resampling != Resampling::None);
        skips.extend((0..kept).map(|_| settings.outputs));
        inputs = settings.outputs;
    }
    Ok((loaded, skips))
}

/// The blocks up from the bottom's channels; each layer takes one state off the end of `skips`.
pub(in crate::diffusion) fn load_up(
    vs: &Scope,
    bottom: i64,
    mut skips: Vec<i64>,
    blocks: &[BlockSettings],
) -> Loaded<Vec<UpBlock>> {
    let scope = vs / "up_blocks";
    let (mut loaded, mut inputs) = (Vec::new(), bottom);
    for (index, settings) in blocks.iter().enumerate() {
        let taken: Vec<i64> = (0..=settings.layers).filter_map(|_| skips.pop()).collect();
        loaded.push(UpBlock::load(&(&scope / index), inputs, &taken, settings)?);
        inputs = settings.outputs;
    }
    Ok(loaded)
}
