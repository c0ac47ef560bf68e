//! Attention inside the blocks: the UNet's transformers, and cells that look at each other.

use tch::Tensor;

use super::unet_prompt::UNetPrompt;
use crate::diffusion::{
    attend::{attend, attend_to_themselves},
    device::Placement,
    error::LoadError,
    layers::{Activation, Conv2d, ConvShape, GroupNorm, LayerNorm, Linear, Products, Result, TransformerLinear, geglu},
    weights::Scope,
};

/// diffusers' defaults in `Transformer2DModel` and `BasicTransformerBlock`; no config names them.
const GROUP_NORM_EPS: f64 = 1e-6;
const LAYER_NORM_EPS: f64 = 1e-5;

/// The shape of one block's transformers.
#[derive(Debug, Clone, Copy)]
pub(in crate::diffusion) struct TransformerSettings {
    pub(in crate::diffusion) heads: i64,
    pub(in crate::diffusion) layers: i64,
    pub(in crate::diffusion) cross_attention_dim: i64,
    pub(in crate::diffusion) groups: i64,
    pub(in crate::diffusion) use_linear_projection: bool,
    pub(in crate::diffusion) only_cross_attention: bool,
}

/// The shape of an [`AttentionBlock`].
#[derive(Debug, Clone, Copy)]
pub(in crate::diffusion) struct AttentionBlockSettings {
    pub(in crate::diffusion) heads: i64,
    /// None for attention without a norm of its own.
    pub(in crate::diffusion) groups: Option<i64>,
    pub(in crate::diffusion) eps: f64,
    pub(in crate::diffusion) rescale_output_factor: f64,
}

/// diffusers' `Attention` between the rows of one sequence. Query, key and value come of one product.
pub(in crate::diffusion) struct SelfAttention {
    to_qkv: TransformerLinear,
    to_out: TransformerLinear,
    heads: i64,
}

impl SelfAttention {
    const PROJECTIONS: [&str; 3] = ["to_q", "to_k", "to_v"];

    fn load(vs: &Scope, width: i64, heads: i64) -> std::result::Result<Self, LoadError> {
        let to_qkv = Linear::joined_without_biases(Self::PROJECTIONS.map(|name| vs / name), width, width)?;
        Ok(Self { to_qkv: to_qkv.into(), to_out: Linear::load(&(vs / "to_out" / 0), width, width)?.into(), heads })
    }

    /// Attention whose projections all have biases.
    fn with_biases(vs: &Scope, width: i64, heads: i64) -> std::result::Result<Self, LoadError> {
        let to_qkv = Linear::joined(Self::PROJECTIONS.map(|name| vs / name), width, width)?;
        Ok(Self { to_qkv: to_qkv.into(), to_out: Linear::load(&(vs / "to_out" / 0), width, width)?.into(), heads })
    }

    fn add_fp8(&mut self) -> Result<()> {
        self.to_qkv.add_fp8()?;
        self.to_out.add_fp8()
    }

    /// `[B, L, C] → [B, L, C]`
    fn forward(&self, x: &Tensor, products: Products) -> Result<Tensor> {
        self.to_out.forward(&attend_to_themselves(&self.to_qkv.forward(x, products)?, self.heads)?, products)
    }
}

/// diffusers' `Attention`: queries from one sequence, keys and values from another.
pub(super) struct CrossAttention {
    to_q: TransformerLinear,
    /// The prompt's, like its values: always exact, for they are less than a hundredth of the work.
    to_k: Linear,
    to_v: Linear,
    to_out: TransformerLinear,
    heads: i64,
    /// Where its channels begin among those of all cross-attentions of the network: [`Self::put_behind`].
    place: i64,
}

impl CrossAttention {
    fn load(vs: &Scope, width: i64, context: i64, heads: i64) -> std::result::Result<Self, LoadError> {
        Ok(Self {
            to_q: Linear::without_bias(&(vs / "to_q"), width, width)?.into(),
            to_k: Linear::without_bias(&(vs / "to_k"), context, width)?,
            to_v: Linear::without_bias(&(vs / "to_v"), context, width)?,
            to_out: Linear::load(&(vs / "to_out" / 0), width, width)?.into(),
            heads,
            place: 0,
        })
    }

