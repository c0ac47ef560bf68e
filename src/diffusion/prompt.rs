//! Prompts to embeddings.

use tch::{Kind, Tensor};

use super::{
    device::Placement,
    error::{LoadError, engine_error},
    files::ModelFiles,
    layers::Result,
    models::clip::{HiddenLayer, TextOutput},
    pipeline::{ModelIndex, TowerParts},
    text_encoder::{TextEncoder, TextEncoderClass},
    tokenizer::ClipTokenizer,
};
use crate::{dispatch::ports::EngineError, domain::GenerationRequest};

/// The text encoders of a model, whose hidden states are put side by side, each with its tokenizer.
pub(super) struct PromptEncoder {
    towers: Vec<Tower>,
    layer: HiddenLayer,
    zeros_for_no_prompt: bool,
    kind: Kind,
}

struct Tower {
    tokenizer: ClipTokenizer,
    text_encoder: TextEncoder,
}

/// One text as the UNet is told of it.
#[derive(Debug)]
pub(super) struct TextEmbeds {
    /// `[1, L, hidden]`, the hidden states of all towers side by side.
    pub(super) encoder_hidden_states: Tensor,
    /// `[1, projection]`, of the last tower if it has a projection.
    pub(super) pooled: Option<Tensor>,
}

/// The embeddings of a request's prompts.
#[derive(Debug)]
pub(super) struct PromptEmbeds {
    pub(super) prompt: TextEmbeds,
    /// None when guidance is off.
    pub(super) negative_prompt: Option<TextEmbeds>,
    /// Which parts of the prompts were cut off.
    pub(super) warnings: Vec<String>,
}

impl PromptEmbeds {
    /// L: how many tokens each row attends to.
    pub(super) fn length(&self) -> i64 {
        self.prompt.encoder_hidden_states.size().get(1).copied().unwrap_or_default()
    }
}

impl PromptEncoder {
    pub(super) fn load(files: &ModelFiles, index: &ModelIndex, placement: Placement) -> std::result::Result<Self, LoadError> {
        let towers = index.towers().into_iter().map(|parts| Tower::load(files, parts, placement));
        let towers = towers.collect::<std::result::Result<Vec<_>, _>>()?;
        let lengths: Vec<usize> = towers.iter().map(|tower| tower.tokenizer.length()).collect();
        if lengths.iter().any(|&length| length != lengths[0]) {
            let problem = format!("the tokenizers make different numbers of tokens (model_max_length): {lengths:?}");
            return Err(files.invalid(problem));
        }
        let (layer, zeros_for_no_prompt) = (index.hidden_layer(), index.zeros_for_no_prompt());
        Ok(Self { towers, layer, zeros_for_no_prompt, kind: placement.kind })
    }

    /// The channels of its embeddings.
    pub(super) fn width(&self) -> i64 {
        self.towers.iter().map(|tower| tower.text_encoder.width()).sum()
    }

    /// Encodes the prompt and, if guidance needs it, the negative prompt. Without one diffusers takes the empty text or, where the model
    /// asks for it, zeros.
    pub(super) fn encode(&self, request: &GenerationRequest, guided: bool) -> std::result::Result<PromptEmbeds, EngineError> {
        let mut warnings = Vec::new();
        let prompt = self.embed("prompt", &request.prompt, &mut warnings)?;
        let negative_prompt = match (guided, &request.negative_prompt) {
            (false, _) => None,
            (true, None) if self.zeros_for_no_prompt => Some(prompt.zeros_like().map_err(|error| engine_error(&error))?),
            (true, text) => Some(self.embed("negative_prompt", text.as_deref().unwrap_or_default(), &mut warnings)?),
        };
        Ok(PromptEmbeds { prompt, negative_prompt, warnings })
    }

    fn embed(&self, field: &str, text: &str, warnings: &mut Vec<String>) -> std::result::Result<TextEmbeds, EngineError> {
        let mut outputs = Vec::new();
        for tower in &self.towers {
            let tokens = tower.tokenizer.encode(text).map_err(|error| EngineError::Failed(error.to_string()))?;
            if let Some(cut) = &tokens.truncated {
                let length = tokens.ids.len();
                let warning = format!("{field} is longer than {length} tokens; this was cut off: {cut}");
                // Two towers mostly cut in the same place.
                if !warnings.contains(&warning) {
                    warnings.push(warning);
                }
            }
            outputs.push(tower.text_encoder.forward(&tokens.ids, self.layer).map_err(|error| engine_error(&error))?);
        }
        TextEmbeds::side_by_side(outputs, self.kind).map_err(|error| engine_error(&error))
    }
}

impl Tower {
    fn load(files: &ModelFiles, parts: TowerParts, placement: Placement) -> std::result::Result<Self, LoadError> {
        let tokenizer = match parts.class {
            TextEncoderClass::Clip(_) => files.tokenizer(parts.tokenizer),
            TextEncoderClass::LdmBert => files.bert_tokenizer(parts.tokenizer),
        }?;
        let text_encoder = TextEncoder::load(files, parts, placement)?;
        let (length, positions) = (tokenizer.length(), text_encoder.positions());
        if length > positions {
            let problem =
                format!("{} makes {length} tokens (model_max_length), {} takes {positions}", parts.tokenizer, parts.text_encoder);
            return Err(files.invalid(problem));
        }
        Ok(Self { tokenizer, text_encoder })
    }
}

impl TextEmbeds {
    fn side_by_side(outputs: Vec<TextOutput>, kind: Kind) -> Result<Self> {
        let hidden: Vec<&Tensor> = outputs.iter().map(|output| &output.hidden).collect();
        let encoder_hidden_states = Tensor::f_cat(&hidden, 2)?.f_to_kind(kind)?;
        let pooled = outputs.last().and_then(|output| output.pooled.as_ref());
        Ok(Self { encoder_hidden_states, pooled: pooled.map(|pooled| pooled.f_to_kind(kind)).transpose()? })
    }

    fn zeros_like(&self) -> Result<Self> {
        let pooled = self.pooled.as_ref().map(Tensor::f_zeros_like).transpose()?;
        Ok(Self { encoder_hidden_states: self.encoder_hidden_states.f_zeros_like()?, pooled })
    }
}
