//! Prompts to embeddings.

mod cache;
mod chunks;
mod embeds;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use tch::Kind;

use self::{
    cache::{ChunkKey, PromptCache},
    chunks::{Chunk, chunks},
    embeds::{emphasise, side_by_side},
};
pub(super) use self::{
    cache::{Lookups, PromptCachePolicy},
    embeds::{BranchEmbeds, PromptEmbeds, TextEmbeds, TextKey},
};
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
use crate::{
    dispatch::ports::EngineError,
    domain::{GenerationRequest, Piece, Prompt, PromptError, PromptSyntax},
};

/// The most chunks of a text: more tokens than 10,000 characters of prose make.
const MAX_CHUNKS: usize = 32;

/// The text encoders of a model, whose hidden states are put side by side, each with its tokenizer.
pub(super) struct PromptEncoder {
    towers: Vec<Tower>,
    layer: HiddenLayer,
    zeros_for_no_prompt: bool,
    kind: Kind,
    cache: PromptCache,
}

struct Tower {
    tokenizer: ClipTokenizer,
    text_encoder: TextEncoder,
}

impl PromptEncoder {
    pub(super) fn load(
        files: &ModelFiles,
        index: &ModelIndex,
        placement: Placement,
        cache: PromptCachePolicy,
    ) -> std::result::Result<Self, LoadError> {
        let towers = index.towers().into_iter().map(|parts| Tower::load(files, parts, placement));
        let towers = towers.collect::<std::result::Result<Vec<_>, _>>()?;
        let lengths: Vec<usize> = towers.iter().map(|tower| tower.tokenizer.length()).collect();
        if lengths.iter().any(|&length| length != lengths[0]) {
            let problem = format!("the tokenizers make different numbers of tokens (model_max_length): {lengths:?}");
            return Err(files.invalid(problem));
        }
        let (layer, zeros_for_no_prompt) = (index.hidden_layer(), index.zeros_for_no_prompt());
        Ok(Self { towers, layer, zeros_for_no_prompt, kind: placement.kind, cache: PromptCache::new(cache) })
    }

    /// The channels of its embeddings.
    pub(super) fn width(&self) -> i64 {
        self.towers.iter().map(|tower| tower.text_encoder.width()).sum()
    }

    /// Encodes the prompt and, if guidance needs it, the negative prompt. Without one diffusers takes the empty text or, where the model
    /// asks for it, zeros. The picture is painted in `steps` steps.
    pub(super) fn encode(
        &self,
        request: &GenerationRequest,
        steps: u32,
        guided: bool,
    ) -> std::result::Result<PromptEmbeds, EngineError> {
        let refused = |error: PromptError| EngineError::Failed(error.to_string());
        let mut warnings = Vec::new();
        let layer = self.layer_of(request, &mut warnings);
        let mut reader = Reader { encoder: self, syntax: request.prompt_syntax, warnings };
        let mut prompts = vec![reader.read("prompt", &request.parsed_prompt(steps).map_err(refused)?)?];
        let zeros = self.zeros_for_no_prompt && request.negative_prompt.is_none();
        if guided && !zeros {
            prompts.push(reader.read("negative_prompt", &request.parsed_negative_prompt(steps).map_err(refused)?)?);
        }
        let mut writer = Writer { encoder: self, layer, length: longest(&prompts), known: HashMap::new() };
        let warnings = reader.warnings;
        let write = || {
            let mut prompts = prompts.iter().map(|branches| branches.iter().map(|branch| writer.branch(branch)).collect());
            let prompt: Vec<BranchEmbeds> = prompts.next().unwrap_or_else(|| Ok(Vec::new()))?;
            let negative: Option<Vec<BranchEmbeds>> = prompts.next().transpose()?;
            let negative_prompt = match negative {
                None if guided => prompt.first().map(BranchEmbeds::zeros_like).transpose()?,
                negative => negative.into_iter().flatten().next(),
            };
            Ok(PromptEmbeds { prompt, negative_prompt, warnings })
        };
        write().map_err(|error| engine_error(&error))
    }

    /// The layer that `clip_skip` names, in every tower: 1 is the last one, whatever the model's own.
    fn layer_of(&self, request: &GenerationRequest, warnings: &mut Vec<String>) -> HiddenLayer {
        let Some(clip_skip) = request.clip_skip else { return self.layer };
        let depth = self.towers.iter().map(|tower| tower.text_encoder.depth()).min().unwrap_or_default();
        let skipped = usize::from(clip_skip) - 1;
        if skipped >= depth {
            warnings.push(format!("clip_skip is {clip_skip}, but the text encoder has {depth} layers: its first was read"));
        }
        HiddenLayer { skipped: skipped.min(depth.saturating_sub(1)), ..self.layer }
    }
}

/// A branch of a prompt as chunks: of each text, those of each tower.
struct BranchChunks {
    weight: f64,
    texts: Vec<Vec<Vec<Chunk>>>,
    of_step: Vec<usize>,
}

/// The most chunks of a text.
fn longest(prompts: &[Vec<BranchChunks>]) -> usize {
    let texts = prompts.iter().flatten().flat_map(|branch| &branch.texts).flatten();
    texts.map(Vec::len).max().unwrap_or_default()
}