    fn add_fp8(&mut self) -> Result<()> {
        self.to_q.add_fp8()?;
        self.to_out.add_fp8()
    }

    /// Takes its place behind `channels` channels of others, and says where the next one's is.
    pub(super) fn put_behind(&mut self, channels: i64) -> i64 {
        self.place = channels;
        channels + self.to_k.outputs()
    }

    /// A prompt's key and value: `[B, L', C'] → [B, L', C]` each.
    pub(super) fn project(&self, encoder_hidden_states: &Tensor) -> Result<[Tensor; 2]> {
        Ok([self.to_k.forward(encoder_hidden_states)?, self.to_v.forward(encoder_hidden_states)?])
    }

    /// `[B, L', C]` each
    fn key_and_value(&self, prompt: &UNetPrompt) -> Result<[Tensor; 2]> {
        match prompt {
            UNetPrompt::HiddenStates(states) => self.project(states),
            UNetPrompt::KeysAndValues(made) => {
                let own = |which| made.f_select(1, which)?.f_narrow(2, self.place, self.to_k.outputs());
                Ok([own(0)?, own(1)?])
            }
        }
    }

    /// x `[B, L, C]` → `[B, L, C]`
    fn forward(&self, x: &Tensor, prompt: &UNetPrompt, products: Products) -> Result<Tensor> {
        let [key, value] = self.key_and_value(prompt)?;
        self.to_out.forward(&attend(&self.to_q.forward(x, products)?, [&key, &value], self.heads)?, products)
    }
}

/// The first attention of a transformer's block, which in a few models looks at the prompt, too.
enum FirstAttention {
    Own(SelfAttention),
    Cross(CrossAttention),
}

impl FirstAttention {
    fn load(vs: &Scope, width: i64, settings: TransformerSettings) -> std::result::Result<Self, LoadError> {
        match settings.only_cross_attention {
            true => CrossAttention::load(vs, width, settings.cross_attention_dim, settings.heads).map(Self::Cross),
            false => SelfAttention::load(vs, width, settings.heads).map(Self::Own),
        }
    }

    fn add_fp8(&mut self) -> Result<()> {
        match self {
            Self::Own(attention) => attention.add_fp8(),
            Self::Cross(attention) => attention.add_fp8(),
        }
    }

    fn forward(&self, x: &Tensor, prompt: &UNetPrompt, products: Products) -> Result<Tensor> {
        match self {
            Self::Own(attention) => attention.forward(x, products),
            Self::Cross(attention) => attention.forward(x, prompt, products),
        }
    }
}

/// A picture's cells attend to each other, with a norm and a residual connection: what was diffusers' `AttentionBlock`, in autoencoders and
/// in UNets without text.
pub(in crate::diffusion) struct AttentionBlock {
    group_norm: Option<GroupNorm>,
    attention: SelfAttention,
    rescale_output_factor: f64,
}

impl AttentionBlock {
    pub(in crate::diffusion) fn load(
        vs: &Scope,
        channels: i64,
        settings: AttentionBlockSettings,
    ) -> std::result::Result<Self, LoadError> {
        let AttentionBlockSettings { heads, groups, eps, rescale_output_factor } = settings;
        let norm = groups.map(|groups| GroupNorm::load(&(vs / "group_norm"), groups, channels, eps));
        let attention = SelfAttention::with_biases(vs, channels, heads)?;
        Ok(Self { group_norm: norm.transpose()?, attention, rescale_output_factor })
    }

    /// `[B, C, H, W] → [B, C, H, W]`
    pub(in crate::diffusion) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (_, _, height, width) = x.size4()?;
        let normed = self.group_norm.as_ref().map_or_else(|| Ok(x.shallow_clone()), |norm| norm.forward(x))?;
        let mixed = self.attention.forward(&tokens(&normed)?, Products::Exact)?;
        let sum = cells(&mixed, (height, width))?.f_add(x)?;
        if self.rescale_output_factor == 1.0 { Ok(sum) } else { sum.f_div_scalar(self.rescale_output_factor) }
    }
}

