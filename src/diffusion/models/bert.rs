//! The text encoder of latent diffusion (Rombach et al., 2022): a BERT (Devlin et al., 2018) without its masks, trained with the UNet;
//! diffusers' `LDMBertModel`.

use serde::Deserialize;
use tch::Tensor;

use super::clip::HiddenLayer;
use crate::diffusion::{
    device::Placement,
    error::LoadError,
    files::ModelFiles,
    layers::{Activation, LayerNorm, Linear, Result, attention, merge_heads, split_heads},
    transfer::upload,
    weights::Scope,
};

/// PyTorch's default; no config names it.
const LAYER_NORM_EPS: f64 = 1e-5;

/// `bert/config.json` of an `LDMBertModel`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
struct BertConfig {
    vocab_size: i64,
    max_position_embeddings: i64,
    encoder_layers: i64,
    encoder_ffn_dim: i64,
    encoder_attention_heads: i64,
    /// Of one head; all heads together need not be as wide as the model.
    head_dim: i64,
    activation_function: Activation,
    d_model: i64,
}

impl Default for BertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            max_position_embeddings: 77,
            encoder_layers: 32,
            encoder_ffn_dim: 5120,
            encoder_attention_heads: 8,
            head_dim: 64,
            activation_function: Activation::Gelu,
            d_model: 1280,
        }
    }
}

/// Turns token ids into embeddings.
pub(in crate::diffusion) struct LdmBertModel {
    embed_tokens: Tensor,
    embed_positions: Tensor,
    layers: Vec<EncoderLayer>,
    layer_norm: LayerNorm,
}

struct EncoderLayer {
    self_attn_layer_norm: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    final_layer_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: i64,
    activation_function: Activation,
    placement: Placement,
}

impl LdmBertModel {
    /// Loads the config and the weights of a part.
    pub(in crate::diffusion) fn load(files: &ModelFiles, part: &str, placement: Placement) -> std::result::Result<Self, LoadError> {
        let config: BertConfig = files.config(part, &[])?;
        let weights = files.weights(part, canonical_name, placement)?;
        let model = Self::build(&(&weights.root() / "model"), &config)?;
        weights.finish()?;
        Ok(model)
    }

    fn build(vs: &Scope, config: &BertConfig) -> std::result::Result<Self, LoadError> {
        let width = config.d_model;
        Ok(Self {
            embed_tokens: (vs / "embed_tokens").tensor("weight", &[config.vocab_size, width])?,
            embed_positions: (vs / "embed_positions").tensor("weight", &[config.max_position_embeddings, width])?,
            layers: (0..config.encoder_layers)
                .map(|index| EncoderLayer::load(&(vs / "layers" / index), config))
                .collect::<std::result::Result<_, _>>()?,
            layer_norm: LayerNorm::load(&(vs / "layer_norm"), width, LAYER_NORM_EPS)?,
        })
    }

    /// The most tokens that it takes.
    pub(in crate::diffusion) fn positions(&self) -> usize {
        self.embed_positions.size().first().map_or(0, |&positions| positions as usize)
    }

    /// How many layers it has.
    pub(in crate::diffusion) fn depth(&self) -> usize {
        self.layers.len()
    }

    /// The channels of a hidden state.
    pub(in crate::diffusion) fn width(&self) -> i64 {
        self.embed_positions.size().last().copied().unwrap_or_default()
    }

    /// A hidden state of one text: ids `[L]` → `[1, L, d_model]`. Padding is attended to like any token, as the model was trained.
    pub(in crate::diffusion) fn forward(&self, ids: &[i64], layer: HiddenLayer) -> Result<Tensor> {
        let device = self.embed_tokens.device();
        let ids = upload(&Tensor::f_from_slice(ids)?, device)?.f_unsqueeze(0)?; // [1, L]
        let tokens = Tensor::f_embedding(&self.embed_tokens, &ids, -1, false, false)?;
        let mut hidden = tokens.f_add(&self.embed_positions.f_narrow(0, 0, ids.size()[1])?)?; // [1, L, d_model]
        for layer in &self.layers[..self.layers.len().saturating_sub(layer.skipped)] {
            hidden = layer.forward(&hidden)?;
        }
        if layer.final_layer_norm { self.layer_norm.forward(&hidden) } else { Ok(hidden) }
    }
}

impl EncoderLayer {
    fn load(vs: &Scope, config: &BertConfig) -> std::result::Result<Self, LoadError> {
        let (width, inner) = (config.d_model, config.encoder_ffn_dim);
        let (attn, heads_width) = (vs / "self_attn", config.encoder_attention_heads * config.head_dim);
        Ok(Self {
            self_attn_layer_norm: LayerNorm::load(&(vs / "self_attn_layer_norm"), width, LAYER_NORM_EPS)?,
            q_proj: Linear::without_bias(&(&attn / "q_proj"), width, heads_width)?,
            k_proj: Linear::without_bias(&(&attn / "k_proj"), width, heads_width)?,
            v_proj: Linear::without_bias(&(&attn / "v_proj"), width, heads_width)?,
            out_proj: Linear::load(&(&attn / "out_proj"), heads_width, width)?,
            final_layer_norm: LayerNorm::load(&(vs / "final_layer_norm"), width, LAYER_NORM_EPS)?,
            fc1: Linear::load(&(vs / "fc1"), width, inner)?,
            fc2: Linear::load(&(vs / "fc2"), inner, width)?,
            heads: config.encoder_attention_heads,
            activation_function: config.activation_function,
            placement: vs.placement(),
        })
    }

    fn forward(&self, hidden: &Tensor) -> Result<Tensor> {
        let hidden = hidden.f_add(&self.self_attention(&self.self_attn_layer_norm.forward(hidden)?)?)?;
        let inner = self.fc1.forward(&self.final_layer_norm.forward(&hidden)?)?;
        let inner = self.activation_function.forward(&inner, self.placement)?;
        hidden.f_add(&self.fc2.forward(&inner)?)
    }

    fn self_attention(&self, x: &Tensor) -> Result<Tensor> {
        let head = |projection: &Linear| split_heads(&projection.forward(x)?, self.heads);
        let mixed = attention(&head(&self.q_proj)?, &head(&self.k_proj)?, &head(&self.v_proj)?, false)?;
        self.out_proj.forward(&merge_heads(&mixed)?)
    }
}

/// `to_logits` was for training only; position ids are no weights.
fn canonical_name(key: &str) -> Option<String> {
    (!key.starts_with("to_logits.") && !key.ends_with("position_ids")).then(|| key.to_owned())
}
