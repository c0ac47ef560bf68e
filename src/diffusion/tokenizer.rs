//! CLIP's tokenizer, from `vocab.json` and `merges.txt` or from `tokenizer.json`.

use std::path::Path;

use serde_json::Value;
use tokenizers::{
    AddedToken, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer,
    models::bpe::{BPE, Vocab},
    normalizers::{NFC, Replace, Sequence, replace::ReplacePattern, utils::Lowercase},
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence as PreSequence,
        split::{Split, SplitPattern},
    },
};

use super::{error::LoadError, files::Part, wordpiece};

/// How CLIP cuts a text into words; transformers' `CLIPConverter`.
const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// How many tokens the text encoder of latent diffusion takes; diffusers' `LDMTextToImagePipeline`.
const BERT_LENGTH: usize = 77;

/// What CLIP's vocabulary writes at the end of a word.
const END_OF_WORD: &str = "</w>";
/// The tokens with their ids, and the merges: the two files that a tokenizer needs, unless `tokenizer.json` has both.
const VOCABULARY: &str = "vocab.json";
const MERGES: &str = "merges.txt";
/// BERT's tokens in the order of their ids.
const WORDPIECES: &str = "vocab.txt";

/// Turns a prompt into token ids.
#[derive(Debug)]
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    length: usize,
    bos: i64,
    eos: i64,
    pad: i64,
}

/// A prompt's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// As many ids as the text encoder takes: start, the prompt's, end, padding.
    pub ids: Vec<i64>,
    /// The end of the prompt that did not fit, as text.
    pub truncated: Option<String>,
}

impl ClipTokenizer {
    /// Reads a `tokenizer/` folder.
    ///
    /// # Errors
    /// When files are missing or are not a CLIP tokenizer's.
    pub fn load(folder: &Path) -> Result<Self, LoadError> {
        Self::from_part(&Part::Folder(folder.to_owned()))
    }

    /// Reads a tokenizer's files, wherever they are.
    pub(super) fn from_part(part: &Part) -> Result<Self, LoadError> {
        let settings = Settings::read(part)?;
        let vocabulary = part.text(VOCABULARY)?;
        let tokenizer = vocabulary.map_or_else(|| from_json(part), |vocabulary| from_vocabulary(part, &vocabulary, &settings))?;
        let id = |token: &str| token_id(&tokenizer, part, token);
        let (bos, eos, pad) = (id(&settings.bos_token)?, id(&settings.eos_token)?, id(&settings.pad_token)?);
        Ok(Self { length: settings.model_max_length, bos, eos, pad, tokenizer })
    }

    /// Reads a `tokenizer/` folder of BERT's.
    ///
    /// # Errors
    /// When files are missing or are not a BERT tokenizer's.
    pub fn load_bert(folder: &Path) -> Result<Self, LoadError> {
        Self::bert_from_part(&Part::Folder(folder.to_owned()))
    }

    /// Reads a BERT tokenizer's files, wherever they are. Its texts have 77 tokens, whatever the files say: diffusers asks for as many.
    pub(super) fn bert_from_part(part: &Part) -> Result<Self, LoadError> {
        let tokenizer = match part.text(WORDPIECES)? {
            Some(vocabulary) => {
                let config = optional_json(part, "tokenizer_config.json")?;
                wordpiece::from_vocabulary(&vocabulary, &config).map_err(|problem| part.invalid(WORDPIECES, problem))?
            }
            None => from_json(part)?,
        };
        let ends = ["[CLS]", "[SEP]", "[PAD]"].map(|token| token_id(&tokenizer, part, token));
        let [bos, eos, pad] = ends;
        Ok(Self { length: BERT_LENGTH, bos: bos?, eos: eos?, pad: pad?, tokenizer })
    }

    /// How many tokens a prompt becomes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Encodes a prompt as diffusers does: cut to the model's length, both ends included, and padded.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    pub fn encode(&self, prompt: &str) -> Result<Tokens, tokenizers::Error> {
        let words = self.words(prompt)?;
        let (kept, cut) = words.split_at(words.len().min(self.room()));
        let truncated = if cut.is_empty() { None } else { Some(self.text_of(cut)?) };
        Ok(Tokens { ids: self.framed(kept), truncated })
    }

    /// The text's own tokens, however many.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    pub(super) fn words(&self, text: &str) -> Result<Vec<u32>, tokenizers::Error> {
        Ok(self.tokenizer.encode_fast(text, false)?.get_ids().to_vec())
    }

    /// How many of a text's own tokens fit between the start and the end.
    pub(super) fn room(&self) -> usize {
        self.length - 2
    }

    /// Start, at most as many words as there is room for, end, padding.
    pub(super) fn framed(&self, words: &[u32]) -> Vec<i64> {
        let mut ids = vec![self.bos];
        ids.extend(words.iter().map(|&id| i64::from(id)));
        ids.push(self.eos);
        ids.resize(self.length, self.pad);
        ids
    }

    /// The token of a comma that stands by itself.
    pub(super) fn comma(&self) -> Option<u32> {
        self.tokenizer.token_to_id(",</w>").or_else(|| self.tokenizer.token_to_id(","))
    }

    fn text_of(&self, ids: &[u32]) -> Result<String, tokenizers::Error> {
        Ok(self.tokenizer.decode(ids, true)?.replace(END_OF_WORD, " ").trim().to_owned())
    }
}

