//! CLIP's tokenizer, from `vocab.json` and `merges.txt` or from `tokenizer.json`.

use std::{fs, path::Path};

use serde_json::Value;
use tokenizers::{
    AddedToken, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer,
    models::bpe::BPE,
    normalizers::{NFC, Replace, Sequence, replace::ReplacePattern, utils::Lowercase},
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence as PreSequence,
        split::{Split, SplitPattern},
    },
};

use super::{error::LoadError, wordpiece};

/// How CLIP cuts a text into words; transformers' `CLIPConverter`.
const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// How many tokens the text encoder of latent diffusion takes; diffusers' `LDMTextToImagePipeline`.
const BERT_LENGTH: usize = 77;

/// What CLIP's vocabulary writes at the end of a word.
const END_OF_WORD: &str = "</w>";

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
        let settings = Settings::read(folder)?;
        let is_split = folder.join("vocab.json").is_file();
        let tokenizer = if is_split { from_vocabulary(folder, &settings) } else { from_json(folder) }?;
        let id = |token: &str| {
            let problem =
                || LoadError::Invalid { path: folder.to_owned(), problem: format!("the vocabulary has no token {token:?}") };
            tokenizer.token_to_id(token).map(i64::from).ok_or_else(problem)
        };
        let (bos, eos, pad) = (id(&settings.bos_token)?, id(&settings.eos_token)?, id(&settings.pad_token)?);
        Ok(Self { length: settings.model_max_length, bos, eos, pad, tokenizer })
    }

    /// Reads a `tokenizer/` folder of BERT's. LDM's texts have 77 tokens, whatever the folder says: diffusers asks for as many.
    ///
    /// # Errors
    /// When files are missing or are not a BERT tokenizer's.
    pub fn load_bert(folder: &Path) -> Result<Self, LoadError> {
        let invalid = |problem: String| LoadError::Invalid { path: folder.to_owned(), problem };
        let vocabulary = folder.join("vocab.txt");
        let tokenizer = if vocabulary.is_file() {
            let text = fs::read_to_string(&vocabulary).map_err(|source| LoadError::Io { path: vocabulary.clone(), source })?;
            let config = optional_json(&folder.join("tokenizer_config.json"))?;
            wordpiece::from_vocabulary(&text, &config).map_err(|problem| LoadError::Invalid { path: vocabulary, problem })?
        } else {
            from_json(folder)?
        };
        let id = |token: &str| {
            let found = tokenizer.token_to_id(token).map(i64::from);
            found.ok_or_else(|| invalid(format!("the vocabulary has no token {token:?}")))
        };
        let (bos, eos, pad) = (id("[CLS]")?, id("[SEP]")?, id("[PAD]")?);
        Ok(Self { length: BERT_LENGTH, bos, eos, pad, tokenizer })
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
        let encoding = self.tokenizer.encode_fast(prompt, false)?;
        let words = encoding.get_ids();
        let kept = words.len().min(self.length - 2);
        let mut ids = vec![self.bos];
        ids.extend(words[..kept].iter().map(|&id| i64::from(id)));
        ids.push(self.eos);
        ids.resize(self.length, self.pad);
        let cut = &words[kept..];
        let truncated = if cut.is_empty() { None } else { Some(self.text_of(cut)?) };
        Ok(Tokens { ids, truncated })
    }

    fn text_of(&self, ids: &[u32]) -> Result<String, tokenizers::Error> {
        Ok(self.tokenizer.decode(ids, true)?.replace(END_OF_WORD, " ").trim().to_owned())
    }
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
    fn read(folder: &Path) -> Result<Self, LoadError> {
        let config = optional_json(&folder.join("tokenizer_config.json"))?;
        let map = optional_json(&folder.join("special_tokens_map.json"))?;
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

fn optional_json(path: &Path) -> Result<Value, LoadError> {
    if !path.is_file() {
        return Ok(Value::Null);
    }
    let text = fs::read(path).map_err(|source| LoadError::Io { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|error| LoadError::Invalid { path: path.to_owned(), problem: error.to_string() })
}

fn from_json(folder: &Path) -> Result<Tokenizer, LoadError> {
    let path = folder.join("tokenizer.json");
    let mut tokenizer = Tokenizer::from_file(&path).map_err(|error| LoadError::Invalid {
        path: folder.to_owned(),
        problem: format!(
            "no usable tokenizer: expected vocab.json and merges.txt (CLIP), vocab.txt (BERT), or tokenizer.json: {error}"
        ),
    })?;
    // Cutting and padding are ours: a file may carry its own and they would be done twice.
    let _ = tokenizer.with_truncation(None);
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// The pipeline that transformers' `CLIPConverter` builds.
fn from_vocabulary(folder: &Path, settings: &Settings) -> Result<Tokenizer, LoadError> {
    let invalid = |error: tokenizers::Error| LoadError::Invalid { path: folder.to_owned(), problem: error.to_string() };
    let (vocab, merges) = (folder.join("vocab.json"), folder.join("merges.txt"));
    let bpe = BPE::from_file(&vocab.to_string_lossy(), &merges.to_string_lossy())
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
