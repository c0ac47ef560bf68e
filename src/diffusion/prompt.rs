//! Prompts to embeddings.

use std::path::Path;

use tch::{Kind, Tensor};

use super::{
    device::Placement,
    error::{LoadError, engine_error},
    models::clip::ClipTextModel,
    tokenizer::ClipTokenizer,
};
use crate::{dispatch::ports::EngineError, domain::GenerationRequest};

/// The tokenizer and the text encoder of a model.
pub(super) struct PromptEncoder {
    tokenizer: ClipTokenizer,
    text_encoder: ClipTextModel,
    kind: Kind,
}

/// The embeddings of a request's prompts.
#[derive(Debug)]
pub(super) struct PromptEmbeds {
    /// `[1, L, hidden]`
    pub(super) prompt_embeds: Tensor,
    /// `[1, L, hidden]`; none when guidance is off.
    pub(super) negative_prompt_embeds: Option<Tensor>,
    /// Which parts of the prompts were cut off.
    pub(super) warnings: Vec<String>,
}

impl PromptEmbeds {
    /// L: how many tokens each row attends to.
    pub(super) fn length(&self) -> i64 {
        self.prompt_embeds.size().get(1).copied().unwrap_or_default()
    }
}

impl PromptEncoder {
    pub(super) fn load(folder: &Path, placement: Placement) -> Result<Self, LoadError> {
        let tokenizer = ClipTokenizer::load(&folder.join("tokenizer"))?;
        let text_encoder = ClipTextModel::load(&folder.join("text_encoder"), placement)?;
        let (length, positions) = (tokenizer.length(), text_encoder.positions());
        if length > positions {
            let problem = format!("the tokenizer makes {length} tokens (model_max_length), the text encoder takes {positions}");
            return Err(LoadError::Invalid { path: folder.to_owned(), problem });
        }
        Ok(Self { tokenizer, text_encoder, kind: placement.kind })
    }

    /// Encodes the prompt and, where guidance needs it, the negative prompt. Without one diffusers encodes the empty text.
    pub(super) fn encode(&self, request: &GenerationRequest) -> Result<PromptEmbeds, EngineError> {
        let mut warnings = Vec::new();
        let prompt_embeds = self.embed("prompt", &request.prompt, &mut warnings)?;
        let negative = request.negative_prompt.as_deref().unwrap_or_default();
        let negative_prompt_embeds = match request.uses_guidance() {
            true => Some(self.embed("negative_prompt", negative, &mut warnings)?),
            false => None,
        };
        Ok(PromptEmbeds { prompt_embeds, negative_prompt_embeds, warnings })
    }

    fn embed(&self, field: &str, text: &str, warnings: &mut Vec<String>) -> Result<Tensor, EngineError> {
        let tokens = self.tokenizer.encode(text).map_err(|error| EngineError::Failed(error.to_string()))?;
        if let Some(cut) = &tokens.truncated {
            let length = tokens.ids.len();
            warnings.push(format!("{field} is longer than {length} tokens; this was cut off: {cut}"));
        }
        let hidden = self.text_encoder.forward(&tokens.ids).map_err(|error| engine_error(&error))?;
        hidden.f_to_kind(self.kind).map_err(|error| engine_error(&error))
    }
}
