//! Embeddings against transformers (`tests/golden/maker/prompts.py`), on the demo model.

use std::{fs, path::Path, sync::Arc};

use safetensors::SafeTensors;
use serde_json::{Value, json};
use tch::{Device, Tensor};

use super::*;
use crate::{
    diffusion::{ModelFolder, describe_models},
    dispatch::ports::PromptLookups,
    domain::Submission,
};

/// Relative to the largest value.
const TOLERANCE: f64 = 1e-4;

struct Desk {
    encoder: PromptEncoder,
    models: Vec<crate::domain::ModelInfo>,
}

impl Desk {
    fn open() -> Self {
        Self::caching(PromptCachePolicy::default())
    }

    fn caching(cache: PromptCachePolicy) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
        let files = ModelFiles::open(&path).unwrap();
        let placement = Placement { device: Device::Cpu, kind: Kind::Float, batch_invariant: true };
        let encoder = PromptEncoder::load(&files, &ModelIndex::read(&files).unwrap(), placement, cache).unwrap();
        let folder = ModelFolder::new("demo", path);
        Self { encoder, models: describe_models(&[folder]).unwrap() }
    }

    fn encode(&self, body: Value) -> PromptEmbeds {
        let request = Submission::parse(body, &self.models, 0).unwrap().request;
        self.encoder.encode(&request, request.effective_steps(), true).unwrap()
    }

    /// `[L, hidden]` of the prompt's first text.
    fn embedding(&self, body: Value) -> Tensor {
        self.encode(body).prompt[0].texts[0].encoder_hidden_states.squeeze_dim(0)
    }
}

fn weighted(prompt: &str) -> Value {
    json!({"prompt": prompt, "prompt_syntax": "weighted"})
}

fn long() -> String {
    ["a purple cat in the snow, an orange boat at sunset, a (teal:1.4) robot"; 6].join(", ")
}

fn assert_golden(name: &str, embedding: &Tensor) {
    let bytes = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/prompts.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap();
    let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
    let expected = Tensor::f_from_data_size(view.data(), &shape, Kind::Float).unwrap();
    let got = embedding.slice(1, 0, None, 8);
    assert_eq!(got.size(), expected.size(), "{name}");
    let worst = ((&got - &expected).abs().max() / expected.abs().max()).double_value(&[]);
    println!("{name} differs by {worst:e}");
    assert!(worst <= TOLERANCE, "{name} differs by {worst}");
}

#[test]
fn weighted_and_long_prompts_have_the_embeddings_of_a_second_writer() {
    let desk = Desk::open();
    for (name, prompt) in [
        ("weighted", "a (purple:1.4) cat in [the snow], ((sunset)) (house:-0.5)".to_owned()),
        ("long", long()),
        ("no-comma", "a red house on a blue hill ".repeat(14)),
        ("breaks", "a red house BREAK a (blue:0.6) hill BREAK".to_owned()),
    ] {
        assert_golden(&format!("{name}.embeds"), &desk.embedding(weighted(&prompt)));
    }
}

#[test]
fn clip_skip_reads_the_hidden_states_of_transformers() {
    let desk = Desk::open();
    for clip_skip in 1..=desk.encoder.towers[0].text_encoder.depth() {
        for syntax in ["plain", "weighted"] {
            let body = json!({"prompt": "a red house", "prompt_syntax": syntax, "clip_skip": clip_skip});
            assert_golden(&format!("clip_skip.{clip_skip}"), &desk.embedding(body));
        }
    }
}

#[test]
fn a_clip_skip_beyond_the_first_layer_reads_that_and_says_so() {
    let desk = Desk::open();
    let depth = desk.encoder.towers[0].text_encoder.depth();
    let embeds = desk.encode(json!({"prompt": "a red house", "clip_skip": 12}));
    assert_golden(&format!("clip_skip.{depth}"), &embeds.prompt[0].texts[0].encoder_hidden_states.squeeze_dim(0));
    assert_eq!(embeds.warnings, [format!("clip_skip is 12, but the text encoder has {depth} layers: its first was read")]);
}

#[test]
fn a_short_prompt_without_weights_has_the_same_bits_in_both_syntaxes() {
    let desk = Desk::open();
    for prompt in ["", "a red house", "a red house, \u{e9}t\u{e9} at 5 o'clock!", &"house ".repeat(75)] {
        assert_eq!(desk.embedding(weighted(prompt)), desk.embedding(json!({"prompt": prompt})), "{prompt}");
    }
    assert_ne!(desk.embedding(weighted("a (red) house")), desk.embedding(json!({"prompt": "a (red) house"})));
}

#[test]
fn all_texts_of_a_request_are_filled_up_to_the_longest() {
    let embeds = Desk::open().encode(json!({"prompt": "a cat AND [a dog:a BREAK b BREAK c:2]", "prompt_syntax": "weighted"}));
    let texts = embeds.prompt.iter().chain(&embeds.negative_prompt).flat_map(|branch| &branch.texts);
    let lengths: Vec<i64> = texts.map(|text| text.encoder_hidden_states.size()[1]).collect();
    assert_eq!((lengths, embeds.length()), (vec![231; 4], 231));
}

#[test]
fn as_many_chunks_are_known_as_fit_and_have_the_same_bits() {
    let fresh = Desk::open();
    let chunk = fresh.embedding(json!({"prompt": ""})).numel() * 4 + 77 * 8;
    let cache = PromptCachePolicy { bytes: 3 * chunk as u64, ..PromptCachePolicy::default() };
    let lookups = Arc::clone(&cache.lookups);
    let desk = Desk::caching(cache);
    // With the negative prompt's empty chunk each request has two, and three are kept.
    for (prompt, hits) in [("a cat", 0), ("a dog", 1), ("a cat", 2), ("a boat", 1), ("a cat", 2), ("a dog", 1)] {
        let body = json!({"prompt": prompt});
        assert_eq!(desk.embedding(body.clone()), fresh.embedding(body), "{prompt}");
        assert_eq!(lookups.take(), PromptLookups { hits, misses: 2 - hits }, "{prompt}");
    }
}

#[test]
fn a_prompt_of_more_chunks_than_are_read_is_cut_and_told() {
    let embeds = Desk::open().encode(weighted(&"a BREAK ".repeat(40)));
    assert_eq!(embeds.length(), 77 * MAX_CHUNKS as i64);
    assert_eq!(embeds.warnings, ["prompt takes 40 chunks of 75 tokens; those after the first 32 were cut off"]);
}