fn token_id(tokenizer: &Tokenizer, part: &Part, token: &str) -> Result<i64, LoadError> {
    let problem = || part.invalid("", format!("the vocabulary has no token {token:?}"));
    tokenizer.token_to_id(token).map(i64::from).ok_or_else(problem)
}

/// The special tokens and the length.
struct Settings {
    bos_token: String,
    eos_token: String,
    pad_token: String,
    model_max_length: usize,
}

impl Settings {
    /// From `tokenizer_config.json`, then `special_tokens_map.json`, then CLIP's own.
    fn read(part: &Part) -> Result<Self, LoadError> {
        let config = optional_json(part, "tokenizer_config.json")?;
        let map = optional_json(part, "special_tokens_map.json")?;
        let token = |name: &str, default: &str| {
            let named = token_text(&config[name]).or(token_text(&map[name]));
            named.unwrap_or(default).to_owned()
        };
        let length = config["model_max_length"].as_u64().and_then(|length| usize::try_from(length).ok());
        Ok(Self {
            bos_token: token("bos_token", "<|startoftext|>"),
            eos_token: token("eos_token", "<|endoftext|>"),
            pad_token: token("pad_token", "<|endoftext|>"),
            // Some folders write 10^30 for "no limit"; CLIP's text encoders take 77.
            model_max_length: length.filter(|length| (3..=1024).contains(length)).unwrap_or(77),
        })
    }
}

/// A token is written as a text, or as an object with its `content`.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or(value["content"].as_str())
}

fn optional_json(part: &Part, name: &str) -> Result<Value, LoadError> {
    let text = part.text(name)?;
    let parse = |text: String| serde_json::from_str(&text).map_err(|error| part.invalid(name, error.to_string()));
    text.map_or(Ok(Value::Null), parse)
}

fn from_json(part: &Part) -> Result<Tokenizer, LoadError> {
    const NONE: &str = "no usable tokenizer: expected vocab.json and merges.txt (CLIP), vocab.txt (BERT), or tokenizer.json";
    let text = part.text("tokenizer.json")?.ok_or_else(|| part.invalid("", NONE))?;
    let mut tokenizer: Tokenizer = text.parse().map_err(|error| part.invalid("tokenizer.json", format!("{NONE}: {error}")))?;
    // Cutting and padding are ours: a file may carry its own and they would be done twice.
    let _ = tokenizer.with_truncation(None);
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// The pipeline that transformers' `CLIPConverter` builds.
fn from_vocabulary(part: &Part, vocabulary: &str, settings: &Settings) -> Result<Tokenizer, LoadError> {
    let invalid = |error: tokenizers::Error| part.invalid("", error.to_string());
    let vocabulary: Vocab = serde_json::from_str(vocabulary).map_err(|error| part.invalid(VOCABULARY, error.to_string()))?;
    let merges = part.text(MERGES)?.ok_or_else(|| part.invalid(MERGES, "there is no such file"))?;
    let bpe = BPE::builder()
        .vocab_and_merges(vocabulary, read_merges(&merges).map_err(|problem| part.invalid(MERGES, problem))?)
        .unk_token("<|endoftext|>".to_owned())
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix(END_OF_WORD.to_owned())
        .build()
        .map_err(invalid)?;
    let mut tokenizer = Tokenizer::new(bpe);
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ").map_err(invalid)?;
    tokenizer.with_normalizer(Some(Sequence::new(vec![
        NormalizerWrapper::NFC(NFC),
        NormalizerWrapper::Replace(spaces),
        NormalizerWrapper::Lowercase(Lowercase),
    ])));
    let words = SplitPattern::Regex(WORDS.to_owned());
    let split = Split::new(words, SplitDelimiterBehavior::Removed, true).map_err(invalid)?;
    tokenizer.with_pre_tokenizer(Some(PreSequence::new(vec![
        PreTokenizerWrapper::Split(split),
        PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true)),
    ])));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    let special = |text: &str| AddedToken::from(text.to_owned(), true);
    // The padding, too: where it is "!", an exclamation mark in a prompt is one of it.
    let own = [&settings.bos_token, &settings.eos_token, &settings.pad_token].map(|token| special(token));
    tokenizer.add_special_tokens(&[[special("<|startoftext|>"), special("<|endoftext|>")].as_slice(), &own].concat());
    Ok(tokenizer)
}

/// Each line of `merges.txt` is two tokens that become one; the first line may tell a version.
fn read_merges(text: &str) -> Result<Vec<(String, String)>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with("#version") && !line.is_empty());
    let pair = |(place, line): (usize, &str)| match line.split_once(' ') {
        Some((left, right)) if !right.contains(' ') => Ok((left.to_owned(), right.to_owned())),
        _ => Err(format!("line {} is not two tokens with a space between: {line:.80?}", place + 1)),
    };
    lines.map(pair).collect()
}
