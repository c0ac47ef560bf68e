//! The UNet that predicts the noise (Rombach et al., 2022), diffusers' `UNet2DConditionModel`.

use tch::{Kind, Tensor};

use super::{
    attention::{Transformer2DModel, TransformerSettings},
    config::{AdditionEmbedType, DownBlockType, MidBlockType, UNetConfig, UpBlockType},
    resnet::{Resample, ResnetSettings, TimeScaleShift},
    time_embedding::{AddedCondition, TextTimeEmbedding, TimestepEmbedding, Timesteps},
    unet_blocks::{
        AttentionSettings, BlockSettings, Conditioning, DownBlock, MidBlock, MidRest, Resampling, UpBlock, load_down, load_up,
    },
    unet_prompt::UNetPrompt,
};
use crate::diffusion::{
    deep_cache::{Depth, Predicted},
    device::Placement,
    error::LoadError,
    files::ModelFiles,
    layers::{Conv2d, ConvShape, GroupNorm, Products, Result, channels_last, check_fp8},
    weights::Scope,
};

/// Predicts the noise (or what the model was trained to predict) in latents.
pub(in crate::diffusion) struct UNet2DConditionModel {
    config: UNetConfig,
    placement: Placement,
    time_proj: Timesteps,
    time_embedding: TimestepEmbedding,
    add_embedding: Option<TextTimeEmbedding>,
    conv_in: Conv2d,
    down_blocks: Vec<DownBlock>,
    mid_block: Option<MidBlock>,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    /// Of all cross-attentions together: what each makes keys of, and values.
    prompt_channels: i64,
}

/// What a UNet call is told besides the samples and their timesteps, one row a sample.
pub(in crate::diffusion) struct UNetCondition {
    pub(in crate::diffusion) prompt: UNetPrompt,
    /// For a UNet that asks for it, and no other.
    pub(in crate::diffusion) added: Option<AddedCondition>,
    /// For a UNet with `time_cond_proj_dim`: the embedded guidance scale, `[B, time_cond_proj_dim]`. None is zero.
    pub(in crate::diffusion) timestep_cond: Option<Tensor>,
    /// How the products of its transformers are made.
    pub(in crate::diffusion) products: Products,
}

impl UNetCondition {
    /// All that it holds, in the order of [`Self::with_tensors`]. Behind that, of products in fp8, stands nothing at all, `[B, 0]`, by which
    /// a recorded call of theirs is told from an exact one.
    ///
    /// # Errors
    /// When the device fails.
    pub(in crate::diffusion) fn tensors(&self) -> Result<Vec<Tensor>> {
        let added = self.added.iter().flat_map(|added| [&added.text_embeds, &added.time_ids]);
        let tensors = std::iter::once(self.prompt.tensor()).chain(added).chain(&self.timestep_cond);
        let mark = || {
            let rows = self.prompt.tensor();
            rows.f_new_empty([rows.size()[0], 0], (Kind::Float8e4m3fn, rows.device()))
        };
        let mark = (self.products == Products::Fp8).then(mark).transpose()?;
        Ok(tensors.map(Tensor::shallow_clone).chain(mark).collect())
    }

    /// A condition of the same parts, with other tensors.
    ///
    /// # Errors
    /// When they are not as many.
    pub(in crate::diffusion) fn with_tensors(&self, tensors: &[Tensor]) -> Result<Self> {
        let mut tensors = tensors.iter().map(Tensor::shallow_clone);
        let mut next = || tensors.next().ok_or_else(|| tch::TchError::Shape("a UNet's condition lacks a part".to_owned()));
        let prompt = self.prompt.with_tensor(next()?);
        let added = match &self.added {
            Some(_) => Some(AddedCondition { text_embeds: next()?, time_ids: next()? }),
            None => None,
        };
        let timestep_cond = self.timestep_cond.as_ref().map(|_| next()).transpose()?;
        Ok(Self { prompt, added, timestep_cond, products: self.products })
    }
}

