//! CLIP's text encoder (Radford et al., 2021), transformers' `CLIPTextModel` and `CLIPTextModelWithProjection`.

use tch::Tensor;

use super::config::ClipTextConfig;
use crate::diffusion::{
    device::Placement,
    error::LoadError,
    files::ModelFiles,
    layers::{Activation, LayerNorm, Linear, Result, attention, merge_heads, split_heads},
    transfer::upload,
    weights::Scope,
};

/// Turns token ids into embeddings.
pub(in crate::diffusion) struct ClipTextModel {
    token_embedding: Tensor,
    position_embedding: Tensor,
    layers: Vec<EncoderLayer>,
    final_layer_norm: LayerNorm,
    /// Of `CLIPTextModelWithProjection`.
    text_projection: Option<Linear>,
    eos_token_id: i64,
}

/// Which of the encoder's hidden states is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::diffusion) struct HiddenLayer {
    /// Layers at the end whose work is not in it: 0 is the last hidden state, 1 the penultimate.
    pub(in crate::diffusion) skipped: usize,
    /// Whether the final layer norm follows, whichever layer it is.
    pub(in crate::diffusion) final_layer_norm: bool,
}

/// What the encoder makes of one text.
#[derive(Debug)]
pub(in crate::diffusion) struct TextOutput {
    /// The hidden state that was asked for, `[1, L, hidden]`.
    pub(in crate::diffusion) hidden: Tensor,
    /// The whole text in one vector, `[1, projection]`: transformers' `text_embeds`. None for a model without projection.
    pub(in crate::diffusion) pooled: Option<Tensor>,
}

impl TextOutput {
    /// The same tensors once more.
    pub(in crate::diffusion) fn shallow_clone(&self) -> Self {
        Self { hidden: self.hidden.shallow_clone(), pooled: self.pooled.as_ref().map(Tensor::shallow_clone) }
    }
}

/// transformers' class of a text encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::diffusion) enum ClipTextClass {
    /// `CLIPTextModel`
    Plain,
    /// `CLIPTextModelWithProjection`
    WithProjection,
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
    pub(in crate::diffusion) fn load(
        files: &ModelFiles,
        (part, class): (&str, ClipTextClass),
        placement: Placement,
    ) -> std::result::Result<Self, LoadError> {
        let config = ClipTextConfig::read(files, part)?;
        let alias = if class == ClipTextClass::Plain { name_without_projection } else { canonical_name };
        let weights = files.weights(part, alias, placement)?;
        let mut model = Self::build(&weights.root(), &config)?;
        if class == ClipTextClass::WithProjection {
            let scope = &weights.root() / "text_projection";
            model.text_projection = Some(Linear::without_bias(&scope, config.hidden_size, config.projection_dim)?);
        }
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
            text_projection: None,
            eos_token_id: config.eos_token_id,
        })
    }

    /// The most tokens that it takes.
    pub(in crate::diffusion) fn positions(&self) -> usize {
        self.position_embedding.size().first().map_or(0, |&positions| positions as usize)
    }

    /// How many layers it has.
    pub(in crate::diffusion) fn depth(&self) -> usize {
        self.layers.len()
    }

    /// The channels of a hidden state.
    pub(in crate::diffusion) fn width(&self) -> i64 {
        self.position_embedding.size().last().copied().unwrap_or_default()
    }

    /// One text: ids `[L]` → a hidden state `[1, L, hidden]`, and the pooled text if the model has a projection.
    ///
    /// Skipping every layer leaves the embeddings; no more than that is skipped.
    pub(in crate::diffusion) fn forward(&self, ids: &[i64], layer: HiddenLayer) -> Result<TextOutput> {
        let last = self.layers.len();
        let wanted = last.saturating_sub(layer.skipped);
        // What lies behind the wanted layer is only worked out for the pooled text, which is always that of the last layer.
        let run = if self.text_projection.is_some() { last } else { wanted };
        let mut hidden = self.embed(ids)?;
        let mut chosen = hidden.shallow_clone();
        for (done, layer) in (1..).zip(&self.layers[..run]) {
            hidden = layer.forward(&hidden)?;
            if done == wanted {
                chosen = hidden.shallow_clone();
            }
        }
        let chosen = if layer.final_layer_norm { self.final_layer_norm.forward(&chosen)? } else { chosen };
        let pool = |projection: &Linear| projection.forward(&self.end_of_text(&hidden, ids)?);
        Ok(TextOutput { hidden: chosen, pooled: self.text_projection.as_ref().map(pool).transpose()? })
    }

    fn embed(&self, ids: &[i64]) -> Result<Tensor> {
        let device = self.token_embedding.device();
        let ids = upload(&Tensor::f_from_slice(ids)?, device)?.f_unsqueeze(0)?; // [1, L]
        let length = ids.size()[1];
        let tokens = Tensor::f_embedding(&self.token_embedding, &ids, -1, false, false)?;
        tokens.f_add(&self.position_embedding.f_narrow(0, 0, length)?) // [1, L, hidden]
    }

    /// The normed state at the end token: `[1, L, hidden] → [1, hidden]`.
    fn end_of_text(&self, hidden: &Tensor, ids: &[i64]) -> Result<Tensor> {
        let place = end_of_text(ids, self.eos_token_id);
        self.final_layer_norm.forward(&hidden.f_narrow(1, place as i64, 1)?)?.f_squeeze_dim(1)
    }
}

/// Where transformers' `CLIPTextTransformer` pools. Configs from before its correction say 2, which is another token: then the largest id is
/// the end. Where there is no end token, the first place stands in.
fn end_of_text(ids: &[i64], eos_token_id: i64) -> usize {
    let end = if eos_token_id == 2 { ids.iter().copied().max().unwrap_or_default() } else { eos_token_id };
    ids.iter().position(|&id| id == end).unwrap_or(0)
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
pub(in crate::diffusion) fn canonical_name(key: &str) -> Option<String> {
    let name = key.strip_prefix("text_model.").unwrap_or(key);
    (!name.ends_with("position_ids")).then(|| name.to_owned())
}

/// The text encoders of some checkpoints carry a projection that their class does not read.
fn name_without_projection(key: &str) -> Option<String> {
    canonical_name(key).filter(|name| !name.starts_with("text_projection"))
}
