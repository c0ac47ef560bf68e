//! CLIP's text encoder (Radford et al., 2021), transformers' `CLIPTextModel`.

use tch::Tensor;

use super::config::ClipTextConfig;
use crate::diffusion::{
    device::Placement,
    error::LoadError,
    files::ModelFiles,
    layers::{Activation, LayerNorm, Linear, Result, attention, merge_heads, split_heads},
    weights::Scope,
};

/// Turns token ids into embeddings.
pub(in crate::diffusion) struct ClipTextModel {
    token_embedding: Tensor,
    position_embedding: Tensor,
    layers: Vec<EncoderLayer>,
    final_layer_norm: LayerNorm,
}

struct EncoderLayer {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: i64,
    hidden_act: Activation,
    placement: Placement,
}

impl ClipTextModel {
    /// Loads the config and the weights of the part `text_encoder` or `text_encoder_2`.
    pub(in crate::diffusion) fn load(files: &ModelFiles, part: &str, placement: Placement) -> std::result::Result<Self, LoadError> {
        let config = ClipTextConfig::read(files, part)?;
        let weights = files.weights(part, canonical_name, placement)?;
        let model = Self::build(&weights.root(), &config)?;
        weights.finish()?;
        Ok(model)
    }

    fn build(vs: &Scope, config: &ClipTextConfig) -> std::result::Result<Self, LoadError> {
        let embeddings = vs / "embeddings";
        let (width, positions) = (config.hidden_size, config.max_position_embeddings);
        let layers = vs / "encoder" / "layers";
        Ok(Self {
            token_embedding: (&embeddings / "token_embedding").tensor("weight", &[config.vocab_size, width])?,
            position_embedding: (&embeddings / "position_embedding").tensor("weight", &[positions, width])?,
            layers: (0..config.num_hidden_layers)
                .map(|index| EncoderLayer::load(&(&layers / index), config))
                .collect::<std::result::Result<_, _>>()?,
            final_layer_norm: LayerNorm::load(&(vs / "final_layer_norm"), width, config.layer_norm_eps)?,
        })
    }

    /// The most tokens that it takes.
    pub(in crate::diffusion) fn positions(&self) -> usize {
        self.position_embedding.size().first().map_or(0, |&positions| positions as usize)
    }

    /// The last hidden state of one text: ids `[L]` → `[1, L, hidden]`.
    pub(in crate::diffusion) fn forward(&self, ids: &[i64]) -> Result<Tensor> {
        let device = self.token_embedding.device();
        let ids = Tensor::f_from_slice(ids)?.f_to_device(device)?.f_unsqueeze(0)?; // [1, L]
        let length = ids.size()[1];
        let tokens = Tensor::f_embedding(&self.token_embedding, &ids, -1, false, false)?;
        let mut hidden = tokens.f_add(&self.position_embedding.f_narrow(0, 0, length)?)?; // [1, L, hidden]
        for layer in &self.layers {
            hidden = layer.forward(&hidden)?;
        }
        self.final_layer_norm.forward(&hidden)
    }
}

impl EncoderLayer {
    fn load(vs: &Scope, config: &ClipTextConfig) -> std::result::Result<Self, LoadError> {
        let (width, inner, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let (attn, mlp) = (vs / "self_attn", vs / "mlp");
        Ok(Self {
            layer_norm1: LayerNorm::load(&(vs / "layer_norm1"), width, eps)?,
            q_proj: Linear::load(&(&attn / "q_proj"), width, width)?,
            k_proj: Linear::load(&(&attn / "k_proj"), width, width)?,
            v_proj: Linear::load(&(&attn / "v_proj"), width, width)?,
            out_proj: Linear::load(&(&attn / "out_proj"), width, width)?,
            layer_norm2: LayerNorm::load(&(vs / "layer_norm2"), width, eps)?,
            fc1: Linear::load(&(&mlp / "fc1"), width, inner)?,
            fc2: Linear::load(&(&mlp / "fc2"), inner, width)?,
            heads: config.num_attention_heads,
            hidden_act: config.hidden_act,
            placement: vs.placement(),
        })
    }

    fn forward(&self, hidden: &Tensor) -> Result<Tensor> {
        let hidden = hidden.f_add(&self.self_attention(&self.layer_norm1.forward(hidden)?)?)?;
        let inner = self.fc1.forward(&self.layer_norm2.forward(&hidden)?)?;
        let inner = self.hidden_act.forward(&inner, self.placement)?;
        hidden.f_add(&self.fc2.forward(&inner)?)
    }

    fn self_attention(&self, x: &Tensor) -> Result<Tensor> {
        let head = |projection: &Linear| split_heads(&projection.forward(x)?, self.heads);
        let mixed = attention(&head(&self.q_proj)?, &head(&self.k_proj)?, &head(&self.v_proj)?, true)?;
        self.out_proj.forward(&merge_heads(&mixed)?)
    }
}

/// Hub checkpoints have `text_model.` before every name, those of transformers 5 do not; position ids are no weights.
fn canonical_name(key: &str) -> Option<String> {
    let name = key.strip_prefix("text_model.").unwrap_or(key);
    (!name.ends_with("position_ids")).then(|| name.to_owned())
}
