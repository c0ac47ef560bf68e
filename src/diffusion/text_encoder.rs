//! The text encoder of a model, whichever kind it is.

use super::{
    device::Placement,
    error::LoadError,
    files::ModelFiles,
    layers::Result,
    models::{
        bert::LdmBertModel,
        clip::{ClipTextClass, ClipTextModel, HiddenLayer, TextOutput},
    },
    pipeline::TowerParts,
};

/// The class of a text encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextEncoderClass {
    Clip(ClipTextClass),
    /// diffusers' `LDMBertModel`
    LdmBert,
}

/// Turns token ids into embeddings.
pub(super) enum TextEncoder {
    Clip(ClipTextModel),
    LdmBert(LdmBertModel),
}

impl TextEncoder {
    /// Loads the config and the weights of a tower's text encoder.
    pub(super) fn load(files: &ModelFiles, parts: TowerParts, placement: Placement) -> std::result::Result<Self, LoadError> {
        match parts.class {
            TextEncoderClass::Clip(class) => ClipTextModel::load(files, (parts.text_encoder, class), placement).map(Self::Clip),
            TextEncoderClass::LdmBert => LdmBertModel::load(files, parts.text_encoder, placement).map(Self::LdmBert),
        }
    }

    /// The most tokens that it takes.
    pub(super) fn positions(&self) -> usize {
        match self {
            Self::Clip(model) => model.positions(),
            Self::LdmBert(model) => model.positions(),
        }
    }

    /// How many layers it has.
    pub(super) fn depth(&self) -> usize {
        match self {
            Self::Clip(model) => model.depth(),
            Self::LdmBert(model) => model.depth(),
        }
    }

    /// The channels of a hidden state.
    pub(super) fn width(&self) -> i64 {
        match self {
            Self::Clip(model) => model.width(),
            Self::LdmBert(model) => model.width(),
        }
    }

    /// One text: ids `[L]` → a hidden state `[1, L, hidden]`, and the pooled text if the model has a projection.
    pub(super) fn forward(&self, ids: &[i64], layer: HiddenLayer) -> Result<TextOutput> {
        match self {
            Self::Clip(model) => model.forward(ids, layer),
            Self::LdmBert(model) => Ok(TextOutput { hidden: model.forward(ids, layer)?, pooled: None }),
        }
    }
}
