//! The prompts and how they are read.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    super::{
        ModelInfo, Prompt, PromptError,
        fields::{Fields, describe, integer, text},
    },
    GenerationRequest,
};

const MAX_PROMPT_CHARS: usize = 10_000;
/// The layers of the text encoder of Stable Diffusion 1.
const MAX_CLIP_SKIP: u64 = 12;

/// How a prompt is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PromptSyntax {
    /// As it is, and cut where the model cannot read on: diffusers'.
    #[default]
    Plain,
    /// With weights, editing, `AND` and `BREAK`, and as long as it may be: AUTOMATIC1111's.
    Weighted,
}

/// The fields of the prompts.
pub(super) struct Prompts {
    pub(super) prompt: Option<String>,
    pub(super) negative_prompt: Option<String>,
    pub(super) syntax: PromptSyntax,
    pub(super) clip_skip: Option<u8>,
}

pub(super) fn take_prompts(fields: &mut Fields, model: &ModelInfo) -> Prompts {
    let prompt = take_prompt(fields, model);
    let negative_prompt = fields.take("negative_prompt", optional(text(MAX_PROMPT_CHARS))).flatten();
    let syntax = fields.take("prompt_syntax", parse_syntax).unwrap_or_default();
    let clip_skip = fields.take("clip_skip", optional(integer(1, MAX_CLIP_SKIP))).flatten();
    Prompts { prompt, negative_prompt, syntax, clip_skip: clip_skip.and_then(|layers| u8::try_from(layers).ok()) }
}

/// Required, but of a model that takes no text: its requests have the empty one.
fn take_prompt(fields: &mut Fields, model: &ModelInfo) -> Option<String> {
    let prompt = fields.take("prompt", text(MAX_PROMPT_CHARS));
    if prompt.is_none() && !model.takes("prompt") {
        return Some(String::new());
    }
    if prompt.is_none() && !fields.failed("prompt") {
        fields.fail("prompt", "is required");
    }
    prompt
}

/// What the prompts themselves say can only be checked when the steps are known.
pub(super) fn check_prompts(fields: &mut Fields, request: &GenerationRequest) {
    let steps = request.effective_steps();
    let parsed = [("prompt", request.parsed_prompt(steps)), ("negative_prompt", request.parsed_negative_prompt(steps))];
    for (name, parsed) in parsed {
        if let Err(error) = parsed {
            fields.fail(name, error.to_string());
        }
    }
}

impl GenerationRequest {
    /// The prompt by its syntax, to be painted in `steps` steps.
    ///
    /// # Errors
    /// Of a weighted one, the first fault; never of a request that was parsed.
    pub fn parsed_prompt(&self, steps: u32) -> Result<Prompt, PromptError> {
        match self.prompt_syntax {
            PromptSyntax::Plain => Ok(Prompt::plain(&self.prompt)),
            PromptSyntax::Weighted => Prompt::parse(&self.prompt, steps),
        }
    }

    /// The negative prompt by its syntax; where there is none the empty text.
    ///
    /// # Errors
    /// As for the prompt.
    pub fn parsed_negative_prompt(&self, steps: u32) -> Result<Prompt, PromptError> {
        let text = self.negative_prompt.as_deref().unwrap_or_default();
        match self.prompt_syntax {
            PromptSyntax::Plain => Ok(Prompt::plain(text)),
            PromptSyntax::Weighted => Prompt::parse_negative(text, steps),
        }
    }

    /// The most rows of a UNet call that a picture takes: one for each branch of the prompt, with guidance one more, and one more again
    /// with guidance towards a picture.
    pub fn max_rows(&self) -> usize {
        let branches = self.parsed_prompt(self.effective_steps()).map_or(1, |prompt| prompt.branches.len());
        match (self.uses_guidance(), self.image_guidance_scale) {
            (false, _) => branches,
            (true, None) => branches + 1,
            (true, Some(_)) => branches + 2,
        }
    }
}

fn parse_syntax(value: Value) -> Result<PromptSyntax, String> {
    serde_json::from_value(value.clone()).map_err(|_| format!("must be plain or weighted, got {}", describe(&value)))
}

/// Null is as good as nothing.
fn optional<T>(parse: impl Fn(Value) -> Result<T, String>) -> impl Fn(Value) -> Result<Option<T>, String> {
    move |value| if value.is_null() { Ok(None) } else { parse(value).map(Some) }
}
