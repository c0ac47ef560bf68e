//! Prompts in AUTOMATIC1111's syntax.

use easel::domain::{Piece, Prompt};
use serde_json::{Value, json};

use super::read_json;

/// As the goldens write it.
fn written(piece: &Piece) -> Value {
    match piece {
        Piece::Words { text, weight } => json!([text, weight]),
        Piece::Break => json!("BREAK"),
    }
}

#[test]
fn prompts_are_read_as_a_second_reader_of_the_syntax_reads_them() {
    for case in read_json("prompts.json")["cases"].as_array().unwrap() {
        let (prompt, steps) = (case["prompt"].as_str().unwrap(), case["steps"].as_u64().unwrap() as u32);
        let parse = if case["negative"] == true { Prompt::parse_negative } else { Prompt::parse };
        let branches = parse(prompt, steps).unwrap().branches;
        let branches = branches.iter().map(|branch| {
            let texts: Vec<Vec<Value>> = branch.texts.iter().map(|text| text.iter().map(written).collect()).collect();
            json!({"weight": branch.weight, "texts": texts, "of_step": branch.of_step})
        });
        assert_eq!(Value::from_iter(branches), case["branches"], "{prompt:?}");
    }
}