impl UNet2DConditionModel {
    /// Loads the config and the weights of the part `unet`.
    pub(in crate::diffusion) fn load(files: &ModelFiles, placement: Placement) -> std::result::Result<Self, LoadError> {
        let config = UNetConfig::read(files)?;
        let weights = files.weights("unet", |key| Some(key.to_owned()), placement)?;
        let model = Self::build(&weights.root(), config)?;
        weights.finish()?;
        Ok(model)
    }

    fn build(vs: &Scope, config: UNetConfig) -> std::result::Result<Self, LoadError> {
        let first = config.block_out_channels.first().copied().unwrap_or_default();
        let last = config.block_out_channels.last().copied().unwrap_or_default();
        let kernel = |inputs, outputs, kernel| ConvShape { inputs, outputs, kernel, stride: 1, padding: (kernel - 1) / 2 };
        let blocks = BlockBuilder { config: &config, temb_channels: config.time_embedding_dim.unwrap_or(4 * first) };
        let (down_blocks, skips) = load_down(vs, first, &blocks.down())?;
        let UNetConfig { flip_sin_to_cos, freq_shift, .. } = config;
        let added = || TextTimeEmbedding::load(vs, &config, blocks.temb_channels);
        let mut unet = Self {
            placement: vs.placement(),
            time_proj: Timesteps { channels: first, flip_sin_to_cos, freq_shift },
            time_embedding: blocks.time_embedding(vs, first)?,
            add_embedding: (config.addition_embed_type == Some(AdditionEmbedType::TextTime)).then(added).transpose()?,
            conv_in: Conv2d::load(&(vs / "conv_in"), kernel(config.in_channels, first, config.conv_in_kernel))?,
            mid_block: blocks.mid(vs, last)?,
            up_blocks: load_up(vs, last, skips, &blocks.up())?,
            down_blocks,
            conv_norm_out: GroupNorm::load(&(vs / "conv_norm_out"), config.norm_num_groups, first, config.norm_eps)?,
            conv_out: Conv2d::load(&(vs / "conv_out"), kernel(first, config.out_channels, config.conv_out_kernel))?,
            config,
            prompt_channels: 0,
        };
        let cross_attentions = unet.transformers_mut().flat_map(Transformer2DModel::cross_attentions_mut);
        unet.prompt_channels = cross_attentions.fold(0, |channels, attention| attention.put_behind(channels));
        Ok(unet)
    }

    /// In the order of a call.
    fn transformers(&self) -> impl Iterator<Item = &Transformer2DModel> {
        let (down, mid, up) = (&self.down_blocks, &self.mid_block, &self.up_blocks);
        let down = down.iter().flat_map(DownBlock::transformers).chain(mid.iter().filter_map(MidBlock::transformer));
        down.chain(up.iter().flat_map(UpBlock::transformers))
    }

    /// As [`Self::transformers`].
    fn transformers_mut(&mut self) -> impl Iterator<Item = &mut Transformer2DModel> {
        let (down, mid, up) = (&mut self.down_blocks, &mut self.mid_block, &mut self.up_blocks);
        let down = down.iter_mut().flat_map(DownBlock::transformers_mut);
        let mid = mid.iter_mut().filter_map(MidBlock::transformer_mut);
        down.chain(mid).chain(up.iter_mut().flat_map(UpBlock::transformers_mut))
    }

    /// The keys and values that its cross-attentions make of prompts: `[B, L, cross_attention_dim]` to [`UNetPrompt::KeysAndValues`]'
    /// `[B, 2, L, prompt_channels]`.
    ///
    /// # Errors
    /// When the device fails.
    pub(in crate::diffusion) fn keys_and_values(&self, encoder_hidden_states: &Tensor) -> Result<Tensor> {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for attention in self.transformers().flat_map(Transformer2DModel::cross_attentions) {
            let [key, value] = attention.project(encoder_hidden_states)?;
            keys.push(key);
            values.push(value);
        }
        Tensor::f_stack(&[Tensor::f_cat(&keys, 2)?, Tensor::f_cat(&values, 2)?], 1)
    }

