//! What a UNet's cross-attentions are told of the prompts.

use tch::Tensor;

/// The prompts of a UNet call, one a row. Both ways give the same numbers, and where calls are
/// batch-invariant the same bits.
#[derive(Debug)]
pub(in crate::diffusion) enum UNetPrompt {
    /// The text encoders' hidden states, `[B, L, cross_attention_dim]`: each cross-attention makes its own key and value of them.
    HiddenStates(Tensor),
    /// All cross-attentions' keys and values, made before: `[B, 2, L, channels of all]`, keys first.
    KeysAndValues(Tensor),
}

impl UNetPrompt {
    /// The tensor that it holds. By its dimensions the two kinds are told apart.
    pub(super) fn tensor(&self) -> &Tensor {
        let (Self::HiddenStates(tensor) | Self::KeysAndValues(tensor)) = self;
        tensor
    }

    /// The same kind, with another tensor.
    pub(super) fn with_tensor(&self, tensor: Tensor) -> Self {
        match self {
            Self::HiddenStates(_) => Self::HiddenStates(tensor),
            Self::KeysAndValues(_) => Self::KeysAndValues(tensor),
        }
    }
}