/// `[B, C, H, W] → [B, HW, C]`; nothing moves where the channels are last already.
fn tokens(x: &Tensor) -> Result<Tensor> {
    x.f_flatten(2, 3)?.f_transpose(1, 2)?.f_contiguous()
}

/// `[B, HW, C] → [B, C, H, W]` with the channels last, so that nothing moves.
fn cells(x: &Tensor, (height, width): (i64, i64)) -> Result<Tensor> {
    let (batch, _, channels) = x.size3()?;
    x.f_reshape([batch, height, width, channels])?.f_permute([0, 3, 1, 2])
}

/// Checkpoints older than diffusers 0.17 have other names for such an attention's projections.
pub(in crate::diffusion) fn canonical_name(key: &str) -> Option<String> {
    const OLD_NAMES: [(&str, &str); 4] =
        [(".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")];
    let old = OLD_NAMES.iter().find(|(old, _)| key.contains(".attentions.") && key.contains(old));
    Some(old.map_or_else(|| key.to_owned(), |(old, new)| key.replace(old, new)))
}

/// diffusers' `FeedForward` with GEGLU (Shazeer, 2020).
struct FeedForward {
    proj: TransformerLinear,
    out: TransformerLinear,
    placement: Placement,
}

impl FeedForward {
    fn load(vs: &Scope, width: i64) -> std::result::Result<Self, LoadError> {
        let (net, inner) = (vs / "net", 4 * width);
        Ok(Self {
            proj: Linear::load(&(&net / 0 / "proj"), width, 2 * inner)?.into(),
            out: Linear::load(&(&net / 2), inner, width)?.into(),
            placement: vs.placement(),
        })
    }

    fn add_fp8(&mut self) -> Result<()> {
        self.proj.add_fp8()?;
        self.out.add_fp8()
    }

    fn forward(&self, x: &Tensor, products: Products) -> Result<Tensor> {
        let projected = self.proj.forward(x, products)?;
        if let Some(gated) = geglu(&projected) {
            return self.out.forward(&gated?, products);
        }
        let inner = projected.size()[2] / 2;
        let gate = Activation::Gelu.forward(&projected.f_narrow(2, inner, inner)?.f_contiguous()?, self.placement)?;
        self.out.forward(&projected.f_narrow(2, 0, inner)?.f_mul(&gate)?, products)
    }
}