/// Turns prompts into chunks of tokens.
struct Reader<'a> {
    encoder: &'a PromptEncoder,
    syntax: PromptSyntax,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn read(&mut self, field: &str, prompt: &Prompt) -> std::result::Result<Vec<BranchChunks>, EngineError> {
        let branches = prompt.branches.iter().map(|branch| {
            let texts = branch.texts.iter().map(|text| self.text(field, text)).collect::<std::result::Result<_, _>>();
            Ok(BranchChunks { weight: branch.weight, texts: texts?, of_step: branch.of_step.clone() })
        });
        branches.collect::<std::result::Result<_, tokenizers::Error>>().map_err(|error| EngineError::Failed(error.to_string()))
    }

    fn text(&mut self, field: &str, pieces: &[Piece]) -> std::result::Result<Vec<Vec<Chunk>>, tokenizers::Error> {
        let mut towers = Vec::new();
        for tower in &self.encoder.towers {
            let (chunks, warning) = match self.syntax {
                PromptSyntax::Plain => plain_chunk(&tower.tokenizer, field, pieces)?,
                PromptSyntax::Weighted => weighted_chunks(&tower.tokenizer, field, pieces)?,
            };
            towers.push(chunks);
            // Two towers mostly cut in the same place.
            self.warnings.extend(warning.filter(|warning| !self.warnings.contains(warning)));
        }
        Ok(towers)
    }
}

/// What fits into one chunk, and what to say of the rest.
fn plain_chunk(tokenizer: &ClipTokenizer, field: &str, pieces: &[Piece]) -> std::result::Result<Cut, tokenizers::Error> {
    let text = pieces.iter().find_map(|piece| match piece {
        Piece::Words { text, .. } => Some(text.as_str()),
        Piece::Break => None,
    });
    let tokens = tokenizer.encode(text.unwrap_or_default())?;
    let length = tokens.ids.len();
    let warning = tokens.truncated.map(|cut| format!("{field} is longer than {length} tokens; this was cut off: {cut}"));
    Ok((vec![Chunk { ids: tokens.ids, weights: None }], warning))
}

fn weighted_chunks(tokenizer: &ClipTokenizer, field: &str, pieces: &[Piece]) -> std::result::Result<Cut, tokenizers::Error> {
    let mut chunks = chunks(tokenizer, pieces)?;
    let count = chunks.len();
    chunks.truncate(MAX_CHUNKS);
    let room = tokenizer.room();
    let warning = || format!("{field} takes {count} chunks of {room} tokens; those after the first {MAX_CHUNKS} were cut off");
    Ok((chunks, (count > MAX_CHUNKS).then(warning)))
}

/// The chunks that are read, and a remark on what is not.
type Cut = (Vec<Chunk>, Option<String>);

/// Turns chunks into embeddings, each chunk once.
struct Writer<'a> {
    encoder: &'a PromptEncoder,
    layer: HiddenLayer,
    /// Chunks of every text; shorter ones are filled up, so that all rows of a picture go through the UNet together.
    length: usize,
    /// Of this request, so that one with more chunks than the cache holds still has each encoded once.
    known: HashMap<ChunkKey, TextOutput>,
}

impl Writer<'_> {
    fn branch(&mut self, branch: &BranchChunks) -> Result<BranchEmbeds> {
        let texts = branch.texts.iter().map(|towers| self.text(towers).map(Arc::new)).collect::<Result<_>>()?;
        Ok(BranchEmbeds { weight: branch.weight, texts, of_step: branch.of_step.clone() })
    }

    fn text(&mut self, towers: &[Vec<Chunk>]) -> Result<TextEmbeds> {
        let towers: Vec<Vec<Chunk>> = towers.iter().zip(&self.encoder.towers).map(|read| self.filled_up(read)).collect();
        let chunks = (0..self.length).map(|place| {
            let outputs = towers.iter().enumerate().map(|(tower, chunks)| self.chunk(tower, &chunks[place]));
            side_by_side(&outputs.collect::<Result<Vec<_>>>()?, self.encoder.kind)
        });
        let chunks = chunks.collect::<Result<_>>()?;
        TextEmbeds::one_behind_the_other(TextKey::Chunks(towers, self.layer), chunks)
    }

    /// What one tower reads of a text, with empty chunks behind it.
    fn filled_up(&self, (chunks, tower): (&Vec<Chunk>, &Tower)) -> Vec<Chunk> {
        let empty = std::iter::repeat_with(|| Chunk::empty(&tower.tokenizer));
        chunks.iter().cloned().chain(empty).take(self.length).collect()
    }

    fn chunk(&mut self, tower: usize, chunk: &Chunk) -> Result<TextOutput> {
        let Tower { text_encoder, .. } = &self.encoder.towers[tower];
        let Chunk { ids, weights } = chunk.clone();
        let key = ChunkKey { tower, ids, layer: self.layer };
        let output = match self.known.get(&key) {
            Some(known) => known.shallow_clone(),
            None => {
                let output = self.encoder.cache.output(&key, || text_encoder.forward(&key.ids, key.layer))?;
                self.known.insert(key, output.shallow_clone());
                output
            }
        };
        let weigh = |weights: Vec<f32>| emphasise(&output.hidden, &weights);
        Ok(match weights.map(weigh).transpose()? {
            Some(hidden) => TextOutput { hidden, ..output },
            None => output,
        })
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
