//! CLIP's own vocabulary, for files that bring none: OpenAI's, MIT licensed, 49,408 tokens. Only the merges are kept (the demo model has them
//! anyway); the tokens follow from them by OpenAI's rule (`simple_tokenizer.py` of github.com/openai/CLIP).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// One merge a line, the first first.
pub(super) const MERGES: &str = include_str!("../../../models/demo/tokenizer/merges.txt");
/// The files that hold a vocabulary.
pub(super) const FILES: [&str; 3] = ["vocab.json", "merges.txt", "tokenizer.json"];
const END_OF_WORD: &str = "</w>";
const SPECIAL: [&str; 2] = ["<|startoftext|>", "<|endoftext|>"];

/// A tokenizer's file by name; `pad` is what fills a text up.
pub(super) fn text(name: &str, pad: &str) -> Option<String> {
    match name {
        "vocab.json" => Some(Value::Object(vocabulary()).to_string()),
        "merges.txt" => Some(MERGES.to_owned()),
        "tokenizer_config.json" => Some(settings(pad).to_string()),
        "special_tokens_map.json" => Some(special_tokens(pad).to_string()),
        _ => None,
    }
}

/// All files of the tokenizer.
pub(super) fn texts(pad: &str) -> BTreeMap<String, String> {
    let names = ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"];
    names.into_iter().filter_map(|name| Some((name.to_owned(), text(name, pad)?))).collect()
}

/// Whether a tokenizer's files hold this very vocabulary.
pub(super) fn is_in(texts: &BTreeMap<String, String>) -> bool {
    let own = || MERGES.lines().skip(1).map(str::to_owned);
    if let Some(merges) = texts.get("merges.txt") {
        return merges.lines().filter(|line| !line.starts_with("#version") && !line.is_empty()).eq(own());
    }
    let parsed: Option<Value> = texts.get("tokenizer.json").and_then(|text| serde_json::from_str(text).ok());
    let pair = |merge: &Value| match merge {
        Value::Array(pair) => pair.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        other => other.as_str().unwrap_or_default().to_owned(),
    };
    parsed.is_some_and(|parsed| parsed["model"]["merges"].as_array().is_some_and(|merges| merges.iter().map(pair).eq(own())))
}

/// Every byte, every byte at the end of a word, every merge, and the two special tokens: that is their order and so their ids.
fn vocabulary() -> Map<String, Value> {
    let letters = byte_letters();
    let ends = letters.iter().map(|letter| format!("{letter}{END_OF_WORD}"));
    let merged = MERGES.lines().skip(1).map(|line| line.replace(' ', ""));
    let words = letters.iter().map(char::to_string).chain(ends).chain(merged).chain(SPECIAL.map(str::to_owned));
    words.zip(0..).map(|(word, id): (String, u32)| (word, id.into())).collect()
}

/// GPT-2's printable letter of each byte, the bytes that are printable by themselves first.
fn byte_letters() -> Vec<char> {
    let printable = (b'!'..=b'~').chain(0xA1..=0xAC).chain(0xAE..=0xFF).map(char::from);
    let count = u32::from(u8::MAX) + 1 - printable.clone().count() as u32;
    printable.chain((256..256 + count).filter_map(char::from_u32)).collect()
}

fn settings(pad: &str) -> Value {
    let mut settings = special_tokens(pad);
    settings["tokenizer_class"] = json!("CLIPTokenizer");
    settings["model_max_length"] = json!(77);
    settings["do_lower_case"] = json!(true);
    settings
}

fn special_tokens(pad: &str) -> Value {
    json!({"bos_token": SPECIAL[0], "eos_token": SPECIAL[1], "unk_token": SPECIAL[1], "pad_token": pad})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::{ClipTokenizer, files::Part};

    #[test]
    fn the_vocabulary_is_openais() {
        let demo: Map<String, Value> = serde_json::from_str(include_str!("../../../models/demo/tokenizer/vocab.json")).unwrap();
        assert_eq!(vocabulary().len(), 49_408);
        assert!(vocabulary() == demo);
    }

    #[test]
    fn texts_have_their_known_ids() {
        let tokenizer = |pad| ClipTokenizer::from_part(&Part::Clip { pad }).unwrap();
        let ids = tokenizer("<|endoftext|>").encode("a photo of a cat").unwrap().ids;
        assert_eq!(ids[..8], [49406, 320, 1125, 539, 320, 2368, 49407, 49407]);
        assert_eq!(tokenizer("!").encode("a photo of a cat").unwrap().ids[6..], [[49407].as_slice(), &[0; 70]].concat());
    }
}