    /// The channels of all cross-attentions together.
    pub(in crate::diffusion) fn prompt_channels(&self) -> i64 {
        self.prompt_channels
    }

    /// Gives its transformers' linears a second set of weights, in fp8, so that calls may ask for such products.
    ///
    /// # Errors
    /// When the device multiplies no 8-bit floats, or fails.
    pub(in crate::diffusion) fn add_fp8(&mut self) -> std::result::Result<(), LoadError> {
        check_fp8(self.placement.device)?;
        Ok(self.transformers_mut().try_for_each(Transformer2DModel::add_fp8)?)
    }

    /// Its config.
    pub(in crate::diffusion) fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// sample `[B, in, h, w]`, timesteps `[B]` (may be fractional) → model output `[B, out, h, w]`, and the deep feature where it is to be kept.
    ///
    /// # Errors
    /// When the condition lacks what this UNet asks for, or the device fails.
    pub(in crate::diffusion) fn forward(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        condition: &UNetCondition,
        depth: Depth,
    ) -> Result<Predicted> {
        let sample = match self.config.center_input_sample {
            true => sample.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?,
            false => sample.shallow_clone(),
        };
        let temb = self.embed_time(timesteps, condition)?;
        let UNetCondition { prompt, products, .. } = condition;
        let cond = Conditioning { temb: Some(&temb), prompt: Some(prompt), products: *products };
        let (top, blocks) =
            self.up_blocks.split_last().ok_or_else(|| tch::TchError::Shape("a UNet without a way up".to_owned()))?;
        let mut skips = vec![self.conv_in.forward(&channels_last(&sample)?)?];
        let deep = match depth {
            Depth::Shallow(deep) => channels_last(deep)?,
            Depth::Whole | Depth::Keeping => top.before_last(self.dive(cond, blocks, &mut skips)?, cond, &mut skips)?,
        };
        let kept = matches!(depth, Depth::Keeping).then(|| deep.shallow_clone());
        let hidden = top.last(deep, cond, &mut skips)?;
        let hidden = self.conv_norm_out.forward_then(&hidden, self.config.act_fn)?;
        Ok(Predicted { model_output: self.conv_out.forward(&hidden)?, deep: kept })
    }

    /// Down, through the middle and up again through all blocks but the top one. `skips` holds the first convolution's output.
    fn dive(&self, cond: Conditioning, up_blocks: &[UpBlock], skips: &mut Vec<Tensor>) -> Result<Tensor> {
        let mut hidden = skips[0].shallow_clone();
        for block in &self.down_blocks {
            hidden = block.forward(hidden, cond, skips)?;
        }
        if let Some(mid_block) = &self.mid_block {
            hidden = mid_block.forward(&hidden, cond)?;
        }
        for block in up_blocks {
            hidden = block.forward(hidden, cond, skips)?;
        }
        Ok(hidden)
    }

    /// The embedding of `[B]` timesteps and what is added to it, with the blocks' activation already applied: `[B, temb]`.
    fn embed_time(&self, timesteps: &Tensor, condition: &UNetCondition) -> Result<Tensor> {
        let sinusoids = self.time_proj.forward(timesteps, self.placement)?;
        let embedding = self.time_embedding.forward(&sinusoids, condition.timestep_cond.as_ref())?;
        let embedding = match (&self.add_embedding, &condition.added) {
            (Some(add_embedding), Some(added)) => embedding.f_add(&add_embedding.forward(added)?)?,
            (None, None) => embedding,
            (asked, _) => {
                let problem = if asked.is_some() { "asks for text_embeds and time_ids" } else { "takes no text_embeds" };
                return Err(tch::TchError::Shape(format!("the UNet {problem}")));
            }
        };
        self.config.act_fn.forward(&embedding, self.placement)
    }
}

