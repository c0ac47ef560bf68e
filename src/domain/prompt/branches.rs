//! `AND`: composable diffusion (Liu et al., 2022).

use super::{MAX_BRANCHES, MAX_WEIGHT, Placed, PromptError, find_word, text_of, trimmed, trimmed_end};

/// Cuts a prompt at every word `AND`. Each branch may end in `:weight`; so may a prompt of one branch.
pub(super) fn split(text: &[Placed]) -> Result<Vec<(Vec<Placed>, f64)>, PromptError> {
    let (mut branches, mut start) = (Vec::new(), 0);
    while let Some(at) = find_word(text, start, "AND") {
        branches.push(weighted(&text[start..at])?);
        start = at + 3;
        if branches.len() == MAX_BRANCHES {
            let problem = format!("more than {MAX_BRANCHES} prompts are composed by AND");
            return Err(PromptError { column: text[at].column, problem });
        }
    }
    branches.push(weighted(&text[start..])?);
    Ok(branches)
}

/// Takes the weight off a branch's end.
fn weighted(text: &[Placed]) -> Result<(Vec<Placed>, f64), PromptError> {
    let text = trimmed_end(text);
    let Some(colon) = text.iter().rposition(|placed| placed.character == ':') else { return Ok((text.to_vec(), 1.0)) };
    let number = trimmed(&text[colon + 1..]);
    match decimal(&text_of(number)) {
        None => Ok((text.to_vec(), 1.0)),
        Some(weight) if weight.abs() <= MAX_WEIGHT => Ok((trimmed_end(&text[..colon]).to_vec(), weight)),
        Some(weight) => {
            let problem = format!("the weight of a branch must be from -{MAX_WEIGHT} to {MAX_WEIGHT}, got {weight}");
            Err(PromptError { column: number[0].column, problem })
        }
    }
}

/// A number like `2`, `-0.5`, `.5` or `2.`, and nothing else that Rust would take for one.
fn decimal(text: &str) -> Option<f64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_decimal = digits.chars().all(|character| character.is_ascii_digit() || character == '.');
    if is_decimal { text.parse().ok() } else { None }
}
