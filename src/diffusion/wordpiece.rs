//! BERT's tokenizer (Devlin et al., 2018) from its `vocab.txt`; transformers' `BertTokenizer`.

use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

/// What begins a piece that is not the first of its word.
const CONTINUES: &str = "##";
/// Longer words are unknown.
const MAX_WORD_CHARS: u32 = 100;
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// Builds the tokenizer from a vocabulary, one token a line in the order of their ids, and `tokenizer_config.json`, which may be null.
///
/// # Errors
/// When the vocabulary lacks a special token.
pub(super) fn from_vocabulary(vocabulary: &str, config: &Value) -> Result<Tokenizer, String> {
    let ids: Map<String, Value> =
        vocabulary.lines().zip(0_u32..).map(|(token, id)| (token.trim_end().to_owned(), json!(id))).collect();
    if let Some(missing) = SPECIAL.iter().find(|token| !ids.contains_key(**token)) {
        return Err(format!("there is no token {missing:?}"));
    }
    let flag = |name: &str, default: bool| config[name].as_bool().unwrap_or(default);
    let special = |token: &&str| {
        json!({"id": ids[*token], "content": token, "special": true, "normalized": false,
            "single_word": false, "lstrip": false, "rstrip": false})
    };
    let whole = json!({
        "added_tokens": SPECIAL.iter().map(special).collect::<Vec<_>>(),
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": flag("tokenize_chinese_chars", true),
            "strip_accents": config["strip_accents"],
            "lowercase": flag("do_lower_case", true),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": CONTINUES, "cleanup": true},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": CONTINUES,
            "max_input_chars_per_word": MAX_WORD_CHARS,
            "vocab": ids,
        },
    });
    serde_json::from_value(whole).map_err(|error| error.to_string())
}