/// The blocks' shapes, from the config.
struct BlockBuilder<'a> {
    config: &'a UNetConfig,
    temb_channels: i64,
}

impl BlockBuilder<'_> {
    fn blocks(&self) -> usize {
        self.config.block_out_channels.len()
    }

    fn time_embedding(&self, vs: &Scope, inputs: i64) -> std::result::Result<TimestepEmbedding, LoadError> {
        let scope = vs / "time_embedding";
        let embedding = TimestepEmbedding::load(&scope, inputs, self.temb_channels, self.config.act_fn)?;
        match self.config.time_cond_proj_dim {
            Some(width) => embedding.with_condition(&scope, width, inputs),
            None => Ok(embedding),
        }
    }

    fn resnet(&self, output_scale_factor: f64) -> ResnetSettings {
        let UNetConfig { norm_num_groups, norm_eps, act_fn, .. } = *self.config;
        ResnetSettings {
            groups: norm_num_groups,
            eps: norm_eps,
            act_fn,
            temb_channels: Some(self.temb_channels),
            output_scale_factor,
            time_scale_shift: TimeScaleShift::Default,
            resample: Resample::None,
        }
    }

    fn mid(&self, vs: &Scope, channels: i64) -> std::result::Result<Option<MidBlock>, LoadError> {
        let (bottom, resnet) = (self.blocks() - 1, self.resnet(self.config.mid_block_scale_factor));
        let layers = self.config.transformer_layers(bottom, 0, false);
        let transformer = TransformerSettings { only_cross_attention: false, layers, ..self.transformer(bottom) };
        let load = |rest| MidBlock::load(&(vs / "mid_block"), channels, resnet, rest).map(Some);
        match self.config.mid_block_type {
            MidBlockType::UNetMidBlock2DCrossAttn => load(MidRest::Resnet(Some(AttentionSettings::Cross(transformer)))),
            MidBlockType::UNetMidBlock2D => load(MidRest::Nothing),
            MidBlockType::None => Ok(None),
        }
    }

    fn transformer(&self, index: usize) -> TransformerSettings {
        let config = self.config;
        TransformerSettings {
            heads: config.heads(index),
            layers: 1,
            cross_attention_dim: config.cross_attention_dim.at(index).unwrap_or_default(),
            groups: config.norm_num_groups,
            use_linear_projection: config.use_linear_projection,
            only_cross_attention: config.only_cross_attention.at(index).unwrap_or(false),
        }
    }

    /// The settings of the block at level `index`, counted from the top of the U.
    fn block(&self, index: usize, attends: bool, up: bool) -> BlockSettings {
        let layers = self.config.layers_per_block.at(index).unwrap_or_default();
        let attention = |layer| {
            let layers = self.config.transformer_layers(index, layer, up);
            attends.then(|| AttentionSettings::Cross(TransformerSettings { layers, ..self.transformer(index) }))
        };
        let resamples = if up { index > 0 } else { index + 1 < self.blocks() };
        BlockSettings {
            outputs: self.config.block_out_channels[index],
            layers,
            resnet: self.resnet(1.0),
            attentions: (0..=layers as usize).map(attention).collect(),
            resampling: if resamples { Resampling::Conv } else { Resampling::None },
            downsample_padding: self.config.downsample_padding,
        }
    }

    fn down(&self) -> Vec<BlockSettings> {
        let types = self.config.down_block_types.iter().enumerate();
        types.map(|(index, kind)| self.block(index, *kind == DownBlockType::CrossAttnDownBlock2D, false)).collect()
    }

    /// From the bottom up.
    fn up(&self) -> Vec<BlockSettings> {
        let types = (0..self.blocks()).rev().zip(&self.config.up_block_types);
        types.map(|(level, kind)| self.block(level, *kind == UpBlockType::CrossAttnUpBlock2D, true)).collect()
    }
}
