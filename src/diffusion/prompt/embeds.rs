//! What the text encoders make of prompts.

use std::sync::Arc;

use tch::{Kind, Tensor};

use super::chunks::Chunk;
use crate::diffusion::{
    layers::Result,
    models::clip::{HiddenLayer, TextOutput},
    transfer::upload,
};

/// All that a text's embeddings depend on, for one model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::diffusion) enum TextKey {
    /// The chunks of each tower, and the layer that is read.
    Chunks(Vec<Vec<Chunk>>, HiddenLayer),
    /// Zeros for so many tokens.
    Zeros(i64),
}

/// One text as the UNet is told of it.
#[derive(Debug)]
pub(in crate::diffusion) struct TextEmbeds {
    /// What it was made of.
    pub(in crate::diffusion) key: TextKey,
    /// `[1, L, hidden]`, the hidden states of all towers side by side and its chunks one behind the other.
    pub(in crate::diffusion) encoder_hidden_states: Tensor,
    /// `[1, projection]`, of the first chunk and the last tower if it has a projection.
    pub(in crate::diffusion) pooled: Option<Tensor>,
}

/// One of the prompts that `AND` composes.
#[derive(Debug)]
pub(in crate::diffusion) struct BranchEmbeds {
    pub(in crate::diffusion) weight: f64,
    /// At least one.
    pub(in crate::diffusion) texts: Vec<Arc<TextEmbeds>>,
    /// Each step's place in `texts`.
    pub(in crate::diffusion) of_step: Vec<usize>,
}

/// The embeddings of a request's prompts, all of one length.
#[derive(Debug)]
pub(in crate::diffusion) struct PromptEmbeds {
    /// At least one.
    pub(in crate::diffusion) prompt: Vec<BranchEmbeds>,
    /// None when guidance is off.
    pub(in crate::diffusion) negative_prompt: Option<BranchEmbeds>,
    /// Which parts of the prompts were cut off.
    pub(in crate::diffusion) warnings: Vec<String>,
}

impl PromptEmbeds {
    /// L: how many tokens each row attends to.
    pub(in crate::diffusion) fn length(&self) -> i64 {
        let text = self.prompt.iter().flat_map(|branch| &branch.texts).next();
        text.map(|text| text.length()).unwrap_or_default()
    }
}

impl BranchEmbeds {
    /// The place of step `step`'s text.
    pub(in crate::diffusion) fn place(&self, step: usize) -> usize {
        self.of_step.get(step).copied().unwrap_or_default()
    }

    /// Zeros of the same shapes, in every step the same.
    pub(super) fn zeros_like(&self) -> Result<Self> {
        let texts = self.texts.iter().take(1).map(|text| text.zeros_like().map(Arc::new)).collect::<Result<_>>()?;
        Ok(Self { weight: 1.0, texts, of_step: Vec::new() })
    }
}

/// A chunk's hidden states and pooled embedding, as in [`TextEmbeds`].
pub(super) type ChunkEmbeds = (Tensor, Option<Tensor>);

/// One chunk: the towers' outputs side by side.
pub(super) fn side_by_side(outputs: &[TextOutput], kind: Kind) -> Result<ChunkEmbeds> {
    let hidden: Vec<&Tensor> = outputs.iter().map(|output| &output.hidden).collect();
    let pooled = outputs.last().and_then(|output| output.pooled.as_ref());
    Ok((Tensor::f_cat(&hidden, 2)?.f_to_kind(kind)?, pooled.map(|pooled| pooled.f_to_kind(kind)).transpose()?))
}

impl TextEmbeds {
    /// Chunks one behind the other, at least one; the first says what the whole text is.
    pub(super) fn one_behind_the_other(key: TextKey, chunks: Vec<ChunkEmbeds>) -> Result<Self> {
        let hidden: Vec<&Tensor> = chunks.iter().map(|(hidden, _)| hidden).collect();
        let encoder_hidden_states = Tensor::f_cat(&hidden, 1)?;
        Ok(Self { key, encoder_hidden_states, pooled: chunks.into_iter().next().and_then(|(_, pooled)| pooled) })
    }

    /// L: how many tokens a row attends to.
    pub(in crate::diffusion) fn length(&self) -> i64 {
        self.encoder_hidden_states.size().get(1).copied().unwrap_or_default()
    }

    fn zeros_like(&self) -> Result<Self> {
        let pooled = self.pooled.as_ref().map(Tensor::f_zeros_like).transpose()?;
        let encoder_hidden_states = self.encoder_hidden_states.f_zeros_like()?;
        Ok(Self { key: TextKey::Zeros(self.length()), encoder_hidden_states, pooled })
    }
}

/// Weighs the tokens of a chunk's hidden states `[1, L, hidden]` and restores their mean over all of it: the "Original" emphasis of
/// AUTOMATIC1111's `modules/sd_emphasis.py`.
pub(super) fn emphasise(hidden: &Tensor, weights: &[f32]) -> Result<Tensor> {
    let weights = upload(&Tensor::f_from_slice(weights)?, hidden.device())?.f_to_kind(hidden.kind())?;
    let weighted = hidden.f_mul(&weights.f_reshape([1, -1, 1])?)?;
    weighted.f_mul(&hidden.f_mean(None)?.f_div(&weighted.f_mean(None)?)?)
}