struct BasicTransformerBlock {
    norm1: LayerNorm,
    attn1: FirstAttention,
    norm2: LayerNorm,
    attn2: CrossAttention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl BasicTransformerBlock {
    fn load(vs: &Scope, width: i64, settings: TransformerSettings) -> std::result::Result<Self, LoadError> {
        let TransformerSettings { heads, cross_attention_dim, .. } = settings;
        Ok(Self {
            norm1: LayerNorm::load(&(vs / "norm1"), width, LAYER_NORM_EPS)?,
            attn1: FirstAttention::load(&(vs / "attn1"), width, settings)?,
            norm2: LayerNorm::load(&(vs / "norm2"), width, LAYER_NORM_EPS)?,
            attn2: CrossAttention::load(&(vs / "attn2"), width, cross_attention_dim, heads)?,
            norm3: LayerNorm::load(&(vs / "norm3"), width, LAYER_NORM_EPS)?,
            ff: FeedForward::load(&(vs / "ff"), width)?,
        })
    }

    fn add_fp8(&mut self) -> Result<()> {
        self.attn1.add_fp8()?;
        self.attn2.add_fp8()?;
        self.ff.add_fp8()
    }

    fn cross_attentions(&self) -> impl Iterator<Item = &CrossAttention> {
        let first = match &self.attn1 {
            FirstAttention::Cross(attention) => Some(attention),
            FirstAttention::Own(_) => None,
        };
        first.into_iter().chain([&self.attn2])
    }

    fn cross_attentions_mut(&mut self) -> impl Iterator<Item = &mut CrossAttention> {
        let first = match &mut self.attn1 {
            FirstAttention::Cross(attention) => Some(attention),
            FirstAttention::Own(_) => None,
        };
        first.into_iter().chain([&mut self.attn2])
    }

    fn forward(&self, x: &Tensor, prompt: &UNetPrompt, products: Products) -> Result<Tensor> {
        let x = self.attn1.forward(&self.norm1.forward(x)?, prompt, products)?.f_add(x)?;
        let x = self.attn2.forward(&self.norm2.forward(&x)?, prompt, products)?.f_add(&x)?;
        self.ff.forward(&self.norm3.forward(&x)?, products)?.f_add(&x)
    }
}

/// The projections into and out of the transformer: 1 × 1 convolutions, or linears (Stable Diffusion 2).
enum Projection {
    Conv(Conv2d),
    Linear(Linear),
}

impl Projection {
    fn load(vs: &Scope, channels: i64, linear: bool) -> std::result::Result<Self, LoadError> {
        if linear {
            Linear::load(vs, channels, channels).map(Self::Linear)
        } else {
            Conv2d::load(vs, ConvShape::pointwise(channels, channels)).map(Self::Conv)
        }
    }
}

/// diffusers' `Transformer2DModel`.
pub(in crate::diffusion) struct Transformer2DModel {
    norm: GroupNorm,
    proj_in: Projection,
    blocks: Vec<BasicTransformerBlock>,
    proj_out: Projection,
}

impl Transformer2DModel {
    pub(in crate::diffusion) fn load(
        vs: &Scope,
        channels: i64,
        settings: TransformerSettings,
    ) -> std::result::Result<Self, LoadError> {
        let blocks = vs / "transformer_blocks";
        Ok(Self {
            norm: GroupNorm::load(&(vs / "norm"), settings.groups, channels, GROUP_NORM_EPS)?,
            proj_in: Projection::load(&(vs / "proj_in"), channels, settings.use_linear_projection)?,
            blocks: (0..settings.layers)
                .map(|index| BasicTransformerBlock::load(&(&blocks / index), channels, settings))
                .collect::<std::result::Result<_, _>>()?,
            proj_out: Projection::load(&(vs / "proj_out"), channels, settings.use_linear_projection)?,
        })
    }

    /// Gives its blocks' linears a second set of weights, in fp8.
    ///
    /// # Errors
    /// When the device fails.
    pub(in crate::diffusion) fn add_fp8(&mut self) -> Result<()> {
        self.blocks.iter_mut().try_for_each(BasicTransformerBlock::add_fp8)
    }

    /// Its cross-attentions, in the order of the blocks.
    pub(super) fn cross_attentions(&self) -> impl Iterator<Item = &CrossAttention> {
        self.blocks.iter().flat_map(BasicTransformerBlock::cross_attentions)
    }

    /// As [`Self::cross_attentions`].
    pub(super) fn cross_attentions_mut(&mut self) -> impl Iterator<Item = &mut CrossAttention> {
        self.blocks.iter_mut().flat_map(BasicTransformerBlock::cross_attentions_mut)
    }

    /// `[B, C, H, W] → [B, C, H, W]`
    pub(in crate::diffusion) fn forward(&self, x: &Tensor, prompt: &UNetPrompt, products: Products) -> Result<Tensor> {
        let (_, _, height, width) = x.size4()?;
        let normed = self.norm.forward(x)?;
        let mut hidden = match &self.proj_in {
            Projection::Conv(conv) => tokens(&conv.forward(&normed)?)?,
            Projection::Linear(linear) => linear.forward(&tokens(&normed)?)?,
        };
        for block in &self.blocks {
            hidden = block.forward(&hidden, prompt, products)?;
        }
        match &self.proj_out {
            Projection::Conv(conv) => conv.forward_onto(cells(&hidden, (height, width))?, || Ok(x.shallow_clone())),
            Projection::Linear(linear) => cells(&linear.forward(&hidden)?, (height, width))?.f_add(x),
        }
    }
}
