//! The text encoder of a model, whichever kind it is.

use std::path::Path;

use super::{
    device::Placement,
    error::LoadError,
    layers::Result,
    models::{
        bert::LdmBertModel,
        clip::{ClipTextClass, ClipTextModel, HiddenLayer, TextOutput},
    },
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
    /// Loads the folder's config and weights.
    pub(super) fn load(folder: &Path, class: TextEncoderClass, placement: Placement) -> std::result::Result<Self, LoadError> {
        match class {
            TextEncoderClass::Clip(class) => ClipTextModel::load(folder, class, placement).map(Self::Clip),
            TextEncoderClass::LdmBert => LdmBertModel::load(folder, placement).map(Self::LdmBert),
        }
    }

    /// The most tokens that it takes.
    pub(super) fn positions(&self) -> usize {
        match self {
            Self::Clip(model) => model.positions(),
            Self::LdmBert(model) => model.positions(),
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
